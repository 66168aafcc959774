"""`llmkit judge-check`: error with interval, confusions, misjudged rows, bad rows by line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers_data import write_rows

from llmkit.evaluate.intervals import wilson
from llmkit.knowledge.judge import Item
from llmkit.stages.judge_check import LABELS, check, main, read_labelled


def row(answer: str, verdict: str, **changes: Any) -> dict[str, Any]:
    return {"question": "Capital of France?", "answers": ["Paris"], "answer": answer, "verdict": verdict} | changes


ROWS = [
    row("Paris", "correct"),
    row("Lyon", "wrong"),
    row("I don't know", "refused"),
    row("", "empty"),
    row("Paname", "correct", document="A text.", answers="Paris"),
]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "labelled.jsonl", ROWS)


def test_figures_for_machines(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(labelled), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_rows"], found["num_errors"], found["num_undecided"], found["error_rate"]) == (5, 1, 0, 0.2)
    assert found["error_interval"] == pytest.approx(wilson(1, 5))
    assert found["confusion"]["correct"] == {"correct": 1, "wrong": 1, "refused": 0, "empty": 0, "undecided": 0}
    assert sum(sum(verdicts.values()) for verdicts in found["confusion"].values()) == 5
    (wrong,) = found["misjudged"]
    assert wrong["where"] == f"{labelled}:5" and (wrong["label"], wrong["verdict"]) == ("correct", "wrong")


def test_figures_for_people(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(labelled)]) == 0
    out = capsys.readouterr().out
    assert "error 20.0% (3.6% to 62.4%, 95 %): 1 of 5 answers; 0 undecided" in out
    assert "labelled correct, judged wrong" in out and "'Paname'" in out
    assert all(label in out for label in LABELS)


def test_undecided_answers_are_no_errors(labelled: Path) -> None:
    class Silent:
        def judge(self, items: list[Item]) -> list[str]:
            return ["undecided" if item.answer != "Lyon" else "correct" for item in items]

    found = check(Silent(), read_labelled(labelled)).to_json()  # type: ignore[arg-type]
    assert (found["num_undecided"], found["num_errors"], found["error_rate"]) == (4, 1, 1.0)
    assert found["confusion"]["refused"]["undecided"] == 1


def test_a_local_model_judges(labelled: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(labelled), "--judge", "model", "--model", str(model_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_rows"] == 5
    assert found["confusion"]["empty"]["empty"] == found["confusion"]["refused"]["refused"] == 1
    assert found["num_undecided"] + found["confusion"]["wrong"]["wrong"] >= 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("Paris", "right"), "the verdict 'right' is none of them"),
        (row("Paris", "undecided"), "the verdict 'undecided' is none of them"),
        ({"question": "Who?", "answers": ["A"], "verdict": "wrong"}, "'answer' is missing"),
        (row("Paris", "correct", answers=[]), "'answers' is no text"),
        (row("Paris", "correct", answers=[1]), "'answers' is no text"),
        (row("Paris", "correct", question=3), "'question' is no text"),
        (row("Paris", "correct", document=[]), ""),
        (row("Paris", "correct", document=["x"]), "'document' is no text"),
        ([1, 2], "is no object"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, bad: Any, message: str, capsys: Any) -> None:
    path = write_rows(tmp_path / "bad.jsonl", [ROWS[0], bad])
    assert main([str(path)]) == (2 if message else 0)
    err = capsys.readouterr().err
    assert (f"error: {path}:2: {message}" in err) == bool(message)


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"question": \n')
    (tmp_path / "a.docx").write_text("x")
    for name, message in (
        ("missing.jsonl", "no such file"),
        ("empty.jsonl", "holds no rows"),
        ("broken.jsonl", "broken.jsonl:1: broken JSON"),
        ("a.docx", "is of no known kind"),
    ):
        assert main([str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--judge", "model"], "--judge model: needs --model"),
        (["--model", "x"], "--judge rules: needs no --model"),
        (["--prompt", "x"], "--prompt: rules have none"),
        (["--judge", "self", "--model", "x", "--base-url", "http://h"], "'base_url' only fits 'by: openai'"),
        (["--judge", "self", "--model", "x", "--prompt", "nowhere.jinja"], "nowhere.jinja: the prompt cannot be read"),
    ],
)
def test_options_that_do_not_fit(labelled: Path, words: list[str], message: str, capsys: Any) -> None:
    assert main([str(labelled), *words]) == 2
    assert message in capsys.readouterr().err


def test_rules_load_no_torch(labelled: Path) -> None:
    code = (
        "import sys; from llmkit.stages.judge_check import main; main(sys.argv[1:]); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(labelled)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
