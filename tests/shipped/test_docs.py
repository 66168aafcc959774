"""Every command in the pages works: run here; or read here by its own parser, and named with the test that runs it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
from data.helpers_rank import decision, rollout_row, write_rollouts
from helpers_commands import reads
from ruamel.yaml import YAML

from llmkit.hub.files import _DATA_FILES
from llmkit.plan.make import make
from llmkit.preference.rollouts import item_of
from llmkit.preference.store import open_store
from llmkit.recipe.checks import check
from llmkit.recipe.load import load_words
from llmkit.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("recipes/*/*.md")]
HEAVY = {
    "llmkit eval": "tests/data/test_eval_command.py",
    "llmkit export": "tests/data/test_export.py",
    "llmkit chat": "tests/data/test_chat_command.py",
    "llmkit show": "tests/shipped/test_tutorials.py, with what it prints",
    "llmkit serve": "serves until it is stopped: tests/data/test_serve.py",
    "accelerate launch": "tests/shipped/test_demo.py",
    "llmkit rank rollouts.jsonl": "serves until it is stopped: tests/shipped/test_rank_troubles.py",
    "llmkit rank runs/": "serves until it is stopped: tests/data/test_rank_rows.py finds what it serves",
    "llmkit arena": "tests/data/test_arena.py",
    "llmkit push": "tests/data/test_hub_push.py",
}
"""How a command begins that is only read here -> where it is run."""
SHELL = ("sleep", ".", "kill")
"""A shell's own words around `make hub`: tests/data/test_loopback_hub.py."""
DRY = {"llmkit run": "run with fewer steps by tests/shipped/test_demo.py"}
"""Likewise, what is run here with `--dry-run`, which checks the recipe, too."""


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.S)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


CASES = sorted((page, line) for line, page in {c: str(p.relative_to(ROOT)) for p in PAGES for c in commands(p)}.items())
"""Each command once, with a page that gives it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the reader's: the shipped recipes, and a recipe of one's own."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(ROOT / "evals", folder / "evals")
    shutil.copy(ROOT / "recipes/tiny/assistant.yaml", folder / "my.yaml")
    write_rollouts(folder / "rollouts.jsonl", [rollout_row(0)])
    with open_store(folder / "rankings.jsonl") as store:
        store.append(decision(item_of(rollout_row(0), ""), ["c1", "c0 c2 c3 c4"]))
    foreign = ROOT / "tests/control/foreign"
    (folder / "foreign/dpo").mkdir(parents=True)
    for name in ("axolotl/lora-1b.yaml", "llamafactory/llama3_lora_sft.yaml"):
        shutil.copy(foreign / name, folder / "foreign")
    handbook = foreign / "alignment-handbook/zephyr-7b-beta-dpo-config_full.yaml"
    shutil.copy(handbook, folder / "foreign/dpo/config_full.yaml")
    run = folder / "runs" / "assistant"
    run.mkdir(parents=True)
    shutil.copy(ROOT / "recipes/tiny/assistant.yaml", run / "recipe.yaml")
    return folder


def trouble(line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str | None:
    """What a command says that does not work in the reader's folder; None for one that does."""
    words = shlex.split(line, comments=True)
    words = list(dropwhile(re.compile(r"[A-Z_]+=").match, words))
    command = " ".join(words)
    if words[0] == "make":
        return None if f"\n{words[1]}:" in (ROOT / "Makefile").read_text() else f"no make target {words[1]}"
    if command.startswith(tuple(HEAVY)):
        lost = [word for word in words if word.endswith((".yaml", ".yml")) and not (place / word).is_file()]
        monkeypatch.chdir(place)
        return f"{lost} not there" if lost else reads(words, monkeypatch, capsys)
    if words[0] in SHELL:
        return None
    if words[0] != "llmkit":
        return "the tests do not know how to run it"
    words += ["--dry-run"] if command.startswith(tuple(DRY)) else []
    argv = [sys.executable, "-m", "llmkit.cli.main", *words[1:]]
    done = subprocess.run(argv, cwd=place, capture_output=True, text=True)
    return f"{done.stdout}\n{done.stderr}" if done.returncode else None


@pytest.mark.parametrize("words", ["chat runs/x --sys hello", "push runs/x --dry", "serve runs/x --por 80"])
def test_options_must_be_written_out(words: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert f"unrecognized arguments: {words.split()[2]}" in str(reads(["llmkit", *words.split()], monkeypatch, capsys))


@pytest.mark.parametrize(("page", "line"), CASES, ids=[f"{page}: {line[:50]}" for page, line in CASES])
def test_commands_of_the_pages_work(
    page: str, line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = shlex.split(line, comments=True)
    if words[:2] == ["llmkit", "new"] and len(words) == 4:
        (place / words[3]).unlink(missing_ok=True)
    assert (said := trouble(line, place, monkeypatch, capsys)) is None, f"{page}: {line}\n{said}"


MISTAKEN = {
    "accelerate launch --cpus -m llmkit.stages.sft my.yaml --stage sft": "--cpus",
    "accelerate launch --cpu -m llmkit.stages.sft my.yaml --stages sft": "--stages",
    "accelerate launch --cpu -m llmkit.stages.sft my.yaml --stage sfft": "sfft",
    "llmkit arena": "required: run",
    "llmkit chat runs/assistant --temprature 0.7": "--temprature",
    "llmkit chat --prompt Hello": "required: target",
    "llmkit eval --tasks gsm8k": "takes either a MODEL or --base-url",
    "llmkit eval runs/assistant --task-names gsm8k": "required: --tasks",
    "llmkit export runs/assistant --to olama --out exported": "invalid choice: 'olama'",
    "llmkit nwe": "nwe",
    "llmkit push runs/assistant --repo_id me/assistant": "--repo_id",
    "llmkit rank rollouts.jsonl --ratter anna": "--ratter",
    "llmkit run my.yaml --stages sft": "--stages",
    "llmkit run my.yaml run.sed=1": "did you mean 'seed'?",
    "llmkit serve runs/assistant --prot 8001": "--prot",
    "llmkit serve runs/assistant --max-model-len 8192": "has no effect",
    "llmkit show my.yaml --stage sfft": "sfft",
    "llmkit show --rows 2": "give a recipe",
}
"""Command -> what is said against it."""


@pytest.mark.parametrize(("line", "said"), MISTAKEN.items(), ids=MISTAKEN)
def test_a_mistaken_command_would_not_pass(
    line: str, said: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert said in str(trouble(line, place, monkeypatch, capsys))


def test_what_is_only_read_here_is_run_there() -> None:
    for where in (HEAVY | DRY).values():
        assert all((ROOT / name).is_file() for name in re.findall(r"tests/\S+\.py", where)), where
        assert "tests/" in where


def test_the_listing_of_a_push_is_that_of_the_demo() -> None:
    """Sizes are those of one run; the files are those of the recipe as it is."""
    listed = re.findall(r"^ *[\d.]+ \w+  (\S+)$", (ROOT / "docs/publishing.md").read_text(), flags=re.M)
    steps = make(load_words([str(ROOT / "recipes/tiny/assistant.yaml")])).steps
    rows = {step.name: _DATA_FILES[step.kind] for step in steps if step.kind in _DATA_FILES}
    configs = [name if file == files[0] else f"{name}-{file}" for name, files in rows.items() for file in files]
    assert [name for name in listed if name.startswith("data/")] == [f"data/{name}.jsonl" for name in configs]
    manifests = [f"manifests/{step.stage_dir.path.name}.json" for step in steps if step.kind != "push"]
    assert [name for name in listed if name.startswith("manifests/")] == manifests


EARLIER = {
    "sft": {"kind": "sft", "data": [{"path": "chats.jsonl"}]},
    "probe": {"kind": "interrogate", "from": "sft", "questions": [{"path": "questions.jsonl"}]},
    "idk": {"kind": "refusals", "from": "sft", "probes": ["probe"]},
    "library": {"kind": "search_index", "documents": [{"path": "pages.jsonl"}]},
    "tools": {"kind": "sft", "from": "sft", "data": [{"from": "idk", "name": "tool_calls"}]},
    "other-rollouts": {"kind": "rollout", "from": "sft", "data": [{"path": "prompts.jsonl"}]},
    "other-ranks": {"kind": "rank", "from": "sft", "rollouts": "other-rollouts", "by": "human"},
    "rm": {"kind": "reward", "from": "sft", "data": [{"from": "other-ranks"}]},
    "rlhf": {
        "kind": "rlhf",
        "from": "sft",
        "data": [{"path": "prompts.jsonl"}],
        "reward_model": "rm",
        "guard": {"labeller": "my_package.taste:score"},
        "heldout": {"prompts": [{"path": "heldout.jsonl"}]},
    },
}
"""What a part of a recipe may speak of without showing it: stages that came before."""


def _recipe_of(block: str) -> Recipe:
    """A recipe around a part of one: stages, settings of a stage, or whole sections."""
    part = YAML(typ="safe").load(textwrap.dedent(block))
    part = {"stages": part} if isinstance(part, list) else part
    if not set(part) <= set(Recipe.model_fields):
        practised = {"kind": "grpo", "data": [{"path": "problems.jsonl"}], "rewards": ["exact"]}
        kind = practised if {"rewards", "tools"} & set(part) else {"kind": "sft"}
        kind = EARLIER["rlhf"] if "reward_when" in part else kind
        part = {"stages": [{"name": "shown", "from": "sft", **kind, **part}]}
    stages = part.get("stages", [])
    own, text = {stage.get("name", stage["kind"]) for stage in stages}, str(part)
    earlier = []
    for name, stage in reversed(EARLIER.items()):
        if name not in own and re.search(rf"'{name}'", text):
            earlier.insert(0, {"name": name, **stage})
            text += str(stage)
    whole = {"run": {"name": "shown"}, "model": {"name_or_path": "llmkit.tiny:base", "chat_template": "chatml_tools"}}
    listed = [*earlier, *stages] or [{"name": "sft", **EARLIER["sft"]}]
    return Recipe.model_validate({**whole, **part, "stages": listed})


PARTS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^ *```yaml\n(.*?)^ *```", page.read_text(), flags=re.M | re.S))
]


@pytest.mark.parametrize("block", PARTS)
def test_parts_of_recipes_in_the_pages_are_what_a_recipe_takes(block: str) -> None:
    assert list(check(_recipe_of(block))) == []


def test_the_recipe_in_the_readme_is_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert blocks
    for number, block in enumerate(blocks):
        (tmp_path / f"{number}.yaml").write_text(block)
        (tmp_path / "documents").mkdir(exist_ok=True)
        (tmp_path / "documents" / "a.txt").write_text("A document.\n")
        (tmp_path / "my_chats.jsonl").write_text('{"question": "a", "answer": "b"}\n')
        argv = [sys.executable, "-m", "llmkit.cli.main", "validate", f"{number}.yaml"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
