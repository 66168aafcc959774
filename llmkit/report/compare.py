"""Which differences are clear: the tables of results by stage and of held-out loss before and after."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from llmkit.artifacts.manifest import EvalRow, Heldout, Measure
from llmkit.report.metrics import WINS, direction, headline_metrics, is_share, short_name
from llmkit.report.readings_preference import preference_words
from llmkit.report.run import RunReport

Verdict = Literal["up", "down", "unclear"]


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
class Bounded:
    """A number with its interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ResultLine:
    """One task and metric over the chain; a cell is None where a model was not measured."""

    task: str
    metric: str
    cells: tuple[EvalRow | None, ...]
    is_share: bool
    name: str
    """For pictures and headings."""
    words: str = ""
    """The metric in words, and which direction is better, where its name does not say."""

    @property
    def last(self) -> EvalRow:
        return [row for row in self.cells if row][-1]

    @property
    def first(self) -> EvalRow:
        return next(row for row in self.cells if row)


def columns(report: RunReport) -> list[str]:
    """Models that were measured, in the order of the chain. Controls are none of them."""
    return [name for name in dict.fromkeys(row.stage for row in report.evals()) if name not in report.controls]


def headlines(report: RunReport) -> list[ResultLine]:
    """What stands for every task, in the order in which the evaluations wrote them."""
    tasks: dict[str, dict[str, ResultLine]] = {}
    for line in result_lines(report):
        tasks.setdefault(line.task, {})[line.metric] = line
    names = report.honesty_tasks, report.problem_tasks, report.preference_tasks, report.identity_tasks
    return [lines[metric] for task, lines in tasks.items() for metric in headline_metrics(task, list(lines), *names)]


def result_lines(report: RunReport, names: Sequence[str] | None = None) -> list[ResultLine]:
    """Every task and metric, in the order in which they were first measured, on the models `names`.

    Default: those of `columns`."""
    names = columns(report) if names is None else names
    found: dict[tuple[str, str], dict[str, EvalRow]] = {}
    for row in report.evals():
        if row.stage in names:
            found.setdefault((row.task, row.metric), {})[row.stage] = row
    lines = []
    for (task, metric), rows in found.items():
        shares = is_share(metric, [row.value for row in rows.values()])
        short = short_name(task, metric, report.honesty_tasks, report.problem_tasks, report.preference_tasks)
        words = _words(metric) if task in report.preference_tasks else metric
        lines.append(ResultLine(task, metric, tuple(rows.get(name) for name in names), shares, short, words))
    return lines


def _words(metric: str) -> str:
    """Of an evaluation of preferences."""
    good = direction(metric)
    return preference_words(metric)[0] + (f" ({good} is better)" if good else "")


def num_samples(rows: Iterable[EvalRow]) -> int:
    """Each task's samples count once, however many metrics they have."""
    tasks: dict[str, int] = {}
    for row in rows:
        tasks[row.task] = max(row.num_samples, tasks.get(row.task, 0))
    return sum(tasks.values())


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
    good = direction(metric)
    if verdict == "unclear" or good is None:
        return None
    return (verdict == "up") == (good == "higher")


def largest_change(report: RunReport, stage: str) -> tuple[ResultLine, Change] | None:
    """The headline that `stage` clearly changed most, shares first; None if nothing clearly changed."""
    found = [
        (line, made)
        for line in headlines(report)
        for row in line.cells
        if row and row.stage == stage and (made := change(row)) and made.verdict != "unclear"
    ]
    return max(found, key=lambda item: (item[0].is_share, abs(item[1].value)), default=None)


def wins(report: RunReport, stage: str) -> EvalRow | None:
    """How often the model's answers are better than the baseline's, where an evaluation of preferences tells."""
    rows = (row for row in report.evals() if row.stage == stage and row.task in report.preference_tasks)
    return next((row for row in rows if row.metric == WINS), None)


def against_half(row: EvalRow) -> str:
    """Colour of a win rate: as often better as worse is one half."""
    if row.low is None or row.high is None:
        return "neutral"
    return "better" if row.low > 0.5 else "worse" if row.high < 0.5 else "unclear"


def has_changes(report: RunReport, stage: str) -> bool:
    return any(row.stage == stage and row.delta is not None for row in report.evals())


def unpaired(metric: str, before: Bounded, after: Bounded) -> Change:
    """Two intervals that are not paired: clear means that they do not overlap."""
    low = high = None
    if before.low is not None and before.high is not None and after.low is not None and after.high is not None:
        low, high = after.low - before.high, after.high - before.low
    verdict = _verdict(low, high)
    return Change(verdict, after.value - before.value, low, high, "", _is_better(metric, verdict))


def heldout_change(held: Heldout) -> Change | None:
    """Of the loss."""
    if held.before is None or held.after is None:
        return None
    before, after = (Bounded(each.loss, each.low, each.high) for each in (held.before, held.after))
    return unpaired("loss", before, after)


def perplexity_bounds(measure: Measure) -> tuple[float | None, float | None]:
    """The interval of the loss, carried over: exp keeps order."""
    if measure.low is None or measure.high is None or measure.high > 700:
        return None, None
    return math.exp(measure.low), math.exp(measure.high)
