"""Models and their controls side by side, on one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmkit.artifacts.manifest import EvalRow
from llmkit.report.metrics import direction, is_share
from llmkit.report.numbers import interval, value
from llmkit.report.run import RunReport


@dataclass(frozen=True)
class Column:
    """A model's figures, or a control's."""

    name: str
    note: str
    is_control: bool
    rows: dict[str, EvalRow]
    parent: str | None = None
    """Model that it was trained from."""


@dataclass(frozen=True)
class MetricLine:
    metric: str
    reading: str
    better: str
    is_share: bool
    num_samples: int
    cells: tuple[EvalRow | None, ...]


def models_of(report: RunReport, task: str) -> list[Column]:
    """What was trained and measured on `task`, in the order of the chain; controls are among them."""
    found: dict[str, dict[str, EvalRow]] = {}
    for row in report.evals():
        if row.task == task:
            found.setdefault(row.stage, {})[row.metric] = row
    parents = {stage.name: stage.parent for stage in report.chain}
    return [
        Column(
            name,
            f"from {parents[name]}" if name in report.controls else "",
            name in report.controls,
            rows,
            parents.get(name),
        )
        for name, rows in found.items()
    ]


def held_against(models: Sequence[Column], untaught: str | None) -> Column | None:
    """What the last of the models is held against: the model `untaught`, else the one that it is compared to, else the
    first."""
    earlier = {model.name: model for model in models[:-1]}
    since = (row.delta_from for row in models[-1].rows.values())
    return next((earlier[name] for name in (untaught, *since, *earlier) if name in earlier), None)


def metric_line(metric: str, columns: Sequence[Column], reading: str, name: str = "") -> MetricLine:
    """`name`: where it is another than the metric's."""
    cells = tuple(column.rows.get(metric) for column in columns)
    rows = [row for row in cells if row]
    good = direction(metric)
    return MetricLine(
        metric=name or metric,
        reading=reading,
        better=f"{good} is better" if good else "",
        is_share=is_share(metric, [row.value for row in rows]),
        num_samples=rows[-1].num_samples,
        cells=cells,
    )


def colours(names: Sequence[str], before: str, after: str) -> dict[str, str]:
    """Name -> class of its line in a picture."""
    others = [name for name in names if name not in (before, after)]
    css = {name: f"other-{place % 3}" for place, name in enumerate(others)}
    return {name: css.get(name) or ("after" if name == after else "before") for name in names}


def verdicts(columns: Sequence[Column], final: Column, metric: str, words: str) -> tuple[str, ...]:
    """A sentence per control: how it stands by a metric of which more is better against the model that was trained from
    the same one, else against the final model. Two models, so the intervals are not paired: clear means that they do
    not overlap."""
    told = (
        _verdict(column, _rival(column, columns) or final, metric, words) for column in columns if column.is_control
    )
    return tuple(text for text in told if text)


def _rival(control: Column, columns: Sequence[Column]) -> Column | None:
    siblings = (each for each in columns if not each.is_control and each.parent == control.parent)
    return None if control.parent is None else next(siblings, None)


def _verdict(control: Column, rival: Column, metric: str, words: str) -> str:
    its, best = control.rows.get(metric), rival.rows.get(metric)
    if its is None or best is None:
        return ""
    shares = is_share(metric, [its.value, best.value])
    figures = f"{words} {_bounded(its, shares)} against {_bounded(best, shares)} of {rival.name}"
    if its.low is None or its.high is None or best.low is None or best.high is None:
        return f"{control.name}: {figures}."
    how = "clearly worse" if its.high < best.low else "clearly better" if its.low > best.high else "not clearly apart"
    return f"{control.name} is {how}: {figures}."


def _bounded(row: EvalRow, shares: bool) -> str:
    bounds = interval(row.low, row.high, shares)
    return value(row.value, shares) + (f" ({bounds})" if bounds else "")
