"""The command line: words, errors for people, exit codes, what each command prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmkit.artifacts.shipped import shipped
from llmkit.cli.main import app
from llmkit.cli.new import find, recipes
from llmkit.cli.schema import schema
from llmkit.errors import RecipeError, UserError
from llmkit.options import parser_for
from llmkit.recipe.load import load_words

RECIPE = """\
# A recipe.
run: {name: demo, output_dir: runs}
model: {name_or_path: org/model}
stages:
  - {name: sft, kind: sft, data: [{path: org/set}]}
"""
COMMANDS = ["new", "import", "validate", "plan", "run", "show", "chat", "judge-check", "rank", "report", "schema"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def llmkit(folder: Path, *words: str, code: int = 0, **env: str) -> str:
    """What the command prints; stderr if it is to fail."""
    command = [sys.executable, "-m", "llmkit.cli.main", *words]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **env}, timeout=60
    )
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr if code else result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples(folder: Path, command: str) -> None:
    text = llmkit(folder, command, "--help", COLUMNS="200")
    assert "Examples" in text
    assert f"llmkit {command}" in text


def test_top_help_names_every_command(folder: Path) -> None:
    text = llmkit(folder, "--help")
    assert all(f" {command} " in text for command in COMMANDS)
    assert llmkit(folder, "--version").startswith("llmkit 0.")


WORKERS = {
    ("show",): "show",
    ("chat",): "chat",
    ("eval",): "eval_command",
    ("serve",): "serve",
    ("judge-check",): "judge_check",
    ("rank",): "rank_page",
    ("rank", "export"): "rank_export",
    ("arena",): "arena",
    ("index",): "index",
    ("push",): "push_command",
    ("export",): "export",
    ("rewards", "check"): "rewards_check",
}
"""Words of a command -> whose parser it has."""


def test_the_options_of_a_worker_are_shown_and_completed() -> None:
    """By the command line itself, without a worker."""
    runner = CliRunner()
    for words, module in WORKERS.items():
        made = parser_for(module)
        options = {word for action in made._actions for word in action.option_strings if word.startswith("--")}
        text = runner.invoke(app, [*words, "--help"], env={"COLUMNS": "200"}, prog_name="llmkit").stdout
        assert {word for word in options if f" {word} " not in text} == set(), words
        assert f"Usage: {made.prog} [OPTIONS]" in text
        assert completed(*words, "--") == options


def completed(*words: str) -> set[str]:
    """What a shell offers for the last word."""
    env = {
        "_LLMKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("llmkit", *words)),
        "COMP_CWORD": f"{len(words)}",
    }
    return set(CliRunner().invoke(app, [], env=env, prog_name="llmkit").stdout.split())


def test_values_are_completed_and_given_options_are_not_offered_again() -> None:
    assert completed("export", "runs/a", "--to", "") == {"llama.cpp", "ollama", "vllm"}
    assert completed("push", "runs/a", "--public", "--p") == set()
    assert completed("push", "runs/a", "--p") == {"--public"}


def test_words_reach_a_worker_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr("llmkit.cli.worker.become", lambda module, words: seen.append((module, list(words))))
    for words in (["runs/a", "--prompt", "--x", "--stage=sft", "-q"], ["runs/a", "--", "--help"], []):
        CliRunner().invoke(app, ["chat", *words], prog_name="llmkit")
        assert seen.pop() == ("chat", words)


def test_validate(folder: Path) -> None:
    assert llmkit(folder, "validate", "recipe.yaml") == "ok: 1 stage (sft), 0 automatic evaluations\n"
    assert "2 automatic" in llmkit(folder, "validate", "recipe.yaml", "prompts=[Hello]")


def test_mistakes_end_with_exit_code_2_and_all_problems(folder: Path) -> None:
    text = llmkit(folder, "validate", "recipe.yaml", "run.sed=1", "stages.sft.kind=stf", code=2)
    assert text.splitlines() == [
        "error: command line: run.sed=1: run.sed: unknown key; did you mean 'seed'?",
        "error: command line: stages.sft.kind=stf: stages.0.kind: unknown kind 'stf'; did you mean 'sft'?",
    ]
    assert "no such recipe file" in llmkit(folder, "plan", "none.yaml", code=2)
    assert "no such run folder" in llmkit(folder, "report", "runs/none", code=2)


def test_a_broken_rule_of_the_plan_is_told_by_validate(folder: Path) -> None:
    text = llmkit(folder, "validate", "recipe.yaml", "stages.sft.launch.num_processes=2", code=2)
    assert text.startswith("error: command line: stages.sft.launch.num_processes=2: stages.0.launch.num_processes: ")


def test_plan(folder: Path) -> None:
    assert "-m llmkit.stages.sft" in llmkit(folder, "plan", "recipe.yaml", "--verbose")
    text = llmkit(folder, "plan", "recipe.yaml")
    assert "-m llmkit.stages.sft" not in text and "global_batch_size" in text
    data = json.loads(llmkit(folder, "plan", "recipe.yaml", "run.seed=3", "--json"))
    assert data["steps"][0]["settings"]["seed"] == 3
    assert not (folder / "runs").exists()


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    assert "-m llmkit.stages.sft" in llmkit(folder, "run", "recipe.yaml", "--dry-run", "-v")
    assert not (folder / "runs").exists()
    assert "no such stage" in llmkit(folder, "run", "recipe.yaml", "--stage", "stf", "--dry-run", code=2)


def test_a_failing_run(folder: Path) -> None:
    """Its environment keeps Python from finding its own library: the worker dies at once."""
    text = llmkit(folder, "run", "recipe.yaml", 'stages.sft.launch.env={PYTHONHOME: "/none"}', code=1)
    assert text.startswith("error: stage 'sft' failed (exit code 1)\n  | ")
    last = text.splitlines()[-2:]
    assert last[0] == f"log: {folder}/runs/demo/01-sft/log.txt"
    assert last[1].startswith("go on with: llmkit run recipe.yaml 'stages.sft.launch.env=")
    assert (folder / "runs" / "demo" / "recipe.yaml").exists()


def test_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "over.yml").write_text("run: {seed: 7}\n")
    recipe = load_words(["run.name=a", "recipe.yaml", "over.yml"]).recipe
    assert (recipe.run.seed, recipe.run.name) == (7, "a")
    recipe = load_words(["recipe.yaml", "model.chat_template=mine.yaml"]).recipe
    assert recipe.model is not None
    assert recipe.model.chat_template == "mine.yaml", "an override may end in .yaml"
    with pytest.raises(RecipeError, match=r"did you mean 'recipe\.yaml'"):
        load_words(["recipe"])
    with pytest.raises(RecipeError, match="no recipe file"):
        load_words(["run.seed=1"])


def test_new_lists_and_copies(folder: Path) -> None:
    listed = llmkit(folder, "new").splitlines()
    assert len(listed) == len(recipes())
    assert all(len(line.split()) > 3 for line in listed), "each recipe opens with a comment"
    name = next(iter(recipes()))
    llmkit(folder, "new", name, "mine.yaml")
    assert (folder / "mine.yaml").read_text() == recipes()[name].read_text()
    assert "is there already" in llmkit(folder, "new", name, "mine.yaml", code=2)
    assert "no such recipe" in llmkit(folder, "new", "nothing-like-it", code=2)


def test_new_by_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tiny/assistant", "tiny/base", "qwen3-0.6b/assistant", "one/only"):
        (tmp_path / f"{name}.yaml").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").touch()
    monkeypatch.setattr("llmkit.cli.new.shipped", lambda _: tmp_path)
    short = {"tiny": "tiny/assistant", "qwen3": "qwen3-0.6b/assistant", "only": "one/only", "base": "tiny/base"}
    for name, full in short.items():
        assert find(name) == tmp_path / f"{full}.yaml"
    with pytest.raises(UserError, match="several recipes fit"):
        find("assistant")
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        find("tinny")


def test_schema_knows_stages_and_trainer_options() -> None:
    made = schema()
    assert made["$schema"].endswith("2020-12/schema")
    trainer = made["$defs"]["SftStage"]["properties"]["trainer"]
    assert trainer["additionalProperties"] is False
    assert trainer["properties"]["packing"] == {"type": "boolean", "default": True}
    assert trainer["properties"]["learning_rate"]["type"] == "number"
    assert "output_dir" not in trainer["properties"]
    assert "packing" not in made["$defs"]["PretrainStage"]["properties"]["trainer"]["properties"]
    assert "from" in made["$defs"]["SftStage"]["properties"]
    own = {"enum": ["honesty", "problems", "preference", "tools", "reversal", "jailbreak"]}
    assert {"type": "string", "not": own} in made["properties"]["evals"]["items"]["anyOf"]


def test_the_schema_takes_every_shipped_recipe() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from ruamel.yaml import YAML

    validator = jsonschema.Draft202012Validator(schema())
    for path in recipes().values():
        data = YAML(typ="safe").load(path.read_text())
        assert not [f"{path.name}: {error.message}" for error in validator.iter_errors(data)]
    wrong = {"run": {"name": "x"}, "stages": [{"kind": "sft", "data": [{"path": "x"}], "trainer": {"learing_rate": 1}}]}
    assert list(validator.iter_errors(wrong))


def test_shipped_recipes_are_there() -> None:
    assert shipped("recipes").is_dir()
    assert not any(name.startswith("accelerate") for name in recipes())
