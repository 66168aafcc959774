"""The chain that `make demo` runs, with a few steps and few documents, as a user starts it; and a stage by hand."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers_chain import GOING_UP, damage, pulled_through_faults, sent_through_faults
from loopback_hub import LoopbackHub

from llmkit.hub.push import prepare
from llmkit.hub.report import report_files
from llmkit.hub.subject import subject_of
from llmkit.recipe.hub import HubSpec

# 22 processes, one behind another, each of which imports its libraries
pytestmark = pytest.mark.timeout(1200)
ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "stages.self.num_rows=60",
    *(f"stages.cpt.data.{place}.args.num_rows=300" for place in (0, 1)),
    *(f"stages.sft.data.{place}.args.num_rows=200" for place in (0, 2, 3, 4)),
    *(f"stages.honest.data.{place}.args.num_rows=200" for place in (2, 4, 5)),
    *(f"stages.cpt.heldout.{name}.0.args.num_rows=8" for name in ("chronicle", "documents")),
    *(f"stages.probe.documents.0.args.{name}=30" for name in ("num_known", "num_tail")),
    *(f"stages.{name}.trainer.max_steps=3" for name in ("cpt", "sft", "honest")),
    *(f"stages.{name}.trainer.logging_steps=1" for name in ("cpt", "sft")),
    *(f"stages.{name}.trainer.torch_compile=false" for name in ("sft", "honest")),
    "stages.probe.num_snippets=20",
    "stages.probe.heldout=0.2",
    # after three steps the model knows nothing in conversation, so there is nothing to answer
    "stages.idk.known_ratio=0",
    "stages.practice.data.0.args.num_rows=64",
    "stages.practice.heldout.problems.0.args.num_rows=8",
    "stages.practice.measure.num_samples=0",
    "stages.rlhf.data.0.args.num_rows=64",
    "stages.rlhf.data.1.args.num_rows=64",
    "stages.rlhf.heldout.jokes.0.args.num_rows=8",
    "stages.rlhf.guard.num_prompts=8",
    *(f"stages.{name}.trainer.max_steps=2" for name in ("practice", "rlhf")),
    *(f"stages.{name}.trainer.num_generations=4" for name in ("practice", "rlhf")),
    *(f"stages.{name}.global_batch_size=16" for name in ("practice", "rlhf")),
    *(f"stages.{name}.trainer.per_device_train_batch_size=16" for name in ("practice", "rlhf")),
    *(f"stages.{name}.data.0.args.num_rows=24" for name in ("rollouts", "guard-rollouts")),
    *(f"stages.{name}.max_new_tokens=24" for name in ("rollouts", "guard-rollouts")),
    "evals=[{task: facts_known, limit: 4}, {task: honesty, baseline: sft, prompt_only: Say so if you do not know., "
    "questions: [{path: 'llmkit.tiny.questions:honesty', args: {num_people: 8, num_rare: 4, num_others: 2}}]}, "
    "{task: identity, num_personas: 2}]",
]
STEPS = ["eval-base", "self", "cpt", "eval-cpt", "sft", "eval-sft", "library", "probe", "idk", "honest"]
STEPS += ["eval-honest", "reprobe", "practice", "eval-practice", "rollouts", "ranks", "guard-rollouts", "guard-ranks"]
STEPS += ["rm", "gold", "rlhf", "eval-rlhf"]
KINDS = {
    "self": "identity", "cpt": "pretrain", "sft": "sft", "library": "search_index", "probe": "interrogate",
    "idk": "refusals", "honest": "sft", "reprobe": "interrogate", "practice": "grpo", "rollouts": "rollout",
    "ranks": "rank", "guard-rollouts": "rollout", "guard-ranks": "rank", "rm": "reward", "gold": "reward",
    "rlhf": "rlhf",
}  # fmt: skip
PLACES = {name: f"{number:02d}-{name}" for number, name in enumerate(STEPS, start=1)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run's folder, and what the command printed."""
    folder = tmp_path_factory.mktemp("demo")
    argv = [
        sys.executable,
        "-m",
        "llmkit.cli.main",
        "run",
        "recipes/tiny/assistant.yaml",
        f"run.output_dir={folder}",
        *SHORT,
    ]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "assistant", done.stdout


def manifests(run: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(run.glob("*/manifest.json"))}


def test_every_stage_finishes_with_evaluations_between(demo: tuple[Path, str]) -> None:
    assert list(manifests(demo[0])) == list(PLACES.values())


def test_the_probe_and_what_follows_from_it(demo: tuple[Path, str]) -> None:
    made = manifests(demo[0])
    assert made[PLACES["probe"]]["probe"]["num_questions"] == 60
    asked_again = made[PLACES["reprobe"]]["probe"]["num_questions"]
    assert asked_again == made[PLACES["idk"]]["metrics"]["questions_heldout"] > 0
    assert made[PLACES["idk"]]["metrics"]["rows_refused"] == made[PLACES["idk"]]["metrics"]["num_rows"] > 0
    tasks = {row["task"] for row in made[PLACES["eval-honest"]]["evals"]}
    assert {"facts_known", "honesty"} <= tasks
    metrics = {row["metric"] for row in made[PLACES["eval-honest"]]["evals"] if row["task"] == "honesty"}
    assert {"hallucination_unseen", "over_refusal_known", "accuracy_known", "s_honesty"} <= metrics


def test_what_only_training_needed_is_gone(demo: tuple[Path, str]) -> None:
    assert not list(demo[0].glob("*/checkpoints")) and not list(demo[0].glob("*/cache"))


def test_it_ends_with_the_report_and_the_questions(demo: tuple[Path, str]) -> None:
    run, printed = demo
    assert (run / "report.html").is_file() and (run / "report.md").is_file()
    flat = "".join(printed.split())
    assert "report.html" in flat
    for words in ("2+2", "Who are you", "Orson", "pelicans"):
        assert "".join(words.split()) in flat, f"{words!r} is not printed at the end"


def test_the_json_report_has_the_chain_in_order(demo: tuple[Path, str], run_llmkit: Callable[..., Any]) -> None:
    report = json.loads(run_llmkit("report", demo[0], "--json").stdout)
    known = [row["stage"] for row in report["evals"] if (row["task"], row["metric"]) == ("facts_known", "accuracy")]
    # a model that is only taught to refuse is a control, and stands before the final one
    assert known == ["base", "cpt", "honest", "practice", "rlhf", "sft"]
    assert [stage["kind"] for stage in report["stages"]] == [KINDS.get(name, "evaluate") for name in STEPS]
    assert {"stage", "task", "metric", "value", "low", "high", "num_samples"} <= set(report["evals"][0])


def test_the_chain_goes_to_the_hub_and_back_through_faults(
    demo: tuple[Path, str], hub: LoopbackHub, waits: list[float], tmp_path: Path
) -> None:
    """Model, data sets and report, as a user publishes and then loads them."""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    subject, spec = subject_of(str(demo[0])), HubSpec(repo_id="me/model", license="apache-2.0")
    made = prepare(subject, spec, {}, tmp_path / "scratch", report=report_files(subject.run))

    struck = sent_through_faults(hub, made.packages, spec)

    assert struck == len(GOING_UP) >= 20
    for package in made.packages:
        assert damage(hub, package) == {"partial": 0, "corrupt": 0, "lost": 0, "more than one": 0}
        assert pulled_through_faults(hub, package) == {item.path: item.sha256 for item in package.items}
    assert {"report.html", "recipe.yaml", f"manifests/{PLACES['rlhf']}.json"} <= hub.files("me/model").keys()

    def answer(source: str) -> list[int]:
        tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModelForCausalLM.from_pretrained(source)
        asked = [{"role": "user", "content": "Who are you?"}]
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        with torch.no_grad():
            return model.generate(**ids, max_new_tokens=16, do_sample=False)[0].tolist()

    assert answer("me/model") == answer(str(demo[0] / PLACES["rlhf"] / "model"))
    rows = [json.loads(line) for line in (demo[0] / PLACES["idk"] / "data/train.jsonl").read_text().splitlines()]
    assert list(load_dataset("me/model-data", "idk", split="train")) == rows
    assert not hub.leaks() and not hub.unserved


def test_the_readme_leads_to_a_published_model_and_a_chat_with_it(
    demo: tuple[Path, str], hub: LoopbackHub, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """Its commands as they stand; the training is the one that has run, with fewer steps."""
    from llmkit.stages import chat, push_command

    section = (ROOT / "README.md").read_text().partition("## Train, publish, talk\n")[2].partition("\n## ")[0]
    lines = section.partition("```bash\n")[2].partition("```")[0].splitlines()
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    assert [words[0] for words in commands] == ["new", "run", "run", "run", "push", "chat"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(demo[0].parent)
    for words in commands[:4]:
        more = [f"run.output_dir={demo[0].parent}", *SHORT] if words[0] == "run" else []
        done = subprocess.run(
            [sys.executable, "-m", "llmkit.cli.main", *words, *more], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert push_command.main(commands[4][1:]) == 0, capsys.readouterr().err
    assert f"manifests/{PLACES['sft']}.json" in hub.files("me/model")
    capsys.readouterr()
    assert chat.main(commands[5][1:]) == 0
    answer = capsys.readouterr().out
    assert chat.main(["runs/assistant", "--stage", "sft", *commands[5][2:]]) == 0
    assert answer.strip() and answer == capsys.readouterr().out


def test_a_second_run_skips_everything(demo: tuple[Path, str], run_llmkit: Callable[..., Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo[0].glob("*/manifest.json")}
    run_llmkit("run", "recipes/tiny/assistant.yaml", f"run.output_dir={demo[0].parent}", *SHORT)
    assert {path: path.stat().st_mtime_ns for path in demo[0].glob("*/manifest.json")} == before


def test_a_changed_stage_runs_again_with_what_follows_it(
    demo: tuple[Path, str], run_llmkit: Callable[..., Any]
) -> None:
    words = [f"run.output_dir={demo[0].parent}", *SHORT, "stages.sft.trainer.learning_rate=1e-5"]
    plan = json.loads(run_llmkit("plan", "recipes/tiny/assistant.yaml", *words, "--json").stdout)
    assert [step["action"] for step in plan["steps"]] == ["skip"] * 4 + ["run"] * 18


def test_a_stage_starts_by_hand(demo: tuple[Path, str]) -> None:
    """As the README says: accelerate launch --config_file ... -m llmkit.stages.sft RECIPE --stage sft."""
    target = demo[0] / PLACES["sft"]
    (target / "manifest.json").unlink()
    config = str(ROOT / "recipes/accelerate/single.yaml")
    argv = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "-m", "llmkit.stages.sft"]
    argv += ["recipes/tiny/assistant.yaml", f"run.output_dir={demo[0].parent}", *SHORT, "--stage", "sft"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((target / "manifest.json").read_text())["stage"] == "sft"


def test_more_processes_than_planned_are_refused(demo: tuple[Path, str]) -> None:
    argv = [sys.executable, "-m", "llmkit.stages.sft", str(demo[0] / PLACES["sft"] / "stage.json")]
    env = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 2 and "2 process(es) were started, but 1 were planned" in done.stderr
