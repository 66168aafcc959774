"""95 % intervals of metrics and of paired differences.

Shares (every value 0 or 1) have closed forms that hold for few documents and near 0 and 1, where the bootstrap gives
intervals of no width; the bootstrap is for everything else.

    wilson           Wilson 1927, J. Am. Stat. Assoc. 22, 209; score interval, without continuity correction
    newcombe_paired  Newcombe 1998, Statistics in Medicine 17, 2635, method 10: difference of paired shares
    bootstrap        Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13; percentile interval
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

Z = 1.959963984540054
NUM_RESAMPLES = 2000
_CHUNK = 4_000_000


def is_binary(values: Sequence[Any]) -> bool:
    return all(value in (0, 1) for value in values)


def mean_interval(values: Sequence[float], seed: int) -> tuple[float, float] | None:
    """Of the mean; None for a single value that is not 0 or 1, which says nothing about spread."""
    if is_binary(values):
        return wilson(int(sum(values)), len(values))
    return bootstrap_mean(values, seed) if len(values) > 1 else None


def means_of(numbers: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Each number's mean, with `_low` and `_high`, its 95 % interval. Those without values are left out."""
    found: dict[str, float] = {}
    for name, values in numbers.items():
        if not len(values):
            continue
        found[name] = float(sum(values) / len(values))
        interval = mean_interval(values, seed=0)
        if interval is not None:
            found |= {f"{name}_low": interval[0], f"{name}_high": interval[1]}
    return found


def paired_interval(before: Sequence[float], after: Sequence[float], seed: int) -> tuple[float, float] | None:
    """Of mean(after) - mean(before), both over the same documents in the same order."""
    if is_binary(before) and is_binary(after):
        return newcombe_paired(before, after)
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    return bootstrap_mean(differences.tolist(), seed) if len(differences) > 1 else None


def stratified_interval(strata: Sequence[tuple[float, Sequence[float]]], seed: int) -> tuple[float, float] | None:
    """Of the sum of weight times mean over (weight, values) of each stratum.

    Where each stratum weighs as much as it has values, the strata are one sample.
    """
    pooled = [value for _, values in strata for value in values]
    if is_proportional(strata):
        return mean_interval(pooled, seed)
    return _percentiles(_stratified_means(strata, seed).tolist()) if len(pooled) > len(strata) else None


def stratified_paired_interval(
    strata: Sequence[tuple[float, Sequence[float], Sequence[float]]], seed: int
) -> tuple[float, float] | None:
    """Of the sum of weight times (mean(after) - mean(before)) over (weight, before, after) of each stratum."""
    if is_proportional([(weight, before) for weight, before, _ in strata]):
        before = [value for _, values, _ in strata for value in values]
        after = [value for _, _, values in strata for value in values]
        return paired_interval(before, after, seed)
    differences = [(weight, np.subtract(after, before).tolist()) for weight, before, after in strata]
    return stratified_interval(differences, seed)


def is_proportional(strata: Sequence[tuple[float, Sequence[float]]]) -> bool:
    """Whether each stratum weighs as much as its share of the values."""
    num = sum(len(values) for _, values in strata)
    return all(abs(weight - len(values) / num) < 1e-9 for weight, values in strata)


def wilson(successes: int, num: int) -> tuple[float, float]:
    share = successes / num
    middle = (share + Z**2 / (2 * num)) / (1 + Z**2 / num)
    half = Z / (1 + Z**2 / num) * sqrt(share * (1 - share) / num + Z**2 / (4 * num**2))
    # rounding must not put the share itself outside
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def newcombe_paired(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Combines the Wilson intervals of both shares, allowing for the correlation of the pairs."""
    num = len(before)
    both = sum(1 for b, a in zip(before, after, strict=True) if b and a)
    gained = sum(1 for b, a in zip(before, after, strict=True) if a and not b)
    lost = sum(1 for b, a in zip(before, after, strict=True) if b and not a)
    share_after, share_before = (both + gained) / num, (both + lost) / num
    low_after, high_after = wilson(both + gained, num)
    low_before, high_before = wilson(both + lost, num)
    correlation = _correlation(both, gained, lost, num - both - gained - lost)
    down = _side(share_after - low_after, high_before - share_before, correlation)
    up = _side(high_after - share_after, share_before - low_before, correlation)
    delta = share_after - share_before
    return max(-1.0, delta - down), min(1.0, delta + up)


def bootstrap_mean(values: Sequence[float], seed: int) -> tuple[float, float]:
    array = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    rows = max(1, min(NUM_RESAMPLES, _CHUNK // len(array)))
    means: list[float] = []
    while len(means) < NUM_RESAMPLES:
        means.extend(array[rng.integers(len(array), size=(rows, len(array)))].mean(axis=1))
    return _percentiles(means[:NUM_RESAMPLES])


def bootstrap(
    values: Sequence[Any], aggregate: Callable[[list[Any]], float], seed: int, num_resamples: int = NUM_RESAMPLES
) -> tuple[float, float]:
    """Of any aggregate, such as a perplexity or a corpus BLEU."""
    rng = np.random.default_rng(seed)
    found = [aggregate([values[i] for i in rng.integers(len(values), size=len(values))]) for _ in range(num_resamples)]
    return _percentiles(found)


def _stratified_means(strata: Sequence[tuple[float, Sequence[float]]], seed: int) -> np.ndarray:
    """(NUM_RESAMPLES,)"""
    rng = np.random.default_rng(seed)
    total_R = np.zeros(NUM_RESAMPLES)
    for weight, values in strata:
        array = np.asarray(values, dtype=float)
        rows = max(1, _CHUNK // len(array))
        for start in range(0, NUM_RESAMPLES, rows):
            drawn = rng.integers(len(array), size=(min(rows, NUM_RESAMPLES - start), len(array)))
            total_R[start : start + rows] += weight * array[drawn].mean(axis=1)
    return total_R


def _percentiles(found: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def _side(first: float, second: float, correlation: float) -> float:
    return sqrt(max(0.0, first**2 - 2 * correlation * first * second + second**2))


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    """Newcombe's phi: shrunk towards zero by half a document where it is positive."""
    scale = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if scale == 0:
        return 0.0
    product, half = both * neither - gained * lost, (both + gained + lost + neither) / 2
    shrunk = max(product - half, 0.0) if product >= 0 else float(product)
    return shrunk / sqrt(scale)
