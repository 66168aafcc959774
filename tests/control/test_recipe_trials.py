"""Recipes with the evaluations `reversal` and `jailbreak`: what is refused, and what is done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from control.refused import said_of_change
from jsonschema import Draft202012Validator

from llmkit.cli.schema import schema
from llmkit.plan.make import make
from llmkit.recipe.load import load

RECIPE = """\
run: {name: test, output_dir: runs, seed: 1}
model: {name_or_path: "llmkit.tiny:base", chat_template: chatml}
stages:
  - {name: sft, kind: sft, data: [{path: chats.jsonl}]}
evals:
  - {task: reversal, questions: [{path: pairs.jsonl}]}
  - {task: jailbreak, unsafe: [{path: unsafe.jsonl}], safe: [{path: safe.jsonl}]}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pair = {"forward": "a", "forward_answers": "b", "backward": "c", "backward_answers": "d"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    for name in ("chats", "unsafe", "safe"):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{path: pairs.jsonl}", "{path: pairs.jsonl, columns: {question: q}}", "recipe.yaml:6"),
        ("{path: pairs.jsonl}", "{path: chats.jsonl}", "no column 'backward_answers' in the first rows of chats.jsonl"),
        ("{path: pairs.jsonl}", "{from: nobody}", "no stage is called 'nobody'"),
        ("questions: [{path: pairs.jsonl}]", "judge: {by: rules}", "evals.0.questions: is required"),
        (", safe: [{path: safe.jsonl}]", "", "evals.1.safe: is required"),
        ("task: jailbreak,", "task: jailbreak, wrappings: [plain, base46],", "base46"),
        ("task: jailbreak,", "task: jailbreak, name: reversal,", "two evaluations are called 'reversal'"),
    ],
)
def test_what_is_refused(recipe: Path, old: str, new: str, expected: str) -> None:
    assert expected in said_of_change(recipe, old, new)


def test_settings_and_rows_decide_what_is_done_again(recipe: Path) -> None:
    def prints() -> dict[str, str]:
        return {step.stage.name: step.fingerprint for step in make(load([str(recipe)], [])).steps}

    plain = prints()
    for old, new in (
        ("task: reversal,", "task: reversal, max_new_tokens: 9,"),
        ("safe.jsonl}]}", "safe.jsonl}], wrappings: [plain, rot13]}"),
    ):
        recipe.write_text(RECIPE.replace(old, new))
        changed = prints()
        assert changed["eval-sft"] != plain["eval-sft"] and changed["sft"] == plain["sft"]
    recipe.write_text(RECIPE)
    for name in ("pairs", "unsafe", "safe"):
        file = recipe.with_name(f"{name}.jsonl")
        before = file.read_text()
        file.write_text(before.replace("}", ', "group": "other"}'))
        assert prints()["eval-base"] != plain["eval-base"]
        file.write_text(before)
    assert prints() == plain


def test_editors_and_the_memory_estimate_know_them(recipe: Path) -> None:
    own = schema()
    evals = {"$defs": own["$defs"], **own["properties"]["evals"]}
    pairs = {"task": "reversal", "questions": [{"path": "a.jsonl"}]}
    for given, fits in (
        ([pairs], True),
        ([{**pairs, "question": 1}], False),
        (["reversal"], False),
        (["jailbreak"], False),
    ):
        assert Draft202012Validator(evals).is_valid(given) is fits
    assert all(step.memory is not None for step in make(load([str(recipe)], [])).steps)
