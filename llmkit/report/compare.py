"""Which differences are clear: the tables of results by stage and of held-out loss before and after."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from llmkit.artifacts.manifest import EvalRow, Heldout, Measure
from llmkit.report.collect import RunReport

Verdict = Literal["up", "down", "unclear"]
_HIGHER_IS_BETTER = re.compile(
    r"acc|exact|\bem\b|f1|pass@|precision|recall|bleu|rouge|win_rate|stop|well_formed|non_empty|clean"
)
_LOWER_IS_BETTER = re.compile(r"perplexity|bits_per_byte|loss|brier|\bece\b|wrong|over_refusal")
# Numbers that may lie between 0 and 1 without being a share of the samples.
_NOT_A_SHARE = re.compile(r"perplexity|bits|loss|brier|ece|entropy|kl|reward|seconds|length|tokens")


@dataclass(frozen=True)
class Change:
    """A difference with its interval; clear if the interval leaves out zero."""

    verdict: Verdict
    value: float
    low: float | None
    high: float | None
    since: str
    is_better: bool | None = None
    """None where it is unclear, or where nobody said which direction is good."""

    @property
    def colour(self) -> str:
        return {True: "better", False: "worse", None: "neutral"}[self.is_better]


@dataclass(frozen=True)
class ResultLine:
    """One task and metric over the chain; a cell is None where a model was not measured."""

    task: str
    metric: str
    cells: tuple[EvalRow | None, ...]
    is_share: bool

    @property
    def last(self) -> EvalRow:
        return [row for row in self.cells if row][-1]

    @property
    def first(self) -> EvalRow:
        return next(row for row in self.cells if row)


def columns(report: RunReport) -> list[str]:
    """Models that were measured, in the order of the chain."""
    return list(dict.fromkeys(row.stage for row in report.evals()))


def headlines(report: RunReport) -> list[ResultLine]:
    """The first metric of every task, in the order in which the evaluations wrote them."""
    firsts: dict[str, ResultLine] = {}
    for line in result_lines(report):
        firsts.setdefault(line.task, line)
    return list(firsts.values())


def result_lines(report: RunReport) -> list[ResultLine]:
    """Every task and metric, in the order in which they were first measured."""
    found: dict[tuple[str, str], dict[str, EvalRow]] = {}
    for row in report.evals():
        found.setdefault((row.task, row.metric), {})[row.stage] = row
    names = columns(report)
    return [
        ResultLine(task, metric, tuple(rows.get(name) for name in names), _is_share(metric, rows.values()))
        for (task, metric), rows in found.items()
    ]


def num_samples(rows: Iterable[EvalRow]) -> int:
    """Each task's samples count once, however many metrics they have."""
    tasks: dict[str, int] = {}
    for row in rows:
        tasks[row.task] = max(row.num_samples, tasks.get(row.task, 0))
    return sum(tasks.values())


def _is_share(metric: str, rows: Iterable[EvalRow]) -> bool:
    return not _NOT_A_SHARE.search(metric) and all(0 <= row.value <= 1 for row in rows)


def change(row: EvalRow) -> Change | None:
    """The paired difference that an evaluation wrote, judged."""
    if row.delta is None:
        return None
    low, high = row.delta_low, row.delta_high
    verdict = _verdict(low, high)
    return Change(verdict, row.delta, low, high, row.delta_from or "", _is_better(row.metric, verdict))


def _verdict(low: float | None, high: float | None) -> Verdict:
    if low is not None and low > 0:
        return "up"
    return "down" if high is not None and high < 0 else "unclear"


def _is_better(metric: str, verdict: Verdict) -> bool | None:
    if verdict == "unclear":
        return None
    if _LOWER_IS_BETTER.search(metric):
        return verdict == "down"
    return verdict == "up" if _HIGHER_IS_BETTER.search(metric) else None


def largest_change(report: RunReport, stage: str) -> tuple[ResultLine, Change] | None:
    """The headline that `stage` clearly changed most, shares first; None if nothing clearly changed."""
    found = [
        (line, made)
        for line in headlines(report)
        for row in line.cells
        if row and row.stage == stage and (made := change(row)) and made.verdict != "unclear"
    ]
    return max(found, key=lambda item: (item[0].is_share, abs(item[1].value)), default=None)


def has_changes(report: RunReport, stage: str) -> bool:
    return any(row.stage == stage and row.delta is not None for row in report.evals())


def heldout_change(held: Heldout) -> Change | None:
    """Of the loss. The two intervals are not paired, so clear means that they do not overlap."""
    before, after = held.before, held.after
    if before is None or after is None:
        return None
    low = high = None
    if before.low is not None and before.high is not None and after.low is not None and after.high is not None:
        low, high = after.low - before.high, after.high - before.low
    verdict = _verdict(low, high)
    return Change(verdict, after.loss - before.loss, low, high, "", _is_better("loss", verdict))


def perplexity_bounds(measure: Measure) -> tuple[float | None, float | None]:
    """The interval of the loss, carried over: exp keeps order."""
    if measure.low is None or measure.high is None or measure.high > 700:
        return None, None
    return math.exp(measure.low), math.exp(measure.high)
