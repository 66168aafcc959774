"""Evaluations on problems with checkable answers: models and controls beside each other, pass@k and maj@k, levels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from llmkit.report.beside import Column, MetricLine, colours, held_against, metric_line, models_of, verdicts
from llmkit.report.metrics import ACCURACY, budget, group_of, is_between, thinking_budget
from llmkit.report.numbers import percent
from llmkit.report.plots import Line, budget_chart, thinking_chart
from llmkit.report.readings import solving_reading
from llmkit.report.run import RunReport, StageReport

_TITLES = {"pass": "pass@k, %", "maj": "maj@k, %"}


@dataclass(frozen=True)
class Solving:
    """One evaluation on problems."""

    task: str
    columns: tuple[Column, ...]
    main: tuple[MetricLine, ...]
    rest: tuple[MetricLine, ...]
    """Budgets between the smallest and the largest."""
    thinking: tuple[MetricLine, ...]
    """Accuracy at each budget of reasoning."""
    thinking_picture: Markup | None
    """None where there are no two budgets."""
    thinking_keys: tuple[tuple[str, str], ...]
    """(css, model) of its lines."""
    levels: tuple[MetricLine, ...]
    by: str
    """What tells the problems of `levels` apart."""
    verdicts: tuple[str, ...]
    pictures: tuple[tuple[str, Markup], ...]
    keys: tuple[tuple[str, str], ...]
    """(css, model) of the pictures' lines."""


def solving(report: RunReport) -> list[Solving]:
    """One of each evaluation that some model was measured on."""
    return [found for task, by in report.problem_tasks.items() if (found := _solving(report, task, by))]


def _solving(report: RunReport, task: str, by: str | None) -> Solving | None:
    columns = models_of(report, task)
    chain = [column for column in columns if not column.is_control]
    if not chain:
        return None
    after = chain[-1]
    before = held_against(chain, report.untaught(after.name, lambda stage: _has_practised(report, stage)))
    shown = [*chain, *(column for column in columns if column.is_control)]
    metrics = list(dict.fromkeys(metric for column in shown for metric in column.rows))
    levels = sorted((metric for metric in metrics if group_of(metric, by) is not None), key=_natural)
    rest = [metric for metric in metrics if is_between(metric, metrics)]
    thinking = [metric for metric in metrics if thinking_budget(metric) is not None]
    css = colours([column.name for column in shown], before.name if before else "", after.name)
    order = sorted(css, key=lambda name: (css[name] == "after", css[name] == "before"))
    return Solving(
        task=task,
        columns=tuple(shown),
        main=_lines([metric for metric in metrics if metric not in (*levels, *rest, *thinking)], shown),
        rest=_lines(rest, shown),
        thinking=_lines(thinking, shown),
        thinking_picture=_thinking_picture(task, order, shown, css),
        thinking_keys=tuple((css[column.name], column.name) for column in shown if _thinking(column)),
        levels=tuple(_level(metric, by, shown) for metric in levels),
        by=by or "",
        verdicts=verdicts(shown, after, ACCURACY, "accuracy"),
        pictures=_pictures(task, order, shown, css),
        keys=tuple((css[column.name], column.name) for column in shown if _points(column, "pass")),
    )


def _has_practised(report: RunReport, stage: StageReport) -> bool:
    """By itself, or on rows that a model found by trying."""
    return stage.practises or "best_of_n" in report.kinds_of_rows(stage)


def _lines(metrics: Sequence[str], columns: Sequence[Column]) -> tuple[MetricLine, ...]:
    return tuple(metric_line(metric, columns, solving_reading(metric)) for metric in metrics)


def _level(metric: str, by: str | None, columns: Sequence[Column]) -> MetricLine:
    return replace(metric_line(metric, columns, "", f"{by} {group_of(metric, by)}"), better="")


def _natural(text: str) -> list[tuple[int, str]]:
    """`level 2` before `level 10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def _pictures(
    task: str, order: Sequence[str], columns: Sequence[Column], css: dict[str, str]
) -> tuple[tuple[str, Markup], ...]:
    """Drawn in `order`, so that the final model lies on top; nothing where there are no two budgets."""
    pictures = []
    for kind, title in _TITLES.items():
        points = {column.name: _points(column, kind) for column in columns}
        lines = _drawn(points, order, columns, css)
        if any(len(line.points) > 1 for line in lines):
            pictures.append((title, budget_chart(f"{kind}@k of {task}: {_told(points, columns)}", lines)))
    return tuple(pictures)


def _thinking_picture(task: str, order: Sequence[str], columns: Sequence[Column], css: dict[str, str]) -> Markup | None:
    points = {column.name: _thinking(column) for column in columns}
    lines = _drawn(points, order, columns, css)
    if not any(len(line.points) > 1 for line in lines):
        return None
    return thinking_chart(f"accuracy of {task} against tokens of reasoning: {_told(points, columns)}", lines)


Points = list[tuple[int, str]]
"""(budget, metric), in the order of budgets."""


def _points(column: Column, kind: str) -> Points:
    return sorted((found[1], metric) for metric in column.rows if (found := budget(metric)) and found[0] == kind)


def _thinking(column: Column) -> Points:
    return sorted((tokens, metric) for metric in column.rows if (tokens := thinking_budget(metric)) is not None)


def _drawn(
    points: dict[str, Points], order: Sequence[str], columns: Sequence[Column], css: dict[str, str]
) -> list[Line]:
    by_name = {column.name: column for column in columns}
    return [_line(by_name[name], points[name], css[name]) for name in order if points[name]]


def _line(column: Column, points: Points, css: str) -> Line:
    rows = [(float(k), column.rows[metric]) for k, metric in points]
    bounds = [(k, row.low, row.high) for k, row in rows if row.low is not None and row.high is not None]
    return Line(css, tuple((k, row.value) for k, row in rows), tuple((k, low, high) for k, low, high in bounds))


def _told(points: dict[str, Points], columns: Sequence[Column]) -> str:
    """All figures of a picture in words."""
    return "; ".join(
        f"{column.name} " + ", ".join(f"{k}: {percent(column.rows[metric].value)}" for k, metric in points[column.name])
        for column in columns
        if points[column.name]
    )
