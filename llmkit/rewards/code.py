"""Right where a program passes its tests, run in a process of its own that can do little (`llmkit.sandbox`).

A test `assert expression == literal` is evaluated there and compared here: the program never sees what is expected, so
that ending early, printing "passed", objects that equal everything and forged reports earn nothing. A program that
reads input and prints is judged by what it printed, likewise here. Other asserts (`assert abs(f(2) - 1.4) < 0.1`) are
decided inside, and count only with a secret that is new in each run; a program that searches its own interpreter for
the secret, or returns objects that claim to be everything, can pass those.

What the process is kept from, and what not, stands in `llmkit.sandbox.program`.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from llmkit.errors import UserError
from llmkit.recipe.reward_values import check_values
from llmkit.rewards.rows import Completion, LogMetric, Reward, RowError, Said, Samples, column, ignore, share, text_of
from llmkit.sandbox.program import Ran, run

COLUMNS: tuple[str, ...] = ("tests",)
CORRECTNESS: bool = True
MAX_CODE = 2**16
_FENCE = re.compile(r"^```[ \t]*([\w+-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = ("", "python", "python3", "py")


@dataclass(frozen=True)
class Step:
    """One statement of the tests. `kind`: `value` and `truth` are expressions, `run` and `setup` statements; `wanted`
    is what a `value` must equal."""

    kind: str
    source: str
    wanted: Any = True


@dataclass(frozen=True)
class Pair:
    """What a program reads, and what it must print."""

    input: str
    output: str


Tests = Sequence[Step] | Sequence[Pair]


def make_code(
    *,
    score: Literal["share", "all"] = "share",
    source: Literal["fence", "text"] = "fence",
    timeout: float = 3.0,
    memory_mb: int = 1024,
    num_parallel: int = 4,
) -> Reward:
    """The share of the column `tests` that the completion's Python program passes; 1: all of them.

    Args:
        score: `share`, or `all`: 0 unless every test passes.
        source: the program is the last closed ``` block (`fence`) or the whole completion (`text`).
        timeout: seconds of CPU time, rounded up, for one program with all its asserts, or for one input; a program that
            only waits has four times that.
        memory_mb: address space of a program, in MiB.
        num_parallel: programs that run at the same time.

    Returns:
        code(completions, tests, **columns) -> one score per completion, in [0, 1]. `tests`: a text of asserts or a list
        of such texts (other statements prepare them; a call that stands alone passes if it raises nothing), or a list
        of `{input, output}`. Logs `code/passed`, the share of tests, `code/timed_out` and `code/isolated`, shares of
        programs that took too long and that had no network.

    Raises:
        UserError: an option is out of range. The function raises RowError for a row without tests.
    """
    _check_options(score, source, timeout, memory_mb, num_parallel)

    def code(
        completions: Sequence[Completion],
        tests: Sequence[Any] | None = None,
        log_metric: LogMetric | None = None,
        **_: Any,
    ) -> list[float]:
        values = column("code", "tests", tests, completions)
        read = [read_tests(value, row) for row, value in enumerate(values)]
        programs = [program_in(text_of(completion), source) for completion in completions]

        def attempt(job: tuple[str | None, Tests]) -> tuple[list[bool], list[Ran]]:
            return passed(*job, timeout=timeout, memory=memory_mb * 2**20)

        with ThreadPoolExecutor(num_parallel) as pool:
            results = list(pool.map(attempt, zip(programs, read, strict=True)))
        ran = [each for _, runs in results for each in runs]
        log = log_metric or ignore
        log("code/passed", share([test for verdicts, _ in results for test in verdicts]))
        log("code/timed_out", share([each.timed_out for each in ran]))
        log("code/isolated", share(["network" in each.cut for each in ran]))
        return [float(all(verdicts)) if score == "all" else share(verdicts) for verdicts, _ in results]

    return code


def samples(row: Mapping[str, Any], **_: Any) -> Samples:
    """The row's solution as a program, and one that fails before it does anything."""
    solution = row.get("solution")
    if not isinstance(solution, str) or row.get("tests") is None:
        return Samples()
    source = program_in(solution, "fence") or solution
    return Samples(f"```python\n{source}\n```", "```python\nraise ValueError\n```")


def said(text: str, row: Mapping[str, Any], *, source: str = "fence", **_: Any) -> Said:
    """The program: only copies of it vote for the same."""
    program = program_in(text, source)
    return Said(program, program is not None)


def program_in(text: str, source: str) -> str | None:
    """The program of a completion; None for none, or for one above 64 KiB."""
    found = _last_block(text) if source == "fence" else text
    return found if found is not None and found.strip() and len(found) <= MAX_CODE else None


def read_tests(value: Any, row: int) -> Tests:
    """The tests of one row. Raises RowError where there are none or they cannot be read."""
    where = f"code: row {row}"
    if isinstance(value, str):
        value = [value]
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, str) for each in value):
        try:
            steps = [_step(node) for node in ast.parse("\n".join(value)).body]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise RowError(row, where, f"its tests are no Python ({error})", "give lines of asserts") from None
        if any(step.kind != "setup" for step in steps):
            return steps
    elif isinstance(value, (list, tuple)) and value and all(_is_pair(each) for each in value):
        return [Pair(each["input"], each["output"]) for each in value]
    what = f"its tests are {repr(value)[:80]}"
    raise RowError(row, where, what, "give asserts as text, or a list of {input, output}")


def passed(program: str | None, tests: Tests, *, timeout: float, memory: int) -> tuple[list[bool], list[Ran]]:
    """Whether each test passes, and the runs that this took. No program passes nothing."""
    counted = [test for test in tests if isinstance(test, Pair) or test.kind != "setup"]
    if program is None:
        return [False] * len(counted), []
    pairs = [test for test in counted if isinstance(test, Pair)]
    if pairs:
        runs = [run({"code": program}, pair.input, timeout=timeout, memory=memory) for pair in pairs]
        both = zip(runs, pairs, strict=True)
        return [ran.status == 0 and _lines(ran.output) == _lines(pair.output) for ran, pair in both], runs
    steps = [test for test in tests if isinstance(test, Step)]
    token = secrets.token_hex(16)
    job = {"code": program, "steps": [[step.kind, step.source] for step in steps], "token": token}
    ran = run(job, "", timeout=timeout, memory=memory)
    given: dict[int, str] = {}
    for line in ran.output.splitlines():
        mark, _, rest = line.partition(" ")
        place, _, value = rest.partition(" ")
        if mark == token and len(place) < 9 and place.isascii() and place.isdigit():
            given.setdefault(int(place), value)
    verdicts = [_equal(given.get(place), step.wanted) for place, step in enumerate(steps) if step.kind != "setup"]
    return verdicts, [ran]


def _check_options(score: str, source: str, timeout: float, memory_mb: int, num_parallel: int) -> None:
    if score not in ("share", "all"):
        raise UserError("code: score", f"is {score!r}", "give share or all")
    if source not in ("fence", "text"):
        raise UserError("code: source", f"is {source!r}", "give fence or text")
    check_values("code", timeout=timeout, memory_mb=memory_mb, num_parallel=num_parallel)
    if os.name != "posix":
        raise UserError("code", "runs programs on Linux and macOS only", "leave this reward out")


def _last_block(text: str) -> str | None:
    """The last ``` block that is closed and says python, or nothing."""
    found, opened = None, None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = (fence[1].casefold(), fence.end() + 1)
        elif not fence[1]:
            if opened[0] in _PYTHON:
                found = text[opened[1] : fence.start()]
            opened = None
    return found


def _is_pair(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("input", "output"))


def _step(node: ast.stmt) -> Step:
    """One statement of the tests. What an assert expects is kept here wherever it is a literal."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return Step("run", ast.unparse(node))
    if not isinstance(node, ast.Assert):
        return Step("setup", ast.unparse(node))
    test = node.test
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        for asked, wanted in ((test.left, test.comparators[0]), (test.comparators[0], test.left)):
            with contextlib.suppress(ValueError, TypeError):
                return Step("value", ast.unparse(asked), ast.literal_eval(wanted))
    return Step("truth", ast.unparse(test))


def _equal(given: str | None, wanted: Any) -> bool:
    """Whether a value that the program's process wrote is the expected one."""
    if given is None or len(given) > 16 * len(ascii(wanted)) + 256:
        return False
    try:
        return bool(ast.literal_eval(given) == wanted)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
