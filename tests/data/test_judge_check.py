"""`llmkit judge-check`: error with interval, confusions, misjudged rows, bad rows by line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Reply, refused
from helpers_data import write_rows

from llmkit.artifacts.shipped import shipped
from llmkit.intervals import wilson
from llmkit.knowledge.judge import Item
from llmkit.stages.judge_check import main
from llmkit.stages.labelled import LABELS, check, read_labelled


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
        num_asked, failures = 5, Counter({"no reply": 4})

        def judge(self, items: list[Item]) -> list[str]:
            return ["undecided" if item.answer != "Lyon" else "correct" for item in items]

    found = check(Silent(), read_labelled(labelled)).to_json()  # type: ignore[arg-type]
    assert (found["num_undecided"], found["num_errors"], found["error_rate"]) == (4, 1, 1.0)
    assert found["confusion"]["refused"]["undecided"] == 1
    assert (found["num_asked"], found["failures"]) == (5, {"no reply": 4})


def judged_by(endpoint: FakeOpenAI, *words: str) -> int:
    return main(["--judge", "openai", "--model", "m", "--base-url", endpoint.base_url, *words])


def test_a_dead_endpoint_is_an_error_with_its_reason(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeOpenAI(always=refused(500, "out of memory")) as endpoint:
        assert judged_by(endpoint, str(labelled), "--max-retries", "0") == 2
        shown = capsys.readouterr()
        assert shown.out == "" and "error: --judge openai: left all 2 answers undecided that it was" in shown.err
        assert "most often: HTTP 500: out of memory (1 of 1 tries)" in shown.err
        assert judged_by(endpoint, str(labelled), "--max-retries", "1", "--json") == 2
        found = json.loads(capsys.readouterr().out)
    assert found["failures"] == {"HTTP 500: out of memory (2 of 2 tries)": 2} and found["num_asked"] == 2
    assert len(endpoint.requests) == 2 + 4


def test_what_an_endpoint_fails_at_now_and_then_is_told(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def says(body: dict[str, Any]) -> str:
        return "wrong" if "Lyon" in body["messages"][0]["content"] else "perhaps"

    with FakeOpenAI(says) as endpoint:
        assert judged_by(endpoint, str(labelled)) == 0
    assert "0 of 4 answers; 1 undecided; most often: the reply is not one verdict" in capsys.readouterr().out


def test_the_settings_of_an_endpoint_reach_it(
    labelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-key")
    words = ["--api-key-env", "MY_KEY", "--concurrency", "1", "--max-new-tokens", "7"]
    with FakeOpenAI(lambda _: "wrong") as endpoint:
        assert judged_by(endpoint, str(labelled), *words) == 0
    assert set(endpoint.keys) == {"Bearer secret-key"} and endpoint.most_at_once == 1
    assert 7 in endpoint.requests[0].values()
    with FakeOpenAI(always=Reply(delay=1.0)) as endpoint:
        assert judged_by(endpoint, str(labelled), "--timeout", "0.1", "--max-retries", "0") == 2
    assert "no reply within 0.1 s" in capsys.readouterr().err


def test_without_a_file_the_shipped_slice_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    shipped_rows = sum(1 for _ in read_labelled(shipped("evals") / "judge" / "labelled.jsonl"))
    assert json.loads(capsys.readouterr().out)["num_rows"] == shipped_rows


def test_a_local_model_judges(
    labelled: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of 60k random parameters never replies with a verdict."""
    prompt = tmp_path / "short.jinja"
    prompt.write_text("{{ question }} {{ accepted }} {{ answer }} {{ fence }}")
    words = ["--judge", "model", "--model", str(model_dir), "--prompt", str(prompt), "--max-new-tokens", "4", "--json"]
    assert main([str(labelled), *words]) == 2
    shown = capsys.readouterr()
    assert "left all 2 answers undecided" in shown.err and "the reply is not one verdict" in shown.err
    found = json.loads(shown.out)
    assert found["num_rows"] == 5
    assert found["confusion"]["empty"]["empty"] == found["confusion"]["refused"]["refused"] == 1
    assert found["num_undecided"] == 2


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
        (["--timeout", "0"], "--timeout: Input should be greater than 0"),
        (["--timeout", "3", "--prompt", "x"], "--judge rules: has no use for --prompt, --timeout; leave it out, or"),
        (["--judge", "self", "--model", "x", "--base-url", "http://h"], "--judge self: has no use for --base-url"),
        (["--judge", "openai", "--model", "x", "--engine", "vllm"], "--judge openai: has no use for --engine"),
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
