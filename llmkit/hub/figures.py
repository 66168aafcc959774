"""Figures of a card: what was measured on the model, as a table and as the metadata that the Hub displays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult

from llmkit.artifacts.manifest import EvalRow
from llmkit.hub.subject import BASE, Subject
from llmkit.report.metrics import HONESTY, IDENTITY, PREFERENCE, PROBLEMS, headline_metrics, is_share
from llmkit.report.numbers import count, interval, value
from llmkit.visible import visible


def headlines(subject: Subject) -> list[EvalRow]:
    """Of every task what stands for it, measured on the model that is published."""
    rows = subject.evals(subject.model.name)
    named = [_named(subject, kind) for kind in (HONESTY, PROBLEMS, PREFERENCE, IDENTITY)]
    found = []
    for task in dict.fromkeys(row.task for row in rows):
        own = {row.metric: row for row in rows if row.task == task}
        metrics = headline_metrics(task, list(own), *named)
        found += [own[metric] for metric in metrics]
    return found


def _named(subject: Subject, kind: str) -> list[str]:
    """Names of the evaluations of a kind."""
    specs = [spec for made in subject.stages for spec in made.manifest.settings.get("evals") or []]
    return list(dict.fromkeys(str(spec.get("name", kind)) for spec in specs if spec.get("task") == kind))


def figure_rows(subject: Subject) -> list[list[str]]:
    """Evaluation, metric, this model with its interval, the first model that was asked the same, samples."""
    before = {(row.task, row.metric): row for row in _before(subject)}
    rows = []
    for row in headlines(subject):
        share = is_share(row.metric, [row.value])
        bounds = interval(row.low, row.high, share)
        old = before.get((row.task, row.metric))
        first = value(old.value, share) if old else ""
        shown = value(row.value, share) + (f" ({bounds})" if bounds else "")
        rows.append([row.task, row.metric, shown, first, count(row.num_samples)])
    return rows


def _before(subject: Subject) -> Sequence[EvalRow]:
    return subject.evals(BASE)


def honesty_rows(subject: Subject) -> list[list[str]]:
    """What the model does where it does not know, and where it does: metric, value, samples."""
    wanted = ("hallucination", "over_refusal", "refusal_unknown", "refused_known", "refused_unseen", "s_honesty")
    names = {*_named(subject, HONESTY)}
    rows = [row for row in subject.evals(subject.model.name) if row.task in names and row.metric.startswith(wanted)]
    shown = []
    for row in rows:
        bounds = interval(row.low, row.high, is_share(row.metric, [row.value]))
        told = value(row.value, is_share(row.metric, [row.value])) + (f" ({bounds})" if bounds else "")
        shown.append([row.metric, told, count(row.num_samples)])
    return shown


def results(subject: Subject) -> list[EvalResult]:
    """For `model-index`. A metric that is no finite number is left out."""
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Text Generation",
            dataset_type=_plain(row.task),
            dataset_name=_plain(row.task),
            metric_type=_plain(row.metric),
            metric_name=_plain(row.metric),
            metric_value=round(row.value, 6),
            metric_args=_arguments(row),
            verified=False,
        )
        for row in headlines(subject)
        if math.isfinite(row.value)
    ]


def _arguments(row: EvalRow) -> dict[str, Any]:
    bounds = {"low": row.low, "high": row.high}
    finite = {key: round(end, 6) for key, end in bounds.items() if end is not None and math.isfinite(end)}
    return {"num_samples": row.num_samples, **finite}


def _plain(text: str) -> str:
    return " ".join(visible(text).split())[:100]
