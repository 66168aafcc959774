"""From results to the rows of a manifest: value, interval, paired difference."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

from llmkit.artifacts.manifest import EvalRow
from llmkit.evaluate.results import Key, Member, Metric, TaskResult, members_of, read_documents, values_of
from llmkit.intervals import bootstrap, mean_interval, stratified_interval, stratified_paired_interval

# As in lm-eval: each of these goes through the whole corpus, in up to a second.
_SLOW = ("bleu", "chrf", "chrf++", "ter")


def eval_rows(
    results: list[TaskResult],
    stage: str,
    *,
    seed: int,
    compare_with: Path | None = None,
    delta_from: str | None = None,
    warn: Callable[[str], None] = print,
) -> list[EvalRow]:
    """One row per task and metric.

    Args:
        stage: whose model was measured.
        compare_with: folder with the documents of an earlier evaluation, of the model of stage `delta_from`.
        warn: told of every metric that is left out because it is not a finite number.
    """
    rows = []
    for result in results:
        for metric in result.metrics:
            if not isfinite(metric.value):
                warn(f"{result.task}: {metric.name} is {metric.value} and is left out")
                continue
            low, high = interval_of(result, metric, seed) or (None, None)
            row = EvalRow(
                stage=stage,
                task=result.task,
                metric=metric.name,
                value=metric.value,
                low=low,
                high=high,
                num_samples=metric.num_samples,
            )
            rows.append(row.model_copy(update=_delta(result, metric, compare_with, delta_from, seed)))
    return rows


def interval_of(result: TaskResult, metric: Metric, seed: int) -> tuple[float, float] | None:
    """95 %; None where nothing is known of the spread."""
    if metric.interval is not None:
        return metric.interval
    if metric.members:
        return stratified_interval([(each.weight, list(each.values.values())) for each in metric.members], seed)
    if not metric.values:
        return None
    if metric.aggregate is None:
        return mean_interval(metric.values, seed)
    num_resamples = 100 if metric.name.partition(",")[0] in _SLOW else 1000
    return bootstrap(metric.values, metric.aggregate, seed, num_resamples) if len(metric.values) > 1 else None


def _delta(
    result: TaskResult, metric: Metric, compare_with: Path | None, delta_from: str | None, seed: int
) -> dict[str, Any]:
    """Over the documents that both evaluations have with the same target; only for means."""
    members = members_of(result, metric)
    if compare_with is None or not members:
        return {}
    before = [values_of(read_documents(compare_with, each.task), each.metric) for each in members]
    strata = paired(members, before)
    if strata is None:
        return {}
    low, high = stratified_paired_interval(strata, seed) or (None, None)
    return {"delta": delta_of(strata), "delta_low": low, "delta_high": high, "delta_from": delta_from}


def paired(
    members: list[Member], before: list[dict[Key, float]]
) -> list[tuple[float, list[float], list[float]]] | None:
    """(weight, before, after) of each member over the documents that both have; None where a member has none."""
    strata = []
    for member, earlier in zip(members, before, strict=True):
        shared = [key for key in member.values if key in earlier]
        if not shared:
            return None
        strata.append((member.weight, [earlier[key] for key in shared], [member.values[key] for key in shared]))
    return strata


def delta_of(strata: list[tuple[float, list[float], list[float]]]) -> float:
    return sum(weight * (sum(after) - sum(before)) / len(after) for weight, before, after in strata)
