"""Ratings of models from comparisons of their answers: Bradley-Terry, with intervals over prompts.

A model of strength s beats one of strength t with chance s / (s + t) (Bradley and Terry 1952, Biometrika 39, 324); a
rating is 400 log10 s + 1000, as chess players know it, with mean 1000 over the models. Fitted by evalica.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from llmkit.intervals import mean_interval

Outcome = Literal["first", "second", "tie"]
RESAMPLES = 200
PRIOR = 0.5
"""Ties that every two models are given beforehand: without them a model that has won every time has no strength."""


@dataclass(frozen=True)
class Comparison:
    """Two models' answers to one prompt."""

    prompt: str
    first: str
    second: str
    outcome: Outcome


@dataclass(frozen=True)
class Rating:
    """One model's place. `low`, `high`: 95 % interval by bootstrap over prompts, which draws only
    outcomes that there were: of a model that wins (or loses) every time it is too narrow, between two models of no
    width, and the true bound is unknown. `win_rate`: over all comparisons."""

    model: str
    rating: float
    low: float
    high: float
    win_rate: float
    num_comparisons: int


@dataclass(frozen=True)
class Duel:
    """Two models against each other. `win_rate`: of `model`, mean over prompts, a tie counts half; `low`, `high`: its
    95 % interval over prompts, None for a single one."""

    model: str
    other: str
    win_rate: float
    low: float | None
    high: float | None
    num_ties: int
    num_comparisons: int


def ladder(comparisons: Sequence[Comparison], seed: int = 0) -> list[Rating]:
    """Best first. All comparisons of a prompt are drawn together. Raises ValueError for none."""
    if not comparisons:
        raise ValueError("there is nothing to compare")
    models = sorted({name for one in comparisons for name in (one.first, one.second)})
    prompts = {name: place for place, name in enumerate(dict.fromkeys(one.prompt for one in comparisons))}
    prompt_N = np.array([prompts[one.prompt] for one in comparisons])
    whole_M = _fit(models, comparisons, np.ones(len(comparisons)))
    rng = np.random.default_rng(seed)
    drawn_SM = np.empty((RESAMPLES, len(models)))
    for sample in range(RESAMPLES):
        times_P = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)))
        drawn_SM[sample] = _fit(models, comparisons, times_P[prompt_N].astype(float))
    low_M, high_M = np.quantile(drawn_SM, (0.025, 0.975), axis=0)
    found = [
        Rating(name, float(whole_M[i]), float(low_M[i]), float(high_M[i]), *_won(name, comparisons))
        for i, name in enumerate(models)
    ]
    return sorted(found, key=lambda one: -one.rating)


def duels(comparisons: Sequence[Comparison], seed: int = 0) -> list[Duel]:
    """Of every two models that were compared, the one that wins more often first. A prompt counts once, however many
    compared its answers."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for one in comparisons:
        first, second = sorted((one.first, one.second))
        won = 0.5 if one.outcome == "tie" else float((one.outcome == "first") == (one.first == first))
        found.setdefault((first, second), {}).setdefault(one.prompt, []).append(won)
    made = [_duel(first, second, list(prompts.values()), seed) for (first, second), prompts in found.items()]
    return sorted(made, key=lambda one: -one.win_rate)


def _duel(first: str, second: str, wins: Sequence[Sequence[float]], seed: int) -> Duel:
    shares = [sum(own) / len(own) for own in wins]
    if sum(shares) < len(shares) / 2:
        first, second, shares = second, first, [1 - share for share in shares]
    low, high = mean_interval(shares, seed) or (None, None)
    ties = sum(won == 0.5 for own in wins for won in own)
    return Duel(first, second, sum(shares) / len(shares), low, high, ties, sum(map(len, wins)))


def _fit(models: Sequence[str], comparisons: Sequence[Comparison], weights_N: np.ndarray) -> np.ndarray:
    """(M,) ratings."""
    from evalica import Winner, bradley_terry  # brings pandas, which commands without ladders do not need

    winners = {"first": Winner.X, "second": Winner.Y, "tie": Winner.Draw}
    pairs = list(combinations(models, 2))
    result = bradley_terry(
        [*(one.first for one in comparisons), *(first for first, _ in pairs)],
        [*(one.second for one in comparisons), *(second for _, second in pairs)],
        [*(winners[one.outcome] for one in comparisons), *(Winner.Draw for _ in pairs)],
        weights=[*weights_N, *(PRIOR for _ in pairs)],
        limit=1000,
    )
    logs_M = np.log10(np.array([float(result.scores[name]) for name in models]))
    ratings_M: np.ndarray = 400 * (logs_M - logs_M.mean()) + 1000
    return ratings_M


def _won(model: str, comparisons: Sequence[Comparison]) -> tuple[float, int]:
    wins, count = 0.0, 0
    for one in comparisons:
        if model in (one.first, one.second):
            count += 1
            won = one.outcome == ("first" if model == one.first else "second")
            wins += 1.0 if won else 0.5 * (one.outcome == "tie")
    return wins / count, count
