"""Whether a policy gets better or only pleases its reward model: the rule by which practice is stopped.

Each evaluation answers the same prompts. `proxy` is what training raises, `gold` a judgement that it does not see; gold
falling while the proxy rises is over-optimisation (Gao et al. 2022, arXiv 2210.10760, figure 1). Pure arithmetic: what
is decided follows from the evaluations alone, so that every process decides the same, and a resumed stage as before.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb
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
        unlikely: share of answers that the policy where it started finds less likely, per token, than nearly all of
            those that it gave itself.
    """

    step: int
    kl: float
    proxy: list[float]
    gold: list[float]
    degenerate: float
    numbers: dict[str, float]
    true: list[float] = field(default_factory=list)
    seconds: float = 0.0
    unlikely: float = 0.0


@dataclass(frozen=True)
class Rule:
    """When practice is stopped.

    Attributes:
        patience: looks in a row at which gold must have fallen.
        confidence: of the tests, one-sided.
        max_kl: nats per answer; None: any.
        max_degenerate: share of the answers.
        max_unlikely: share of the answers; None: any.
        max_idle: looks in a row behind the best; None: any.
    """

    patience: int
    confidence: float
    max_kl: float | None
    max_degenerate: float
    max_unlikely: float | None
    max_idle: int | None


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


def verdict(evaluations: Sequence[Evaluation], rule: Rule) -> Verdict:
    """Stops where the last evaluation is outside of the limits (see `outside`), where gold has fallen below its best
    at each of the last `patience` evaluations, by a paired test over the same prompts, or where it has not risen for
    `max_idle` evaluations: a judge that shares errors with the reward model sees a plateau where others see a fall.

    Gold that falls is worth a stop whatever the proxy does, and the reason says which it is: where the proxy has risen,
    by the same test, it is being gamed; where it has not, the policy unlearns, and training is what is wrong.
    """
    best = best_of(evaluations, rule)
    if passed := outside(evaluations, rule):
        return Verdict(best, "stop", passed)
    first, last = evaluations[best], evaluations[-1]
    recent, level = evaluations[best + 1 :][-rule.patience :], _level(rule, len(evaluations))
    if len(recent) < rule.patience or not all(fallen(first, each, level) for each in recent):
        num_idle = len(evaluations) - 1 - best
        # a policy may be slow to begin
        if rule.max_idle is None or not best or num_idle < rule.max_idle:
            return Verdict(best, "go")
        return Verdict(best, "stop", f"gold has been no better than at step {first.step} for {num_idle} evaluations")
    lost = float(np.mean(first.gold)) - float(np.mean(last.gold))
    if _has_risen(first.proxy, last.proxy, rule.confidence):
        how = "while the reward model's score rose: it is being gamed"
    else:
        how = "and the reward model's score has not risen: the policy unlearns; train it more gently"
    return Verdict(best, "stop", f"gold has fallen by {lost:.2g} since step {first.step} {how}")


def best_of(evaluations: Sequence[Evaluation], rule: Rule | None = None) -> int:
    """Place of the evaluation to keep. It begins with the first; a later one takes its place where gold is higher by
    more than the standard error of their difference over prompts, and the limits of the rule are kept. What is no
    better is not worth being further from the start. What is kept never goes back: it depends on what was before alone.
    """
    best = 0
    for place, each in enumerate(evaluations):
        gain, error = _difference(evaluations[best].gold, each.gold)
        if gain > error and not (rule and outside(evaluations[: place + 1], rule)):
            best = place
    return best


def outside(evaluations: Sequence[Evaluation], rule: Rule) -> str:
    """Which limit the last evaluation passes, in words; empty: none. Degenerate answers must also have become more than
    at the start by more than chance, for a model that begins with some."""
    first, last = evaluations[0], evaluations[-1]
    if last.degenerate > rule.max_degenerate:
        num = len(last.proxy)
        chance = _by_chance(round(first.degenerate * num), round(last.degenerate * num), num)
        if chance < 1 - _level(rule, len(evaluations)):
            return f"{last.degenerate:.0%} of the answers are empty, repeat themselves or copy the prompt"
    if rule.max_unlikely is not None and last.unlikely > rule.max_unlikely:
        return f"{last.unlikely:.0%} of the answers are such as it hardly ever gave at the start: no judge knows these"
    if rule.max_kl is not None and last.kl > rule.max_kl:
        return f"the policy is {last.kl:.3g} nats per answer from its start, more than {rule.max_kl:g}"
    return ""


def _level(rule: Rule, num_looks: int) -> float:
    """Confidence of one test among so many (Bonferroni): the best of many looks is best by luck in part."""
    return 1 - (1 - rule.confidence) / num_looks


def _by_chance(before: int, after: int, num: int) -> float:
    """Chance that of twice `num` answers of one kind, of which `before` + `after` are marked, `after` or more of the
    marked are in the second half: Fisher's exact test, one-sided."""
    marked = before + after
    ways = sum(comb(num, k) * comb(num, marked - k) for k in range(after, min(marked, num) + 1))
    return ways / comb(2 * num, marked)


def _difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Mean change over two or more prompts, and its standard error."""
    change_P = np.asarray(after) - np.asarray(before)
    return float(change_P.mean()), float(change_P.std(ddof=1)) / len(change_P) ** 0.5


def _has_risen(before: Sequence[float], after: Sequence[float], confidence: float) -> bool:
    """By a one-sided paired test over prompts."""
    gain, error = _difference(before, after)
    return gain > NormalDist().inv_cdf(confidence) * error


def fallen(before: Evaluation, after: Evaluation, confidence: float) -> bool:
    """Whether gold is lower than before, by a one-sided paired test over prompts."""
    return _has_risen(after.gold, before.gold, confidence)


@dataclass(frozen=True)
class Fit:
    """R(d) = d (alpha - beta ln d), with d = sqrt(KL): gold against distance for reinforcement learning.

    Gao et al. 2022, section 3.1. `peak`: the distance at which it is highest; None: it falls at none that a number can
    hold.
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
    return Fit(float(alpha), float(beta), _peak(float(alpha), float(beta)))


def _peak(alpha: float, beta: float) -> float | None:
    try:
        return math.exp(alpha / beta - 1) if beta > 0 else None
    except OverflowError:
        return None


REPEATED = 0.5
"""Share of runs that stood in the answer before, from which on it counts as degenerate."""
WORDS, CHARACTERS = 3, 10
"""Length of a run, of words and, for what is written without blanks, of characters."""


def is_degenerate(text: str, prompt: str) -> bool:
    """Empty, one word alone again and again, mostly repeated, or a copy of the prompt."""
    text = text.strip()
    words = text.split()
    if not words:
        return True
    if text.casefold() == prompt.strip().casefold() and len(words) > 1:
        return True
    if len(words) > WORDS and len(set(words)) == 1:
        return True
    # characters of a short answer may repeat: 10000000000, hahaha
    return _repeated(words, WORDS) > REPEATED or (
        len(text) >= 2 * CHARACTERS and _repeated(text, CHARACTERS) > REPEATED
    )


def _repeated(parts: Sequence[str], size: int) -> float:
    """Share of runs of so many parts that stood before."""
    runs = [tuple(parts[i : i + size]) for i in range(len(parts) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


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
