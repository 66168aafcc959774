"""Evaluations of honesty: before and after, the controls beside it, risk against coverage, answers by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from llmkit.artifacts.manifest import EvalRow
from llmkit.report.knowledge import LABELS
from llmkit.report.metrics import HONESTY, control_name, direction, honesty_first, is_share
from llmkit.report.numbers import interval, percent, value
from llmkit.report.readings import reading
from llmkit.report.run import RunReport
from llmkit.report.svg import Line, Part, share_chart, stacked_bar

RISK_COVERAGE = "risk_coverage"
_RATES = ("precision", "answer_rate")
_JUDGED_BY = "s_honesty"


@dataclass(frozen=True)
class Column:
    """A model's figures, or a control's."""

    name: str
    note: str
    is_control: bool
    rows: dict[str, EvalRow]


@dataclass(frozen=True)
class MetricLine:
    metric: str
    reading: str
    better: str
    is_share: bool
    num_samples: int
    cells: tuple[EvalRow | None, ...]


@dataclass(frozen=True)
class GroupBar:
    """What became of a group's questions under one model; `parts` holds (css, words, share)."""

    model: str
    parts: tuple[tuple[str, str, str], ...]
    bar: Markup


@dataclass(frozen=True)
class Honesty:
    task: str
    columns: tuple[Column, ...]
    main: tuple[MetricLine, ...]
    rest: tuple[MetricLine, ...]
    verdicts: tuple[str, ...]
    """A sentence per control: how it stands against the final model."""
    groups: tuple[tuple[str, int, tuple[GroupBar, ...]], ...]
    """(group, questions, bars before and after)"""
    lines: tuple[tuple[str, str], ...]
    """(css, model) of each line of the chart."""
    chart: Markup | None


def honesty(report: RunReport) -> list[Honesty]:
    """One of each evaluation that some model was measured on."""
    return [found for task in report.honesty_tasks if (found := _honesty(report, task))]


def _honesty(report: RunReport, task: str) -> Honesty | None:
    models = _models(report, task)
    chain = [model for model in models if not model.is_control]
    if not chain:
        return None
    before, after = _before(report, chain), chain[-1]
    columns = [*chain, *(model for model in models if model.is_control), *_asked(report, task, before)]
    metrics = list(dict.fromkeys(metric for column in columns for metric in column.rows))
    groups = _groups([column for column in (before, after) if column])
    refused = [f"refused_{group}" for group, _, _ in groups]
    main = [*honesty_first(metrics), *(metric for metric in (*_RATES, *refused) if metric in metrics)]
    drawn = _lines(report, task, before.name if before else "", after.name)
    return Honesty(
        task=task,
        columns=tuple(columns),
        main=tuple(_line(metric, columns) for metric in main),
        rest=tuple(_line(metric, columns) for metric in metrics if metric not in main),
        verdicts=tuple(text for column in columns if column.is_control and (text := _verdict(column, after))),
        groups=groups,
        lines=tuple((line.css, name) for name, line in drawn),
        chart=_chart(drawn),
    )


def _models(report: RunReport, task: str) -> list[Column]:
    """What was trained, in the order of the chain."""
    found: dict[str, dict[str, EvalRow]] = {}
    for row in report.evals():
        if row.task == task:
            found.setdefault(row.stage, {})[row.metric] = row
    parents = {stage.name: stage.parent for stage in report.chain}
    return [
        Column(name, f"from {parents[name]}" if name in report.controls else "", name in report.controls, rows)
        for name, rows in found.items()
    ]


def _asked(report: RunReport, task: str, before: Column | None) -> list[Column]:
    """Controls that train nothing: those of the model before; where it has none, of the last model that has."""
    found: dict[str, dict[str, dict[str, EvalRow]]] = {}
    for row in report.evals():
        if name := control_name(row.task, task):
            found.setdefault(name, {}).setdefault(row.stage, {})[row.metric] = row
    columns = []
    for name, stages in found.items():
        stage = before.name if before and before.name in stages else list(stages)[-1]
        columns.append(Column(name, f"with {stage}", True, stages[stage]))
    return columns


def _before(report: RunReport, models: Sequence[Column]) -> Column | None:
    """The model before any refusal was taught, else the one that the final one is compared to, else the first."""
    earlier = {model.name: model for model in models[:-1]}
    since = (row.delta_from for row in models[-1].rows.values())
    return next(
        (earlier[name] for name in (_untaught(report, models[-1].name), *since, *earlier) if name in earlier), None
    )


def _untaught(report: RunReport, model: str) -> str | None:
    """What the first of the model's forebears that was trained on refusals starts from."""
    stages = {stage.name: stage for stage in report.chain}
    stage, found = stages.get(model), None
    while stage:
        if any(stages[name].kind == "refusals" for name in stage.rows_from if name in stages):
            found = stage.parent
        stage = stages.get(stage.parent or "")
    return found


def _line(metric: str, columns: Sequence[Column]) -> MetricLine:
    cells = tuple(column.rows.get(metric) for column in columns)
    rows = [row for row in cells if row]
    good = direction(metric)
    return MetricLine(
        metric=metric,
        reading=reading(metric),
        better=f"{good} is better" if good else "",
        is_share=is_share(metric, [row.value for row in rows]),
        num_samples=rows[-1].num_samples,
        cells=cells,
    )


def _verdict(control: Column, final: Column) -> str:
    """Two models, so the intervals are not paired: clear means that they do not overlap."""
    its, best = control.rows.get(_JUDGED_BY), final.rows.get(_JUDGED_BY)
    if its is None or best is None:
        return ""
    shares = is_share(_JUDGED_BY, [its.value, best.value])
    figures = f"S_honesty {_bounded(its, shares)} against {_bounded(best, shares)} of {final.name}"
    if its.low is None or its.high is None or best.low is None or best.high is None:
        return f"{control.name}: {figures}."
    words = "clearly worse" if its.high < best.low else "clearly better" if its.low > best.high else "not clearly apart"
    return f"{control.name} is {words}: {figures}."


def _bounded(row: EvalRow, shares: bool) -> str:
    bounds = interval(row.low, row.high, shares)
    return value(row.value, shares) + (f" ({bounds})" if bounds else "")


def _groups(models: Sequence[Column]) -> tuple[tuple[str, int, tuple[GroupBar, ...]], ...]:
    """Those that the first model answered best first, those without right answers last. Labels are no groups."""
    found = [metric.removeprefix("refused_") for metric in models[-1].rows if metric.startswith("refused_")]
    names = sorted((name for name in found if name not in LABELS), key=lambda name: -_right(models[0], name))
    return tuple(
        (name, models[-1].rows[f"refused_{name}"].num_samples, tuple(_bar(model, name) for model in models))
        for name in names
    )


def _right(model: Column, group: str) -> float:
    row = model.rows.get(f"accuracy_{group}")
    return row.value if row else -1.0


def _bar(model: Column, group: str) -> GroupBar:
    """Right, refused and wrong; what is left was empty, or has no right answer (small talk)."""
    shares = [
        (css, words, row.value)
        for css, words, metric in (
            ("right", "right", "accuracy"),
            ("refused", "refused", "refused"),
            ("wrong", "wrong", "hallucination"),
        )
        if (row := model.rows.get(f"{metric}_{group}"))
    ]
    left = max(0.0, 1 - sum(share for _, _, share in shares))
    if left > 0.0005:
        shares.append(("none", "empty" if len(shares) == 3 else "not refused", left))
    told = tuple((css, words, percent(share)) for css, words, share in shares)
    label = f"{group}, {model.name}: " + ", ".join(f"{words} {share}" for _, words, share in told)
    return GroupBar(model.name, told, stacked_bar(label, [Part(css, share) for css, _, share in shares]))


def _lines(report: RunReport, task: str, before: str, after: str) -> list[tuple[str, Line]]:
    """(model, its curve): the final model's last, so that it lies on top."""
    wanted = RISK_COVERAGE if task == HONESTY else f"{RISK_COVERAGE} {task}"
    curves: dict[str, tuple[tuple[float, float], ...]] = {}
    for stage in report.evaluations:
        for curve in stage.manifest.curves if stage.manifest else ():
            if curve.name == wanted and curve.points:
                curves[stage.measured] = tuple(curve.points)
    drawn, num_others = [], 0
    for name in [model for model in report.models if model in curves]:
        css = "after" if name == after else "before" if name == before else ""
        if not css:
            css = f"other-{num_others % 3}"
            num_others += 1
        drawn.append((name, Line(css, curves[name])))
    return sorted(drawn, key=lambda item: item[1].css == "after")


def _chart(drawn: Sequence[tuple[str, Line]]) -> Markup | None:
    if not drawn:
        return None
    names = ", ".join(name for name, _ in drawn)
    lines = [line for _, line in drawn]
    return share_chart(
        f"Risk against coverage: {names}",
        lines,
        "coverage: % of the questions, surest answers first",
        "risk: % of them not right",
    )
