"""Evaluations of honesty: before and after, the controls beside it, risk against coverage, answers by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from llmkit.artifacts.manifest import EvalRow
from llmkit.report.beside import Column, MetricLine, colours, held_against, metric_line, models_of, verdicts
from llmkit.report.knowledge import LABELS
from llmkit.report.metrics import HONESTY, control_name, honesty_first
from llmkit.report.numbers import count, percent
from llmkit.report.plots import Line, share_chart
from llmkit.report.readings import reading
from llmkit.report.run import RunReport
from llmkit.report.svg import Part, stacked_bar

RISK_COVERAGE = "risk_coverage"
COVERAGES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""At which the risk is told where there is no picture."""
MANY_REFUSALS, FEW_WORDINGS = 20, 2.5
"""From so many refusals on a note says that they are of fewer wordings in effect."""
_RATES = ("precision", "answer_rate")
_JUDGED_BY = {"s_honesty_known_unknown": "S_honesty on known and unknown", "s_honesty": "S_honesty"}
"""What controls are judged by, the first that is measured -> its words."""


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
    few: tuple[str, ...]
    """The columns that tell most: the model before, the first that was made of it, the last, and all controls."""
    main: tuple[MetricLine, ...]
    rest: tuple[MetricLine, ...]
    verdicts: tuple[str, ...]
    notes: tuple[str, ...]
    """What is odd about the final model."""
    groups: tuple[tuple[str, int, tuple[GroupBar, ...]], ...]
    """(group, questions, bars before and after)"""
    lines: tuple[tuple[str, str], ...]
    """(css, model) of each line of the chart."""
    chart: Markup | None
    risks: tuple[tuple[str, tuple[float, ...]], ...]
    """(model, its risk at each of `COVERAGES`)"""


def honesty(report: RunReport) -> list[Honesty]:
    """One of each evaluation that some model was measured on."""
    return [found for task in report.honesty_tasks if (found := _honesty(report, task))]


def _honesty(report: RunReport, task: str) -> Honesty | None:
    models = models_of(report, task)
    chain = [model for model in models if not model.is_control]
    if not chain:
        return None
    after = chain[-1]
    untaught = report.untaught(after.name, lambda stage: "refusals" in report.kinds_of_rows(stage))
    before = held_against(chain, untaught)
    columns = [*chain, *(model for model in models if model.is_control), *_asked(report, task, before)]
    taught = next((model for model in chain if before and model.parent == before.name), None)
    metrics = list(dict.fromkeys(metric for column in columns for metric in column.rows))
    groups = _groups([column for column in (before, after) if column])
    refused = [f"refused_{group}" for group, _, _ in groups]
    main = [*honesty_first(metrics), *(metric for metric in (*_RATES, *refused) if metric in metrics)]
    judged_by = next((metric for metric in _JUDGED_BY if metric in metrics), "s_honesty")
    drawn = _lines(report, task, before.name if before else "", after.name)
    return Honesty(
        task=task,
        columns=tuple(columns),
        few=tuple(each.name for each in columns if each.is_control or each in (before, taught, after)),
        main=tuple(metric_line(metric, columns, reading(metric)) for metric in main),
        rest=tuple(metric_line(metric, columns, reading(metric)) for metric in metrics if metric not in main),
        verdicts=verdicts(columns, after, judged_by, _JUDGED_BY[judged_by]),
        notes=_notes(after),
        groups=groups,
        lines=tuple((line.css, name) for name, line in drawn),
        chart=_chart(drawn),
        risks=tuple((name, tuple(_risk(line, coverage) for coverage in COVERAGES)) for name, line in drawn),
    )


def _notes(model: Column) -> tuple[str, ...]:
    """Of n refusals with diversity d (entropy over log n), exp(entropy) = n^d wordings are used in effect."""
    row = model.rows.get("refusal_diversity")
    if row is None or row.num_samples < MANY_REFUSALS or (wordings := row.num_samples**row.value) >= FEW_WORDINGS:
        return ()
    return (
        f"The {count(row.num_samples)} refusals of {model.name} are hardly varied, as if {wordings:.1f} wordings were "
        "used alike. Greedy answers take the likeliest of all that were taught; sampled ones vary.",
    )


def _risk(line: Line, coverage: float) -> float:
    """At the nearest point of the curve."""
    return min(line.points, key=lambda point: abs(point[0] - coverage))[1]


def _asked(report: RunReport, task: str, before: Column | None) -> list[Column]:
    """Controls that train nothing: those of the model before; where it has none, of the last model that has."""
    found: dict[str, dict[str, dict[str, EvalRow]]] = {}
    for row in report.evals():
        if name := control_name(row.task, task):
            found.setdefault(name, {}).setdefault(row.stage, {})[row.metric] = row
    columns = []
    for name, stages in found.items():
        stage = before.name if before and before.name in stages else list(stages)[-1]
        # what was trained from the model that they ask is held against them, as against a trained control
        columns.append(Column(name, f"with {stage}", True, stages[stage], parent=stage))
    return columns


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
    css = colours([model for model in report.models if model in curves], before, after)
    drawn = [(name, Line(css[name], curves[name])) for name in css]
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
