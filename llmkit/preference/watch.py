"""Whether a policy gets better or only pleases its reward model: the rule by which practice is stopped.

Each evaluation answers the same prompts. `proxy` is what training raises, `gold` a judgement that it does not see; gold
falling while the proxy rises is over-optimisation (Gao et al. 2022, arXiv 2210.10760, figure 1). Pure arithmetic: what
is decided follows from the evaluations alone, so that every process decides the same, and a resumed stage as before.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np

Action = Literal["go", "stop"]


@dataclass(frozen=True)
class Evaluation:
    """One look at the policy. P prompts, one answer each.

    Attributes:
        step: optimizer step.
        kl: of the policy from where it started, nats per answer.
        proxy: P scores that training raises.
        gold: P scores of a judge that training does not see.
        degenerate: share of answers that are empty, repeat themselves or copy the prompt.
        numbers: what else was measured, for curves: never read by the rule.
        true: P scores of a measure, where there is one: neither are they.
        seconds: that the evaluation took.
    """

    step: int
    kl: float
    proxy: list[float]
    gold: list[float]
    degenerate: float
    numbers: dict[str, float]
    true: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What to do after the last evaluation.

    Attributes:
        best: place of the evaluation to keep; see `best_of`.
        reason: in words, where the action is to stop.
    """

    best: int
    action: Action
    reason: str = ""


def verdict(
    evaluations: Sequence[Evaluation],
    *,
    patience: int,
    confidence: float,
    max_kl: float | None,
    max_degenerate: float,
) -> Verdict:
    """Stops where gold has fallen below its best, with `confidence` over the same prompts, at each of the last
    `patience` evaluations; or where the policy is too far from its start, or its answers degenerate. Gold may lie below
    its best because the policy unlearns everything, or because it games the proxy: the reason tells which.
    """
    best = best_of(evaluations)
    last = evaluations[-1]
    if last.degenerate > max_degenerate and last.degenerate > evaluations[0].degenerate:
        what = f"{last.degenerate:.0%} of the answers are empty, repeat themselves or copy the prompt"
        return Verdict(best, "stop", what)
    if max_kl is not None and last.kl > max_kl:
        return Verdict(
            best, "stop", f"the policy is {last.kl:.3g} nats per answer from its start, more than {max_kl:g}"
        )
    recent = evaluations[best + 1 :][-patience:]
    # the best of many is best by luck in part: Bonferroni's correction for having picked it
    level = 1 - (1 - confidence) / len(evaluations)
    if len(recent) < patience or not all(fallen(evaluations[best], each, level) for each in recent):
        return Verdict(best, "go")
    lost = float(np.mean(evaluations[best].gold)) - float(np.mean(last.gold))
    risen = float(np.mean(last.proxy)) >= float(np.mean(evaluations[best].proxy))
    how = "while the reward model's score rose: it is being gamed" if risen else "and so has the reward model's score"
    where = f"since step {evaluations[best].step}"
    return Verdict(best, "stop", f"gold has fallen by {lost:.2g} {where} {how}")


def best_of(evaluations: Sequence[Evaluation]) -> int:
    """Place of the evaluation to keep: the earliest that no later one beats by more than the standard error of their
    difference over prompts. What is no better is not worth being further from the start."""
    best = 0
    for place, each in enumerate(evaluations):
        gain, error = _difference(evaluations[best], each)
        if gain > error:
            best = place
    return best


def _difference(before: Evaluation, after: Evaluation) -> tuple[float, float]:
    """Mean of gold's change over prompts, and its standard error."""
    change_P = np.asarray(after.gold) - np.asarray(before.gold)
    return float(change_P.mean()), float(change_P.std(ddof=1)) / len(change_P) ** 0.5


def fallen(before: Evaluation, after: Evaluation, confidence: float) -> bool:
    """Whether gold is lower than before, by a one-sided paired test over prompts."""
    gain, error = _difference(before, after)
    return -gain > NormalDist().inv_cdf(confidence) * error


@dataclass(frozen=True)
class Fit:
    """R(d) = d (alpha - beta ln d), with d = sqrt(KL): gold against distance for reinforcement learning.

    Gao et al. 2022, section 3.1. `peak`: the distance at which it is highest; None: it never falls.
    """

    alpha: float
    beta: float
    peak: float | None

    def at(self, distance: float) -> float:
        return distance * (self.alpha - self.beta * np.log(distance)) if distance > 0 else 0.0


FEWEST_POINTS = 4


def fit(evaluations: Sequence[Evaluation]) -> Fit | None:
    """Least squares over all evaluations behind the first, whose gold is where R begins; None for too few, or for ones
    that are all at one distance."""
    start = float(np.mean(evaluations[0].gold)) if evaluations else 0.0
    points = [(each.kl**0.5, float(np.mean(each.gold)) - start) for each in evaluations[1:] if each.kl > 0]
    if len(points) < FEWEST_POINTS:
        return None
    distance_N, gain_N = (np.array(column) for column in zip(*points, strict=True))
    if distance_N.max() < 2 * distance_N.min():
        return None
    design_N2 = np.stack([distance_N, -distance_N * np.log(distance_N)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(design_N2, gain_N, rcond=None)
    peak = float(np.exp(alpha / beta - 1)) if beta > 0 else None
    return Fit(float(alpha), float(beta), peak)


REPEATED = 0.5
"""Share of three-word runs that stood in the answer before, from which on it counts as degenerate."""


def is_degenerate(text: str, prompt: str) -> bool:
    """Empty, one word alone again and again, mostly repeated, or a copy of the prompt."""
    words = text.split()
    if not words:
        return True
    if text.strip().casefold() == prompt.strip().casefold() and len(words) > 1:
        return True
    runs = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    repeated = 1 - len(set(runs)) / len(runs) if runs else 0.0
    return repeated > REPEATED or (len(words) > 3 and len(set(words)) == 1)


def distinct(texts: Sequence[str], size: int) -> float:
    """Share of runs of `size` words over all texts that are different (Li et al. 2016, arXiv 1510.03055)."""
    runs = [
        tuple(words[i : i + size]) for words in (text.split() for text in texts) for i in range(len(words) - size + 1)
    ]
    return len(set(runs)) / len(runs) if runs else 0.0


def compression(texts: Sequence[str]) -> float:
    """Bytes of all texts over bytes that zlib makes of them: high where they repeat themselves or each other."""
    data = "\n".join(texts).encode("utf-8", "replace")
    return len(data) / max(len(zlib.compress(data)), 1)
