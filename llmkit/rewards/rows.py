"""What all rewards share: how they are called, what a completion says, and errors that name a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmkit.errors import DataError

Completion = str | Sequence[dict[str, Any]]
Reward = Callable[..., Sequence[float | None]]
"""`f(prompts=, completions=, completion_ids=, **columns, log_metric=, log_extra=, trainer_state=)`, as TRL calls it:
one number per completion, None where the reward does not apply."""
LogMetric = Callable[[str, float], None]


class RowError(DataError):
    """One row cannot be scored. `row` counts from 0 within the call; `llmkit.rewards.guard` says where it stands."""

    def __init__(self, row: int, where: str, what: str, cure: str = "") -> None:
        self.row = row
        super().__init__(where, what, cure)


@dataclass(frozen=True)
class Samples:
    """A right and a wrong completion of one row, for `llmkit.rewards.check`. None: the row gives none."""

    gold: str | None = None
    wrong: str | None = None


@dataclass(frozen=True)
class Said:
    """The answer that a completion gives, as its reward reads it.

    Attributes:
        vote: one text for all spellings of an answer; None: it gives none.
        stated: whether it stands in the demanded form.
    """

    vote: str | None
    stated: bool


def text_of(completion: Completion) -> str:
    """What the assistant says last: the completion itself, or the content of its last assistant message. A call of a
    tool without words, and a message list without the assistant, say nothing."""
    if isinstance(completion, str):
        return completion
    said = [message.get("content") for message in completion if message.get("role") == "assistant"]
    content = said[-1] if said else None
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    return content if isinstance(content, str) else ""


def column(reward: str, name: str, values: Sequence[Any] | None, completions: Sequence[Any]) -> Sequence[Any]:
    """`values`, one per completion. Raises DataError where they are missing, or are not as many."""
    if values is None:
        raise DataError(reward, f"the rows have no column '{name}'", "add it, or name it in 'columns' of the source")
    if len(values) != len(completions):
        raise DataError(reward, f"{len(completions)} completions but {len(values)} '{name}'", "give each its own")
    return values


def share(flags: Sequence[bool]) -> float:
    """Share of the flags that are set; 0 of none."""
    return sum(flags) / len(flags) if flags else 0.0


def ignore(name: str, value: float) -> None:
    """A `log_metric` that keeps nothing."""
