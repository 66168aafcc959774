"""Do rewards say what they should of right and wrong answers: on rows of all sorts, and on GSM8K."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmkit.recipe.practice import RewardSpec
from llmkit.rewards.answer import MARKS, samples_of
from llmkit.rewards.check import check
from llmkit.rewards.registry import load
from llmkit.rewards.rows import Samples


@dataclass(frozen=True)
class Row:
    columns: dict[str, Any]
    place: str = "a:1"
    prompt: Any = field(default="Q")


def report(spec: dict[str, Any], *rows: Any, **options: Any) -> Any:
    listed = [row if isinstance(row, Row) else Row(row, f"a:{i + 1}") for i, row in enumerate(rows)]
    return check(load([RewardSpec(**spec)]), listed, **options)


def numbers(found: Any, label: str = "exact") -> tuple[int, ...]:
    each = found.counts[label]
    return each.num_gold, each.num_gold_failed, each.num_wrong, each.num_wrong_failed


@pytest.mark.parametrize("parse", ["strict", "lenient"])
@pytest.mark.parametrize("marks", [["answer_is"], ["hash"], ["boxed"], ["tag"], ["boxed", "tag"]])
def test_answers_are_stated_in_a_form_that_the_reward_reads(parse: str, marks: list[str]) -> None:
    rows = [
        {"answer": value} for value in (5, "1,234", "-0.5", "Paris", "1/2", "St. Louis", "5 km", 2.5, "a = b", "3-4")
    ]
    found = report({"name": "exact", "args": {"parse": parse, "marks": marks}}, *rows)
    assert found.is_good and numbers(found) == (10, 0, 10, 0), [str(each) for each in found.failures]


def test_a_solution_that_disagrees_with_its_answer_is_found() -> None:
    rows = [
        {"answer": 5, "solution": "2+3\n#### 5"},
        {"answer": 5, "solution": "2+3\n#### 6"},
        {"answer": 5, "solution": "Add."},
    ]
    found = report({"name": "exact"}, *rows)
    assert numbers(found) == (3, 1, 3, 0) and not found.is_good
    assert str(found.failures[0]) == "a:2: exact gives 0.0 for the right answer, '2+3\\n#### 6'"


def test_a_wrong_solution_keeps_all_but_its_last_number() -> None:
    row = {"answer": "5", "solution": "2 + 3 = 5 and 5 it is.\n#### 5\n"}
    assert samples_of(row, "exact", "strict", MARKS) == Samples(row["solution"], "2 + 3 = 5 and 5 it is.\n#### 6\n")
    assert samples_of({**row, "solution": "It is 5."}, "exact", "lenient", MARKS).wrong == "It is 6."
    assert samples_of({**row, "solution": "It is 5."}, "exact", "strict", MARKS).gold == "The answer is 5."


def test_a_reward_that_accepts_anything_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "easy.py").write_text(
        "def anything(completions, answer, **kwargs): return [1.0] * len(completions)\n"
        "def nothing(completions, **_): return [None] * len(completions)\n"
        "def ends(completions, answer, **_): return [float(f'is {a}.' in c) for c, a in zip(completions, answer)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = report({"path": "easy:anything", "correctness": True}, *[{"answer": i} for i in range(20)], max_failures=3)
    assert numbers(found, "anything") == (0, 0, 20, 20) and len(found.failures) == 3 and not found.is_good
    assert "gives 1.0 for a wrong answer" in str(found.failures[0])
    assert report({"path": "easy:anything"}, {"answer": 1}).counts == {}, "says nothing of correctness"
    assert report({"path": "easy:ends", "correctness": True}, {"answer": 5}).is_good
    found = report({"path": "easy:nothing", "correctness": True}, {"answer": 5, "solution": "It is 5."})
    assert not found.is_good and found.untried == ["nothing"], "None is no trial"
    found = report({"path": "easy:anything", "correctness": True}, {"answer": 5, "solution": "2 + 3 = 5"})
    assert numbers(found, "anything") == (1, 0, 1, 1), "a solution is right in whatever form the function reads"
    found = report({"path": "easy:anything", "correctness": True}, {"answer": ["a", "list"]})
    assert found.counts["anything"].num_skipped == 1 and not found.failures, "what only the user's function can read"


def test_rows_that_are_unfit_or_say_nothing_are_counted() -> None:
    found = report(
        {"name": "exact", "when": {"use": 1}},
        {"answer": 5, "use": 1},
        {"answer": [5], "use": 1},
        {"use": 1},
        {"answer": 6},
    )
    assert numbers(found) == (1, 0, 1, 0) and not found.is_good
    assert found.counts["exact"].num_unfit == found.counts["exact"].num_skipped == 1
    assert str(found.failures[0]).startswith("a:2: exact: its answer is [5]")
    assert not report({"name": "exact"}).is_good, "nothing was tried"
    found = report({"name": "instructions"}, {"constraints": [{"kind": "lowercase"}]})
    assert found.is_good and found.without == ["instructions"] and not found.untried


def test_other_rewards_bring_right_and_wrong_answers_of_their_own() -> None:
    class Judge:
        is_correct = staticmethod(lambda text, accepted: text in accepted)
        is_refusal = staticmethod(lambda text, own: False)

    specs = [
        RewardSpec(name="choice"),
        RewardSpec(name="code", args={"timeout": 1.0}),
        RewardSpec(name="abstain", args={"t": 0.5}),
    ]
    tests = "assert f(1) == 2"
    row = {
        "answer": "B",
        "choices": ["a", "b"],
        "answers": ["Oslo"],
        "tests": tests,
        "solution": "def f(x): return x + 1",
    }
    found = check(
        load(specs, judge=Judge()), [Row(row), Row({**row, "answer": 0}, prompt=[{"role": "user", "content": "Q"}])]
    )
    assert found.is_good and set(found.counts) == {"choice", "code", "abstain"}
    assert all(numbers(found, label) == (2, 0, 2, 0) for label in found.counts)


def test_a_stream_is_read_in_batches() -> None:
    taken: list[int] = []

    def rows() -> Iterator[Row]:
        for i in range(200):
            taken.append(i)
            yield Row({"answer": i})

    assert numbers(check(load([RewardSpec(name="exact")]), rows(), batch_size=7)) == (200, 0, 200, 0)


@pytest.mark.parametrize("parse", ["strict", "lenient"])
def test_gsm8k(real_data: Path, parse: str) -> None:
    """Every solution of its training set is right, and wrong with its final number changed, also where the old number
    still stands in the text."""
    lines = (real_data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    raw = [json.loads(line)["answer"] for line in lines]
    rows = [
        Row({"solution": text, "answer": text.rpartition("####")[2].strip()}, f"train.jsonl:{i + 1}")
        for i, text in enumerate(raw)
    ]
    start = time.process_time()
    found = report({"name": "exact", "args": {"parse": parse}}, *rows)
    assert numbers(found) == (7473, 0, 7473, 0) and found.is_good, [str(each) for each in found.failures]
    assert time.process_time() - start < 60
