"""Do the rewards say what they should? The right answer of each row must score 1, and a wrong one nothing.

A reward that misreads its data teaches nothing, or the wrong thing, for hours. Each reward on correctness says what a
right and a wrong completion of a row are (`samples` of its module): the row's `solution` if it gives an answer in a
form that the reward reads, else its `answer` in such a form; and the same with the final number, the letter or the
program changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, Protocol

from llmkit.chat.turn import answer_to
from llmkit.rewards.guard import score
from llmkit.rewards.registry import Named
from llmkit.rewards.rows import RowError, Samples

RIGHT = 1.0 - 1e-6


class Problem(Protocol):
    """A row: what is asked, its columns, and where it stands."""

    @property
    def prompt(self) -> Any: ...
    @property
    def columns(self) -> Mapping[str, Any]: ...
    @property
    def place(self) -> str: ...


@dataclass(frozen=True)
class Failure:
    """A score that is not what it should be. `kind`: of the right answer (`gold`), of a wrong one (`wrong`), or none,
    because the row is unfit (`row`; `completion` then says why)."""

    reward: str
    place: str
    kind: Literal["gold", "wrong", "row"]
    completion: str
    score: float | None = None

    def __str__(self) -> str:
        if self.kind == "row":
            return f"{self.place}: {self.reward}: {self.completion}"
        said = "the right answer" if self.kind == "gold" else "a wrong answer"
        return f"{self.place}: {self.reward} gives {self.score} for {said}, {self.completion[-80:]!r}"


@dataclass
class Counts:
    """Of one reward: completions that were scored, and those whose score was wrong. `num_skipped`: rows without a right
    answer that could be tried, or to which the reward does not apply."""

    num_gold: int = 0
    num_gold_failed: int = 0
    num_wrong: int = 0
    num_wrong_failed: int = 0
    num_unfit: int = 0
    num_skipped: int = 0


@dataclass
class Report:
    """Counts by label of each reward on correctness, and the first failures. `without`: labels of those that cannot
    be tried, since they say of no text that it is right."""

    counts: dict[str, Counts]
    failures: list[Failure] = field(default_factory=list)
    without: list[str] = field(default_factory=list)

    @property
    def untried(self) -> list[str]:
        """Labels of the rewards for which no row gave anything to try."""
        return [label for label, each in self.counts.items() if not each.num_gold + each.num_wrong + each.num_unfit]

    @property
    def is_good(self) -> bool:
        """Whether every reward that can be tried was, and nothing failed."""
        failed = sum(each.num_gold_failed + each.num_wrong_failed + each.num_unfit for each in self.counts.values())
        return not self.untried and not failed


def check(
    rewards: Sequence[Named],
    rows: Iterable[Problem],
    *,
    batch_size: int = 64,
    max_failures: int = 10,
) -> Report:
    """Scores the right and a wrong answer of each row; `rows` may be a stream. Rewards that say nothing of correctness,
    or give no samples (`regex`, `instructions`), are left out.

    Args:
        max_failures: how many are kept; all are counted.

    Raises:
        UserError, DataError: as `llmkit.rewards.guard.score` does.
    """
    chosen = [reward for reward in rewards if reward.correctness and reward.samples is not None]
    without = [reward.label for reward in rewards if reward.correctness and reward.samples is None]
    report = Report({reward.label: Counts() for reward in chosen}, without=without)
    for batch in _batches(rows, batch_size):
        for reward in chosen:
            for failure in _failures(reward, batch, report.counts[reward.label]):
                if len(report.failures) < max_failures:
                    report.failures.append(failure)
    return report


def _failures(reward: Named, rows: Sequence[Problem], counts: Counts) -> Iterator[Failure]:
    right: list[tuple[Problem, str]] = []
    wrong: list[tuple[Problem, str]] = []
    for row in rows:
        if not reward.applies(row.columns):
            continue
        try:
            found = _samples(reward, row)
        except RowError as error:
            counts.num_unfit += 1
            yield Failure(reward.label, row.place, "row", error.problems[0].what)
            continue
        counts.num_skipped += found.gold is None
        right += [(row, found.gold)] if found.gold is not None else []
        wrong += [(row, found.wrong)] if found.wrong is not None else []
    for (row, text), value in _scored(reward, right):
        # None says that it does not apply to the row: that is no trial
        counts.num_gold += value is not None
        counts.num_skipped += value is None
        if value is not None and value < RIGHT:
            counts.num_gold_failed += 1
            yield Failure(reward.label, row.place, "gold", text, value)
    for (row, text), value in _scored(reward, wrong):
        counts.num_wrong += value is not None
        if value is not None and (value >= RIGHT if reward.partial else value > 0):
            counts.num_wrong_failed += 1
            yield Failure(reward.label, row.place, "wrong", text, value)


def _samples(reward: Named, row: Problem) -> Samples:
    assert reward.samples is not None
    return reward.samples(row.columns)


def _scored(reward: Named, pairs: Sequence[tuple[Problem, str]]) -> Iterator[tuple[tuple[Problem, str], float | None]]:
    values = score(
        reward,
        prompts=[row.prompt for row, _ in pairs],
        completions=[answer_to(row.prompt, text) for row, text in pairs],
        completion_ids=[[] for _ in pairs],
        columns=[row.columns for row, _ in pairs],
        places=[row.place for row, _ in pairs],
    )
    return zip(pairs, values, strict=True)


def _batches(rows: Iterable[Problem], size: int) -> Iterator[list[Problem]]:
    rest = iter(rows)
    while batch := list(islice(rest, size)):
        yield batch
