"""What became of a run under the guard, seen from the same run without one: arithmetic for `guard_study.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llmkit.preference.watch import Evaluation, best_of, fallen

CLOSE = 0.05
"""Share of the best true taste that the restored checkpoint may lack."""
NEAR = 2
"""Looks behind the peak within which the guard should stop."""
GRID, RESAMPLES = 50, 2000


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        rankings: prompts that its reward model was trained on.
        layers: of the reward model.
        learning_rate: of practice.
        peak: step at which the true taste was best, without the guard: the earliest that no later one beats by more
            than a standard error.
        over_optimised: whether true taste had fallen below that at the last two looks, by a paired test.
        proxy_rose: whether the reward model's score rose meanwhile.
        stopped: step at which the guard stopped; None: it did not.
        late: looks from the peak to there.
        restored: step whose weights the guard kept.
        restored_true, best_true, last_true: true taste there, at its best of both trainings, at the end without guard.
    """

    run: str
    rankings: int
    layers: int
    learning_rate: float
    peak: int
    over_optimised: bool
    proxy_rose: bool
    stopped: int | None
    late: int | None
    restored: int
    restored_true: float
    best_true: float
    last_true: float


def looks_in(stage: Path) -> list[Evaluation]:
    """What a guard, or a stage without one, saw."""
    return [Evaluation(**json.loads(line)) for line in (stage / "guard.jsonl").read_text().splitlines()]


def by_truth(looks: Sequence[Evaluation]) -> list[Evaluation]:
    """With the true taste in gold's place."""
    return [replace(look, gold=look.true) for look in looks]


def outcome_of(
    run: str,
    rankings: int,
    layers: int,
    learning_rate: float,
    guarded: Sequence[Evaluation],
    off: Sequence[Evaluation],
    metrics: Mapping[str, float],
) -> Outcome:
    """Args: metrics: of the guarded stage's manifest."""
    truth = by_truth(off)
    peak = truth[best_of(truth)]
    behind = [look for look in truth if look.step > peak.step][-2:]
    stopped = guarded[-1].step if metrics["guard_stopped"] else None
    restored = next(look for look in guarded if look.step == int(metrics["guard_best_step"]))
    return Outcome(
        run=run,
        rankings=rankings,
        layers=layers,
        learning_rate=learning_rate,
        peak=peak.step,
        over_optimised=len(behind) == 2 and all(fallen(peak, look, 0.95) for look in behind),
        proxy_rose=float(np.mean(off[-1].proxy)) > float(np.mean(peak.proxy)),
        stopped=stopped,
        late=None if stopped is None else sum(peak.step < look.step <= stopped for look in guarded),
        restored=restored.step,
        restored_true=float(np.mean(restored.true)),
        best_true=max(float(np.mean(look.true)) for look in (*guarded, *off)),
        last_true=float(np.mean(off[-1].true)),
    )


def over_runs(
    outcomes: Sequence[Outcome], pairs: Sequence[tuple[Sequence[Evaluation], Sequence[Evaluation]]]
) -> dict[str, Any]:
    """Args: pairs: of single and ensemble, run by run."""
    over = [each for each in outcomes if each.over_optimised]
    found: dict[str, Any] = {
        "runs": len(outcomes),
        "over_optimised": len(over),
        "caught": sum(each.stopped is not None for each in over),
        "stopped_near_the_peak": sum(each.late is not None and each.late <= NEAR for each in over),
        "false_stops": sum(each.stopped is not None for each in outcomes if not each.over_optimised),
        "restored_close_to_the_best": sum(
            each.restored_true >= each.best_true - CLOSE * abs(each.best_true) for each in outcomes
        ),
    }
    return found | ({"ensemble": at_equal_kl(pairs)} if pairs else {})


def at_equal_kl(pairs: Sequence[tuple[Sequence[Evaluation], Sequence[Evaluation]]], seed: int = 0) -> dict[str, Any]:
    """How much better the second of each pair is by true taste at the same sqrt(KL), mean over the range that both were
    in; with its 95 % interval, drawing runs and prompts anew. All runs look at the same prompts. Pairs that were never
    at the same distance are left out."""
    found = [gains_P for pair in pairs if (gains_P := _between(*pair)) is not None]
    if not found:
        return {"runs": 0, "ensemble_is": "never as far from the start"}
    gains_RP = np.stack(found)
    rng = np.random.default_rng(seed)
    num_runs, num_prompts = gains_RP.shape
    means = [
        gains_RP[rng.integers(num_runs, size=num_runs)][:, rng.integers(num_prompts, size=num_prompts)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    verdict = "better" if low > 0 else "worse" if high < 0 else "neither better nor worse"
    numbers = {"gain": float(gains_RP.mean()), "low": float(low), "high": float(high)}
    return {"runs": num_runs, **numbers, "ensemble_is": verdict}


def _between(one: Sequence[Evaluation], other: Sequence[Evaluation]) -> np.ndarray | None:
    """(P,): of every prompt the mean difference, other minus one."""
    (d_one, true_one), (d_other, true_other) = _by_distance(one), _by_distance(other)
    low, high = max(d_one[0], d_other[0]), min(d_one[-1], d_other[-1])
    if high <= low:
        return None
    grid = np.linspace(low, high, GRID)
    columns = [
        np.interp(grid, d_other, true_other[:, p]) - np.interp(grid, d_one, true_one[:, p])
        for p in range(true_one.shape[1])
    ]
    return np.array(columns).mean(1)


def _by_distance(looks: Sequence[Evaluation]) -> tuple[np.ndarray, np.ndarray]:
    """(L,) distances, rising, and (L, P) true taste."""
    order = sorted(looks, key=lambda look: look.kl)
    return np.array([look.kl**0.5 for look in order]), np.array([look.true for look in order])
