"""How much a model's confidence tells: pure numbers from arrays [N], one entry a question.

Confidence is from 0 to 1. `ranked` orders questions for selective answering (Geifman & El-Yaniv 2017,
arXiv 1705.08500): the most confident first, and what was not attempted last, with confidence 0 and not right. So models
that refuse and models that do not can be compared at every coverage.
"""

from __future__ import annotations

import math

import numpy as np

NUM_BINS = 10


def mean(values_N: np.ndarray) -> float:
    """NaN of nothing."""
    return float(values_N.mean()) if len(values_N) else math.nan


def auroc(right_N: np.ndarray, confidence_N: np.ndarray) -> float:
    """Chance that a right answer has a higher confidence than a wrong one; ties count half (Mann & Whitney 1947).

    NaN where all are right, or none.
    """
    num_right, num_wrong = int(right_N.sum()), int((~right_N).sum())
    if not num_right or not num_wrong:
        return math.nan
    _, place_N, counts_K = np.unique(confidence_N, return_inverse=True, return_counts=True)
    rank_K = np.cumsum(counts_K) - (counts_K - 1) / 2
    return float((rank_K[place_N][right_N].sum() - num_right * (num_right + 1) / 2) / (num_right * num_wrong))


def ece(right_N: np.ndarray, confidence_N: np.ndarray) -> float:
    """Expected calibration error (Naeini et al. 2015): distance of mean confidence and accuracy in each of ten bins of
    equal width, weighted by the bins' questions. NaN of nothing."""
    if not len(right_N):
        return math.nan
    bin_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps_K = np.bincount(bin_N, weights=right_N - confidence_N, minlength=NUM_BINS)
    return float(np.abs(gaps_K).sum() / len(right_N))


def brier(right_N: np.ndarray, confidence_N: np.ndarray) -> float:
    """Mean squared distance of confidence and 1 (right) or 0 (wrong) (Brier 1950). NaN of nothing."""
    return mean((confidence_N - right_N) ** 2)


def ranked(right_N: np.ndarray, wrong_N: np.ndarray, confidence_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(right, confidence) [M <= N], the most confident first. An attempt without a confidence is left out."""
    attempted_N = right_N | wrong_N
    kept_N = ~(attempted_N & np.isnan(confidence_N))
    confidence_M = np.where(attempted_N, confidence_N, 0.0)[kept_N]
    order_M = np.argsort(-confidence_M, kind="stable")
    return right_N[kept_N][order_M], confidence_M[order_M]


def risk_at_coverage(right_M: np.ndarray, confidence_M: np.ndarray) -> np.ndarray:
    """Share that is not right among the k most confident questions, k = 1 .. M. Within ties: its expectation when they
    come in any order."""
    if not len(right_M):
        return np.zeros(0)
    _, place_M, counts_K = np.unique(-confidence_M, return_inverse=True, return_counts=True)
    errors_K = np.bincount(place_M, weights=~right_M) / counts_K
    return np.asarray(np.cumsum(errors_K[place_M]) / np.arange(1, len(right_M) + 1))


def coverage_at(risk_M: np.ndarray, accuracy: float) -> float:
    """Largest share of questions, the most confident first, of which at least `accuracy` are right; 0: no share is."""
    if not len(risk_M):
        return math.nan
    good = np.flatnonzero(risk_M <= 1 - accuracy + 1e-12)
    return float((good[-1] + 1) / len(risk_M)) if len(good) else 0.0


def average_precision(right_M: np.ndarray, confidence_M: np.ndarray) -> float:
    """Precision at every confidence that occurs, weighted by the recall that it adds, as in scikit-learn; R-Tuning's
    AP (Zhang et al. 2023, arXiv 2311.09677). NaN where nothing is right."""
    if not right_M.any():
        return math.nan
    is_last_M = np.append(confidence_M[1:] != confidence_M[:-1], True)
    num_right_K = np.cumsum(right_M)[is_last_M]
    precision_K = num_right_K / (np.flatnonzero(is_last_M) + 1)
    return float((np.diff(num_right_K, prepend=0) * precision_K).sum() / right_M.sum())
