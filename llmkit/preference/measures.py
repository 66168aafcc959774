"""How well scores agree with rankings. All are means over prompts, and intervals are over prompts: the pairs of one
prompt depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmkit.intervals import means_of
from llmkit.preference.agreement import tau_b

BINS = 10


@dataclass(frozen=True)
class Scored:
    """One prompt: K answers as a model scores them and as R raters rank them.

    Attributes:
        scores: K numbers, more is better.
        rankings: R lists of K ranks, 1 is best.
        lengths: K lengths, in tokens.
    """

    scores: Sequence[float]
    rankings: Sequence[Sequence[int]]
    lengths: Sequence[int]


def measures(rows: Sequence[Scored]) -> dict[str, float]:
    """Metric -> value, with `_low` and `_high`, its 95 % interval over prompts, where it is a share.

    `accuracy`: share of pairs that the model puts in the rater's order; equal scores count half. `accuracy_gap_<g>`:
    of pairs that are g places apart. `top1`: the answer that scores highest is ranked first. `tau`: Kendall's, of
    scores and ranks. `longer_wins`: the longer answer is ranked higher. `longer_scores`: the longer answer scores
    higher. `length_correlation`: of scores and lengths within a prompt.
    """
    pairs = [_pairs(row) for row in rows]
    found: dict[str, float] = {"num_prompts": float(len(rows)), "num_pairs": float(sum(len(p) for p in pairs))}
    per_prompt = {
        "accuracy": [_mean(_right(p)) for p in pairs],
        "top1": [_top1(row) for row in rows],
        "longer_wins": [_mean(_longer(p, ranked=True)) for p in pairs],
        "longer_scores": [_mean(_longer(p, ranked=False)) for p in pairs],
    }
    for gap in range(1, max((len(row.scores) for row in rows), default=1)):
        per_prompt[f"accuracy_gap_{gap}"] = [_mean(_right(p[p[:, 1] == gap])) for p in pairs]
    found |= means_of({name: [v for v in values if v is not None] for name, values in per_prompt.items()})
    found |= _plain(
        "tau", [tau for row in rows for ranks in row.rankings if (tau := _tau(row.scores, ranks)) is not None]
    )
    found |= _plain("length_correlation", [c for row in rows if (c := _correlation(row)) is not None])
    return found


def odds_measures(rows: Sequence[Scored]) -> dict[str, float]:
    """Of scores whose differences are log-odds, as a model is trained to give them; nothing where no pair is in order.

    `loss`: -log sigmoid of the difference, in nats, mean over pairs. `calibration_error`: mean over pairs of the
    difference between the chance that sigmoid gives and the share that is right, in 10 bins (ECE, Guo et al. 2017).
    """
    differences_P = np.concatenate([np.empty(0), *(_pairs(row)[:, 0] for row in rows)])
    if not len(differences_P):
        return {}
    loss = float(np.mean(np.logaddexp(0, -differences_P)))
    return {"loss": loss, "calibration_error": calibration_error(differences_P)}


def _pairs(row: Scored) -> np.ndarray:
    """(P, 3): of every pair that a rater puts in order, the better one's score minus the other's, the places between
    them, and the better one's length minus the other's."""
    found = []
    for ranks in row.rankings:
        for better, first in enumerate(ranks):
            for worse, second in enumerate(ranks):
                if first < second:
                    difference = row.scores[better] - row.scores[worse]
                    found.append((difference, second - first, row.lengths[better] - row.lengths[worse]))
    return np.array(found, dtype=float).reshape(-1, 3)


def _right(pairs_P3: np.ndarray) -> np.ndarray:
    right: np.ndarray = (np.sign(pairs_P3[:, 0]) + 1) / 2
    return right


def _longer(pairs_P3: np.ndarray, *, ranked: bool) -> np.ndarray:
    """Of pairs that differ in length: whether the longer one is ranked, or scores, higher."""
    pairs_P3 = pairs_P3[pairs_P3[:, 2] != 0]
    sign = np.sign(pairs_P3[:, 2])
    wins: np.ndarray = (sign + 1) / 2 if ranked else (sign * np.sign(pairs_P3[:, 0]) + 1) / 2
    return wins


def _top1(row: Scored) -> float | None:
    """Mean over raters who do not hold all equal; of several answers that score highest each counts alike."""
    best = [place for place, value in enumerate(row.scores) if value == max(row.scores)]
    shares = [float(np.mean([ranks[i] == min(ranks) for i in best])) for ranks in row.rankings if len(set(ranks)) > 1]
    return _mean(np.array(shares))


def _tau(scores: Sequence[float], ranks: Sequence[int]) -> float | None:
    by_score = {str(i): -int(place) for i, place in enumerate(np.searchsorted(np.unique(scores), scores))}
    return tau_b(by_score, {str(i): rank for i, rank in enumerate(ranks)})


def _correlation(row: Scored) -> float | None:
    if np.std(row.scores) == 0 or np.std(row.lengths) == 0:
        return None
    return float(np.corrcoef(row.scores, row.lengths)[0, 1])


def calibration_error(differences_P: np.ndarray) -> float:
    """Args: differences_P: score of the better answer minus that of the other."""
    confidence_P = 1 / (1 + np.exp(-np.abs(np.clip(differences_P, -700, 700))))
    right_P = (np.sign(differences_P) + 1) / 2
    bins_P = np.minimum(((confidence_P - 0.5) * 2 * BINS).astype(int), BINS - 1)
    total = 0.0
    for number in range(BINS):
        inside = bins_P == number
        if inside.any():
            total += inside.sum() * abs(float(confidence_P[inside].mean() - right_P[inside].mean()))
    return total / len(differences_P)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _plain(name: str, values: Sequence[float]) -> dict[str, float]:
    return {name: sum(values) / len(values)} if values else {}
