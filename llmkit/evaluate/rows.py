"""From results to the rows of a manifest: value, interval, paired difference."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

from llmkit.artifacts.manifest import EvalRow
from llmkit.evaluate.results import Document, Metric, TaskResult, read_documents
from llmkit.intervals import bootstrap, mean_interval, paired_interval

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
        earlier = read_documents(compare_with, result.task) if compare_with is not None else []
        for metric in result.metrics:
            if not isfinite(metric.value):
                warn(f"{result.task}: {metric.name} is {metric.value} and is left out")
                continue
            low, high = _interval(metric, seed) or (None, None)
            row = EvalRow(
                stage=stage,
                task=result.task,
                metric=metric.name,
                value=metric.value,
                low=low,
                high=high,
                num_samples=metric.num_samples,
            )
            rows.append(row.model_copy(update=_delta(metric, result.documents, earlier, delta_from, seed)))
    return rows


def _interval(metric: Metric, seed: int) -> tuple[float, float] | None:
    if not metric.values:
        return None
    if metric.aggregate is None:
        return mean_interval(metric.values, seed)
    num_resamples = 100 if metric.name.partition(",")[0] in _SLOW else 1000
    return bootstrap(metric.values, metric.aggregate, seed, num_resamples) if len(metric.values) > 1 else None


def _delta(
    metric: Metric, documents: list[Document], earlier: list[Document], delta_from: str | None, seed: int
) -> dict[str, Any]:
    """Over the documents that both evaluations have with the same target; only for means."""
    if metric.aggregate is not None:
        return {}
    before = {(d.doc_id, d.target): d.metrics[metric.name] for d in earlier if metric.name in d.metrics}
    after = {(d.doc_id, d.target): d.metrics[metric.name] for d in documents if metric.name in d.metrics}
    shared = [key for key in after if key in before]
    if not shared:
        return {}
    pairs = [before[key] for key in shared], [after[key] for key in shared]
    low, high = paired_interval(*pairs, seed) or (None, None)
    delta = (sum(pairs[1]) - sum(pairs[0])) / len(shared)
    return {"delta": delta, "delta_low": low, "delta_high": high, "delta_from": delta_from}
