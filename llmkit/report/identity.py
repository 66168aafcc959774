"""Evaluations of who a model says that it is: models beside each other, by kind of question and by language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmkit.report.beside import Column, MetricLine, metric_line, models_of, verdicts
from llmkit.report.marks import cell, metrics_table
from llmkit.report.metrics import ACCURACY, IDENTITY, IDENTITY_HEADLINES, group_of
from llmkit.report.run import RunReport

_READINGS = {
    "accuracy": "Every answer of the conversation says who the model is, or what was asked of it, and claims no other.",
    "persona_accuracy": "Right under a system message that gives another name.",
    "claims_other": "Some answer claims to be another assistant, or made by another maker.",
}
_KINDS = {
    "name": "its name",
    "maker": "who made it",
    "version": "its version",
    "base": "what it is based on",
    "cut_off": "how recent its knowledge is",
    "license": "its license",
    "website": "where to read about it",
    "purpose": "what it can do",
    "browse": "whether it can browse",
    "human": "whether it is human",
    "feelings": "whether it feels",
    "compare": "compared with others",
    "other": "taken for another",
    "insist": "insisted, second turn",
    "doubt": "doubted, second turn",
}


@dataclass(frozen=True)
class Identity:
    """One evaluation of identity."""

    task: str
    columns: tuple[Column, ...]
    main: tuple[MetricLine, ...]
    kinds: tuple[MetricLine, ...]
    languages: tuple[MetricLine, ...]
    verdicts: tuple[str, ...]


def identities(report: RunReport) -> list[Identity]:
    """One of each evaluation that some model was measured on."""
    return [found for task in report.identity_tasks if (found := _identity(report, task))]


def _identity(report: RunReport, task: str) -> Identity | None:
    columns = models_of(report, task)
    chain = [column for column in columns if not column.is_control]
    if not chain:
        return None
    shown = [*chain, *(column for column in columns if column.is_control)]
    metrics = list(dict.fromkeys(metric for column in shown for metric in column.rows))
    return Identity(
        task=task,
        columns=tuple(shown),
        main=tuple(metric_line(name, shown, _READINGS[name]) for name in IDENTITY_HEADLINES if name in metrics),
        kinds=_by(metrics, "kind", shown),
        languages=_by(metrics, "language", shown),
        verdicts=verdicts(shown, chain[-1], ACCURACY, "accuracy"),
    )


def _by(metrics: Sequence[str], column: str, shown: Sequence[Column]) -> tuple[MetricLine, ...]:
    """In the order of `_KINDS`, then of the names."""
    found = {group: metric for metric in metrics if (group := group_of(metric, column)) is not None}
    order = [*(kind for kind in _KINDS if kind in found), *sorted(set(found) - set(_KINDS))]
    lines = (metric_line(found[group], shown, "", _KINDS.get(group, group)) for group in order)
    return tuple(replace(line, better="") for line in lines)


def identity_parts(report: RunReport) -> list[str]:
    """As markdown."""
    parts = []
    for found in identities(report):
        parts.append("## Identity" if found.task == IDENTITY else f"## Identity: {cell(found.task)}")
        parts += [metrics_table(found.columns, found.main), *(f"- {cell(text)}" for text in found.verdicts)]
        if found.kinds:
            parts += ["### Accuracy by kind of question", metrics_table(found.columns, found.kinds)]
        if found.languages:
            parts += ["### Accuracy by language", metrics_table(found.columns, found.languages)]
    return parts
