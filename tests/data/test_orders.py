"""Worked problems with the answer behind the working, in front of it, and behind dots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmkit.data.orders import worked
from llmkit.data.sources import read_source
from llmkit.errors import DataError
from llmkit.plan.files import digest_of_source
from llmkit.recipe.parts import DataSource


@pytest.fixture
def gsm8k(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "train.jsonl"
    rows = [{"question": "How many?", "answer": "Two and two.\n2 + 2 = <<2+2=4>>4\n#### 4"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "path": str(path),
        "columns": {"prompt": "question", "solution": "answer"},
        "answer_after": "####",
    }


@pytest.mark.parametrize(
    ("order", "completion"),
    [
        ("reasoning_first", "Two and two. 2 + 2 = <<2+2=4>>4 The answer is 4."),
        ("answer_first", "The answer is 4. Two and two. 2 + 2 = <<2+2=4>>4"),
        ("filler", ". . . . . . . . The answer is 4."),
    ],
)
def test_orders_hold_the_same_words(gsm8k: dict[str, Any], order: Any, completion: str) -> None:
    assert list(worked(order=order, **gsm8k)) == [{"prompt": "How many?", "completion": completion}]


def test_a_solution_that_says_its_answer_needs_no_mark() -> None:
    args = {"num_rows": 20}
    for row in worked(path="llmkit.tiny.sources:problems", order="answer_first", args=args):
        assert row["completion"].startswith("The answer is ")
        assert row["completion"].count("The answer is") == 1


def test_what_cannot_be_put_in_order_is_named(gsm8k: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no order 'backwards'; there are reasoning_first, answer_first, filler"):
        list(worked(order="backwards", **gsm8k))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no effect on"):
        list(worked(order="filler", split="train[:10]", **gsm8k))
    with pytest.raises(DataError, match=r"train\.jsonl:1: solution does not hold the mark '=>'"):
        list(worked(order="filler", **{**gsm8k, "answer_after": "=>"}))


@pytest.mark.parametrize("order", ["reasoning_first", "answer_first", "filler"])
def test_a_row_without_working_is_named(gsm8k: dict[str, Any], order: Any) -> None:
    Path(gsm8k["path"]).write_text(json.dumps({"question": "How many?", "answer": "#### 4"}) + "\n")
    with pytest.raises(DataError, match=r"train\.jsonl:1: nothing stands in front of the mark"):
        list(worked(order=order, **gsm8k))


@pytest.mark.parametrize(
    "option", [{"num_rows": 1}, {"fraction": 0.5}, {"streaming": True}, {"require_known": "probe"}]
)
def test_what_is_said_beside_the_function_is_refused_in_it(gsm8k: dict[str, Any], option: dict[str, Any]) -> None:
    source = DataSource(path="llmkit.data.orders:worked", args={**gsm8k, "order": "filler", **option})
    with pytest.raises(DataError, match=f"unexpected keyword argument '{next(iter(option))}'"):
        list(read_source(source, {}, seed=0))


def test_what_it_reads_is_part_of_the_fingerprint(gsm8k: dict[str, Any]) -> None:
    source = DataSource(path="llmkit.data.orders:worked", args={**gsm8k, "order": "filler"})
    before = digest_of_source(source)
    Path(gsm8k["path"]).write_text(Path(gsm8k["path"]).read_text() * 2)
    assert digest_of_source(source) != before
