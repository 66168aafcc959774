"""Right where the final answer equals the expected one mathematically: `\\frac{\\sqrt{12}}{4}` is `\\sqrt{3}/2`.

Plain numbers and equal texts are decided here, without sympy. The rest goes to Hugging Face's math-verify in a helper
process: sympy can take years over a tower of powers, inside C calls that no signal interrupts, and math-verify's own
time limit works in main threads only. What is too long, too slow or unreadable is wrong.

A number with an index is refused unless the expected answer has one: math-verify takes `11_2` for 11. So are numbers
side by side: with its spaces taken out, `3 4x` would be `34x`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

from llmkit.errors import UserError
from llmkit.recipe.reward_values import check_values
from llmkit.rewards.answer import (
    Number,
    check_options,
    expected_answer,
    fold,
    found_in,
    number,
    said_of,
    same,
    samples_of,
)
from llmkit.rewards.rows import Completion, LogMetric, Reward, Said, Samples, column, ignore, share, text_of
from llmkit.sandbox.child import Child, ChildFailed

COLUMNS: tuple[str, ...] = ("answer",)
CORRECTNESS: bool = True
MAX_CHARS = 256
ROUNDED = 6
"""Decimals from which on a rounded number is right for a fraction that has no end, as in math-verify."""

_FORMULA = re.compile(r"[0-9\\^_=<>+*/|]|^\W*[A-Za-z]\W*$|[(\[{].*,.*[)\]}]", re.DOTALL)
_INDEXED = re.compile(r"\d\s?_")
_APART = re.compile(r"\d\s+\d")
# One comparison of each sort: what sympy loads and caches for it is then there in every fork of the helper.
_WARM = [
    (r"\frac{x}{2}", "0.5x"),
    ("x^2+2x+1", "(x+1)^2"),
    ("(1,2)", "(2,1)"),
    ("[0,1)", "[0,1]"),
    (r"\{1,2\}", r"\{2,3\}"),
    (r"\frac{\sqrt{3}}{2}", r"\sin(\pi/3)"),
    ("x=5", "6"),
    ("5", r"\sqrt{26}"),
]
_MATHS = re.compile(r"\$([^$]*)\$|\\\((.*?)\\\)|\\\[(.*?)\\\]", re.DOTALL)


def make_math(
    *,
    parse: Literal["strict", "lenient"] = "strict",
    marks: Sequence[Literal["answer_is", "hash", "boxed", "tag"]] = ("answer_is", "hash", "boxed", "tag"),
    timeout: float = 3.0,
) -> Reward:
    """1 where the final answer equals the column `answer` mathematically (math-verify), else 0.

    Args:
        parse: `strict` wants the answer behind a mark; `lenient` takes the last number where no mark stands.
        marks: that count; of several in a text the last one does. See `llmkit.rewards.answer`.
        timeout: seconds of CPU time for one comparison; one that takes longer scores 0.

    Returns:
        math(completions, answer, **columns) -> one 0 or 1 per completion. Logs `math/strict` and
        `math/lenient`, shares that are right as each reads them, `math/found`, the share with an answer behind a mark,
        and `math/failed`, the share that took too long or could not be compared.

    Raises:
        UserError: math-verify is not installed, or an option is out of range. The function raises RowError for a row
            without an answer.
    """
    allowed = check_options("math", parse, marks)
    check_values("math", timeout=timeout)
    if find_spec("math_verify") is None:
        raise UserError("math", "needs math-verify, which is not installed", "pip install 'llmkit[math]'")
    child = Child(f"{__name__}:equivalent", timeout=timeout, warm=_WARM)

    @lru_cache(maxsize=4096)  # answers of one group are often the same
    def equal(given: str, wanted: str) -> bool | None:
        if (decided := decide(given, wanted)) is not None:
            return decided
        try:
            return bool(child.call(wanted, given))
        except ChildFailed:
            return None

    def math(
        completions: Sequence[Completion],
        answer: Sequence[Any] | None = None,
        log_metric: LogMetric | None = None,
        **_: Any,
    ) -> list[float]:
        values = column("math", "answer", answer, completions)
        wanted = [expected_answer(value, row, "math") for row, value in enumerate(values)]
        found = [found_in(text_of(completion), allowed) for completion in completions]
        pairs = list(zip(found, wanted, strict=True))
        strict = [each.strict is not None and equal(each.strict, want) for each, want in pairs]
        lenient = [each.lenient is not None and equal(each.lenient, want) for each, want in pairs]
        right = strict if parse == "strict" else lenient
        log = log_metric or ignore
        log("math/strict", share([bool(each) for each in strict]))
        log("math/lenient", share([bool(each) for each in lenient]))
        log("math/found", share([each.strict is not None for each in found]))
        log("math/failed", share([each is None for each in right]))
        return [float(bool(each)) for each in right]

    return math


def decide(given: str, wanted: str) -> bool | None:
    """Whether two answers are equal, where that is to be seen without mathematics; None where it is not."""
    if same(given, wanted):
        return True
    one, other = number(given), number(wanted)
    if one is not None and other is not None:
        return one.unit in ("", other.unit) and _rounded(given, one, other)
    if _APART.search(given) and not _APART.search(wanted):
        return False
    if one is None and other is None and _sides(given) == _sides(wanted):
        return True
    if len(given) > MAX_CHARS or not _FORMULA.search(given) or not _FORMULA.search(wanted):
        return False
    return False if _INDEXED.search(given) and not _INDEXED.search(wanted) else None


def samples(
    row: Mapping[str, Any],
    *,
    parse: str = "strict",
    marks: Sequence[str] = ("answer_is", "hash", "boxed", "tag"),
    timeout: float = 3.0,
) -> Samples:
    """The row's solution or answer, and the same with its final number changed."""
    return samples_of(row, "math", parse, marks)


def said(
    text: str,
    row: Mapping[str, Any],
    *,
    parse: str = "strict",
    marks: Sequence[str] = ("answer_is", "hash", "boxed", "tag"),
    **_: Any,
) -> Said:
    """The final answer; of two wrong ones that are equal in another spelling it is not seen that they are."""
    return said_of(text, parse, marks)


def equivalent(wanted: str, given: str) -> bool:
    """Whether math-verify takes `given` for `wanted`; called in the helper, which limits its time and memory.

    The order matters: the expected answer comes first. Both are marked as LaTeX, which it would not read otherwise.
    """
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # it warns at each call that its own time limit is off
    gold, target = (parse(f"${_bare(text)}$", parsing_timeout=None) for text in (wanted, given))
    return bool(gold and target and verify(gold, target, timeout_seconds=None))


def _bare(text: str) -> str:
    """A text without its own dollar signs, inside which it would be no LaTeX."""
    found = _MATHS.fullmatch(text.strip())
    inner = next((part for part in found.groups() if part is not None), "") if found else text
    return re.sub(r"(?<!\\)\$", "", inner).strip()


def _sides(text: str) -> str:
    return fold(text).replace(" ", "")


def _rounded(given: str, one: Number, other: Number) -> bool:
    """0.333333 for 1/3."""
    decimals = len(given.rstrip(" .%$").rpartition(".")[2]) if "." in given else 0
    endless = other.value.denominator
    for prime in (2, 5):
        while endless % prime == 0:
            endless //= prime
    return endless > 1 and decimals >= ROUNDED and abs(one.value - other.value) * 2 * 10**decimals <= 1
