"""Right where the final answer is the expected one: the same number, or the same text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from llmkit.rewards.answer import check_options, expected_answer, found_in, said_of, same, samples_of
from llmkit.rewards.rows import Completion, LogMetric, Reward, Said, Samples, column, ignore, share, text_of

COLUMNS: tuple[str, ...] = ("answer",)
CORRECTNESS: bool = True


def make_exact(
    *,
    parse: Literal["strict", "lenient"] = "strict",
    marks: Sequence[Literal["answer_is", "hash", "boxed", "tag"]] = ("answer_is", "hash", "boxed", "tag"),
) -> Reward:
    """1 where the final answer equals the column `answer` (a text or a number), else 0.

    Args:
        parse: `strict` wants the answer behind a mark; `lenient` takes the last number where no mark stands.
        marks: that count; of several in a text the last one does. See `llmkit.rewards.answer`.

    Returns:
        exact(completions, answer, **columns) -> one 0 or 1 per completion. Logs `exact/strict` and `exact/lenient`,
        shares that are right as each reads them, and `exact/found`, the share with an answer behind a mark.

    Raises:
        UserError: an option is out of range. The function raises RowError for a row without an answer.
    """
    allowed = check_options("exact", parse, marks)

    def exact(
        completions: Sequence[Completion],
        answer: Sequence[Any] | None = None,
        log_metric: LogMetric | None = None,
        **_: Any,
    ) -> list[float]:
        values = column("exact", "answer", answer, completions)
        wanted = [expected_answer(value, row, "exact") for row, value in enumerate(values)]
        found = [found_in(text_of(completion), allowed) for completion in completions]
        strict = [same(each.strict, value) for each, value in zip(found, wanted, strict=True)]
        lenient = [same(each.lenient, value) for each, value in zip(found, wanted, strict=True)]
        log = log_metric or ignore
        log("exact/strict", share(strict))
        log("exact/lenient", share(lenient))
        log("exact/found", share([each.strict is not None for each in found]))
        return [float(right) for right in (strict if parse == "strict" else lenient)]

    return exact


def samples(
    row: Mapping[str, Any], *, parse: str = "strict", marks: Sequence[str] = ("answer_is", "hash", "boxed", "tag")
) -> Samples:
    """The row's solution or answer, and the same with its final number changed."""
    return samples_of(row, "exact", parse, marks)


def said(
    text: str,
    row: Mapping[str, Any],
    *,
    parse: str = "strict",
    marks: Sequence[str] = ("answer_is", "hash", "boxed", "tag"),
) -> Said:
    """The final answer."""
    return said_of(text, parse, marks)
