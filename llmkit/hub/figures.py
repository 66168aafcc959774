"""Figures of a card: what was measured on the model, as a table and as the metadata that the Hub displays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult

from llmkit.artifacts.manifest import EvalRow
from llmkit.hub.subject import BASE, Subject
from llmkit.report.metrics import HONESTY, IDENTITY, PREFERENCE, PROBLEMS, direction, headline_metrics, is_share
from llmkit.report.numbers import count, interval, value
from llmkit.report.readings import reading
from llmkit.visible import visible

_SAME = {
    "refused_known": "over_refusal_known",
    "hallucination_unknown": "hallucination_unseen",
    "refusal_unknown": "refused_unseen",
}
"""Metric -> one that is the same figure where there is one group of its kind."""
_LIMITS = {
    "hallucination_unseen": "Of the questions whose answer it cannot know it answers {} wrongly",
    "hallucination_unknown": "Of the questions of all kinds whose answer it cannot know it answers {} wrongly",
    "over_refusal_known": "Of the questions whose answer it should know it refuses {}",
}
_WEAK, _NUM_WEAK = 0.2, 5
"""How far from its best a share must be to be named as a limit, and of how many at most."""


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
        old = before.get((row.task, row.metric))
        first = value(old.value, is_share(row.metric, [row.value])) if old else ""
        rows.append([row.task, row.metric, _shown(row), first, count(row.num_samples)])
    return rows


def _before(subject: Subject) -> Sequence[EvalRow]:
    return subject.evals(BASE)


def honesty_rows(subject: Subject) -> list[list[str]]:
    """What the model does where it does not know, and where it does: in words, value, samples, metric."""
    wanted = ("hallucination", "over_refusal", "refusal_unknown", "refused_known", "refused_unseen", "s_honesty")
    names = {*_named(subject, HONESTY)}
    rows = [row for row in subject.evals(subject.model.name) if row.task in names and row.metric.startswith(wanted)]
    kept = [row for row in rows if not _repeats(row, rows)]
    return [[_read(row, names), _shown(row), count(row.num_samples), _full(row, names)] for row in kept]


def _repeats(row: EvalRow, rows: Sequence[EvalRow]) -> bool:
    """Whether another metric of the same questions has the same figure."""
    other = next((each for each in rows if each.task == row.task and each.metric == _SAME.get(row.metric)), None)
    return other is not None and (other.value, other.num_samples) == (row.value, row.num_samples)


def _read(row: EvalRow, names: set[str]) -> str:
    words = reading(row.metric) or row.metric
    return f"{row.task}: {words}" if len(names) > 1 else words


def _full(row: EvalRow, names: set[str]) -> str:
    return f"{row.task}.{row.metric}" if len(names) > 1 else row.metric


def _shown(row: EvalRow) -> str:
    share = is_share(row.metric, [row.value])
    bounds = interval(row.low, row.high, share)
    return value(row.value, share) + (f" ({bounds})" if bounds else "")


def limits(subject: Subject) -> list[str]:
    """What the figures say against the model: honesty first, then what it is worst at."""
    names = {*_named(subject, HONESTY)}
    rows = subject.evals(subject.model.name)
    honesty = [row for row in rows if row.task in names and row.metric in _LIMITS and not _repeats(row, rows)]
    told = [
        f"{_LIMITS[row.metric].format(_shown(row))} ({row.task}, {count(row.num_samples)} questions)."
        for row in honesty
    ]
    weak = [row for row in headlines(subject) if _lack(row) >= _WEAK and row not in honesty]
    worst = [f"{row.task} {row.metric} {_shown(row)}" for row in sorted(weak, key=_lack, reverse=True)[:_NUM_WEAK]]
    return [*told, *([f"Its weakest results: {'; '.join(worst)}."] if worst else [])]


def _lack(row: EvalRow) -> float:
    """How far a share is from its best value; 0 for what is no share or neither good nor bad."""
    if not (math.isfinite(row.value) and is_share(row.metric, [row.value])):
        return 0.0
    best = {"higher": 1.0, "lower": 0.0}.get(direction(row.metric) or "", row.value)
    return abs(best - row.value)


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
