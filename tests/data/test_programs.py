"""164 small programs of our own, and as many that look right, through the reward `code` and the tool `python`.

`programs.jsonl`: name, kind, prompt (a function's head with its docstring), solution, wrong, tests.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from llmkit.chat.turn import Call
from llmkit.recipe.tools import PythonSpec
from llmkit.rewards.code import make_code
from llmkit.tools.python import python_tool
from llmkit.tools.toolbox import Toolbox

LINES = (Path(__file__).parent / "programs.jsonl").read_text(encoding="utf-8").splitlines()
ROWS: list[dict[str, Any]] = [json.loads(line) for line in LINES]
ENDLESS = "fast_fibonacci"
"""Its wrong solution is right and takes years."""
TOGETHER = 8
"""Right programs that run in one process; a wrong one has its own."""


def scored(programs: list[str], tests: list[list[str]], **options: Any) -> list[float | None]:
    fenced = [f"```python\n{program}\n```" for program in programs]
    return list(make_code(score="all", **options)(completions=fenced, tests=tests))


def test_they_are_164_of_many_kinds() -> None:
    assert len(ROWS) == len({row["name"] for row in ROWS}) == 164
    assert {row["kind"] for row in ROWS} == {
        "strings", "lists", "numbers", "dicts", "recursion", "dates", "algorithms"
    }  # fmt: skip
    for row in ROWS:
        head = row["prompt"].splitlines()[0]
        assert row["solution"].startswith(head) and row["wrong"].startswith(head) and '"""' in row["prompt"]
        assert len(row["tests"]) >= 3 and row["solution"] != row["wrong"]


def test_the_reward_passes_every_right_program() -> None:
    groups = [ROWS[start : start + TOGETHER] for start in range(0, len(ROWS), TOGETHER)]
    programs = ["\n".join(row["solution"] for row in group) for group in groups]
    tests = [[test for row in group for test in row["tests"]] for group in groups]
    scores = scored(programs, tests)
    assert scores == [1.0] * len(groups), [
        [row["name"] for row in group] for group, score in zip(groups, scores, strict=True) if score != 1
    ]


def test_the_reward_fails_every_wrong_program() -> None:
    rows = [row for row in ROWS if row["name"] != ENDLESS]
    scores = scored([row["wrong"] for row in rows], [row["tests"] for row in rows])
    assert not [row["name"] for row, score in zip(rows, scores, strict=True) if score]


def with_tests(row: dict[str, Any], key: str) -> str:
    return "\n".join([row[key], *row["tests"], "print('all hold')"])


def test_monty_tells_right_from_wrong() -> None:
    rows = [row for row in ROWS if row["name"] != ENDLESS]
    calls = [Call("python", {"code": with_tests(row, key)}) for key in ("solution", "wrong") for row in rows]
    with Toolbox([python_tool(PythonSpec(name="python"))]) as box:
        found = box.run(calls)
    held = [result.text.strip() == "all hold" and not result.failed for result in found]
    right, wrong = held[: len(rows)], held[len(rows) :]
    assert not [row["name"] for row, holds in zip(rows, right, strict=True) if not holds]
    assert not [row["name"] for row, holds in zip(rows, wrong, strict=True) if holds]


@pytest.mark.parametrize("interpreter", ["monty", "subprocess"])
def test_a_program_that_takes_years_is_ended_in_time(interpreter: Any) -> None:
    (row,) = (row for row in ROWS if row["name"] == ENDLESS)
    began = time.monotonic()
    if interpreter == "subprocess":
        logged: dict[str, float] = {}
        reward = make_code(score="all", timeout=1.0)
        fenced = [f"```python\n{row[key]}\n```" for key in ("solution", "wrong")]
        scores = reward(completions=fenced, tests=[row["tests"]] * 2, log_metric=logged.__setitem__)
        assert scores == [1.0, 0.0] and logged["code/timed_out"] == 0.5
    else:
        with Toolbox([python_tool(PythonSpec(name="python", timeout=0.5))]) as box:
            right, wrong = box.run([Call("python", {"code": with_tests(row, key)}) for key in ("solution", "wrong")])
        assert right.text.strip() == "all hold" and wrong.failed and "Timeout" in wrong.text
    assert time.monotonic() - began < 10
