"""Two models on the same documents: by how much one is better, and whether that is more than chance.

Every test is paired: what is hard for one model is mostly hard for the other, and only documents on which they differ
say anything. Figures that are read together are corrected together, so that of ten tasks without a difference none is
called one by chance in 95 of 100 cases.

    mcnemar    McNemar 1947, Psychometrika 12, 153; exact: a binomial test over the documents on which they differ
    sign_flip  Fisher 1935, The Design of Experiments, ch. 21; randomisation of the signs of paired differences
    holm       Holm 1979, Scandinavian Journal of Statistics 6, 65; holds however the figures depend on each other
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import comb, isfinite
from typing import Literal

import numpy as np

from llmkit.evaluate.results import Metric, TaskResult, members_of
from llmkit.evaluate.rows import delta_of, paired
from llmkit.intervals import is_proportional, stratified_paired_interval

ALPHA = 0.05
NUM_FLIPS = 10_000
NUM_RESAMPLES = 1000
_CHUNK = 4_000_000
Strata = list[tuple[float, list[float], list[float]]]
"""(weight, values before, values after) of each task that a figure is made of."""


@dataclass(frozen=True)
class Difference:
    """One figure of the first model minus that of the second, over the documents that both answered."""

    task: str
    metric: str
    delta: float
    low: float | None
    high: float | None
    p_value: float
    p_adjusted: float
    """For the number of figures that are read together."""
    num_samples: int
    verdict: Literal["better", "worse", "noise"]
    """Of the first model; noise: chance alone brings so much, too."""


def differences(
    first: Sequence[TaskResult], second: Sequence[TaskResult], asked: Sequence[str], *, seed: int
) -> list[Difference]:
    """Of every figure that both have, that is a finite number, and that documents can be paired for.

    Args:
        asked: names of the tasks and groups that were asked for. They are corrected together, and the tasks within
            groups, which are read as detail, together with each other.
    """
    others = {result.task: result for result in second}
    found = [
        made
        for result in first
        if result.task in others
        for metric in result.metrics
        if (made := _difference(result, metric, others[result.task], seed)) is not None
    ]
    named = _judged([each for each in found if each.task in asked], first)
    return named + _judged([each for each in found if each.task not in asked], first)


def _difference(result: TaskResult, metric: Metric, other: TaskResult, seed: int) -> Difference | None:
    its = next((each for each in other.metrics if each.name == metric.name), None)
    if its is None or not (isfinite(metric.value) and isfinite(its.value)):
        return None
    if metric.aggregate is not None:
        return _of_aggregates(result, metric, other, its, seed)
    members, earlier = members_of(result, metric), members_of(other, its)
    if not members or [each.task for each in members] != [each.task for each in earlier]:
        return None
    strata = paired(members, [each.values for each in earlier])
    if strata is None:
        return None
    if not isfinite(delta_of(strata)):
        return None
    low, high = stratified_paired_interval(strata, seed) or (None, None)
    num = sum(len(after) for _, _, after in strata)
    p_value = p_of(strata, seed)
    return Difference(result.task, metric.name, delta_of(strata), low, high, p_value, p_value, num, "noise")


def _of_aggregates(result: TaskResult, metric: Metric, other: TaskResult, its: Metric, seed: int) -> Difference | None:
    """Of what is no mean, such as a perplexity: by drawing documents for both at once."""
    keys = [[(each.doc_id, each.target) for each in documents] for documents in (result.documents, other.documents)]
    num = len(metric.values)
    if metric.aggregate is None or keys[0] != keys[1] or not len(its.values) == num == len(keys[0]) or num < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(NUM_RESAMPLES):
        chosen = rng.integers(num, size=num)
        own, others = ([values[i] for i in chosen] for values in (metric.values, its.values))
        drawn.append(float(metric.aggregate(own)) - float(metric.aggregate(others)))
    drawn_R = np.array(drawn)
    if not np.isfinite(drawn_R).all():
        return None
    low, high = np.percentile(drawn_R, [2.5, 97.5])
    beyond = min(int((drawn_R >= 0).sum()), int((drawn_R <= 0).sum()))
    p_value = min(1.0, 2 * (beyond + 1) / (NUM_RESAMPLES + 1))
    delta = metric.value - its.value
    return Difference(result.task, metric.name, delta, float(low), float(high), p_value, p_value, num, "noise")


def p_of(strata: Strata, seed: int) -> float:
    """Two-sided: how often chance alone brings a difference as large as this one."""
    weights = np.concatenate([np.full(len(after), weight / len(after)) for weight, _, after in strata])
    change = np.concatenate([np.subtract(after, before) for _, before, after in strata])
    if np.isin(change, (-1, 0, 1)).all() and is_proportional([(weight, after) for weight, _, after in strata]):
        return mcnemar(int((change > 0).sum()), int((change < 0).sum()))
    return sign_flip(weights * change, seed)


def mcnemar(gained: int, lost: int) -> float:
    """Exact, two-sided. `gained`: documents that only the first model has right; `lost`: only the second."""
    num, least = gained + lost, min(gained, lost)
    return min(1.0, 2 * sum(comb(num, k) for k in range(least + 1)) / (1 << num))


def sign_flip(changes: np.ndarray, seed: int) -> float:
    """Two-sided, of the sum: if the models were alike, each document's change could as well have the other sign."""
    changes_N = changes[changes != 0]
    if not len(changes_N):
        return 1.0
    reached = float(abs(changes_N.sum())) * (1 - 1e-9)
    rng, beyond, done = np.random.default_rng(seed), 0, 0
    rows = max(1, _CHUNK // len(changes_N))
    while done < NUM_FLIPS:
        num = min(rows, NUM_FLIPS - done)
        signs = rng.integers(2, size=(num, len(changes_N))) * 2.0 - 1.0
        beyond += int((np.abs(signs @ changes_N) >= reached).sum())
        done += num
    return (beyond + 1) / (NUM_FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted, in the order given: below `ALPHA` means so with all of them taken together."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return adjusted


def _judged(found: list[Difference], results: Iterable[TaskResult]) -> list[Difference]:
    better_up = {(r.task, metric.name): metric.higher_is_better for r in results for metric in r.metrics}
    judged = []
    for each, p_adjusted in zip(found, holm([each.p_value for each in found]), strict=True):
        is_better = (each.delta > 0) == better_up[each.task, each.metric]
        says: Literal["better", "worse"] = "better" if is_better else "worse"
        judged.append(replace(each, p_adjusted=p_adjusted, verdict="noise" if p_adjusted >= ALPHA else says))
    return judged
