"""The rule by which practice against a reward model is stopped, on curves that were drawn by hand."""

from __future__ import annotations

import math
import random

import pytest

from llmkit.preference.watch import Evaluation, best_of, fit, is_degenerate, verdict

RULE = {"patience": 2, "confidence": 0.95, "max_kl": None, "max_degenerate": 0.1}


def look(
    step: int,
    gold: float,
    proxy: float,
    *,
    kl: float = 1.0,
    degenerate: float = 0.0,
    noise: float = 0.3,
    num: int = 128,
) -> Evaluation:
    """Gold of each prompt is its own level, the same at every evaluation, and some noise."""
    levels, rng = random.Random(0), random.Random(step)
    golds = [gold + levels.gauss(0, 1) + rng.gauss(0, noise) for _ in range(num)]
    return Evaluation(step, kl, [proxy] * num, golds, degenerate, {})


def test_goes_on_while_gold_rises() -> None:
    curve = [look(step, gold=step / 10, proxy=step / 5) for step in range(10)]
    found = verdict(curve, **RULE)
    assert (found.best, found.action) == (9, "go")


def test_stops_at_the_second_fall_and_keeps_the_best() -> None:
    golds = [0.0, 0.5, 1.0, 0.8, 0.6]
    curve = [look(step, gold, proxy=float(step)) for step, gold in enumerate(golds)]
    assert verdict(curve[:4], **RULE).action == "go"
    found = verdict(curve, **RULE)
    assert (found.best, found.action) == (2, "stop")
    assert "gamed" in found.reason
    assert "step 2" in found.reason


def test_what_is_no_better_is_not_kept() -> None:
    plateau = [look(step, gold, proxy=1.0, noise=0.05) for step, gold in enumerate([0.0, 0.5, 1.0, 0.99, 0.98, 0.99])]
    assert best_of(plateau) == 2
    creeping = [look(step, gold=step / 50, proxy=1.0) for step in range(20)]
    assert best_of(creeping) > 15


def test_one_fall_between_is_forgiven() -> None:
    golds = [0.0, 1.0, 0.7, 1.05, 0.7]
    curve = [look(step, gold, proxy=float(step)) for step, gold in enumerate(golds)]
    assert verdict(curve, **RULE).action == "go"


@pytest.mark.parametrize(("num_looks", "num_prompts"), [(20, 128), (11, 64)])
def test_noise_alone_seldom_stops(num_looks: int, num_prompts: int) -> None:
    stopped = 0
    for trial in range(60):
        rng = random.Random(trial)
        curve = []
        for step in range(num_looks):
            curve.append(look(1000 * trial + step, gold=0.0, proxy=rng.random(), noise=1.0, num=num_prompts))
            if verdict(curve, **RULE).action == "stop":
                stopped += 1
                break
    assert stopped <= 6


def test_says_when_the_reward_fell_too() -> None:
    curve = [look(0, 0.0, 5.0), look(1, 1.0, 5.0), look(2, 0.2, 2.0), look(3, 0.1, 1.0)]
    found = verdict(curve, **RULE)
    assert found.action == "stop"
    assert "gamed" not in found.reason


def test_budget_and_degenerate_answers() -> None:
    far = [look(0, 0.0, 0.0), look(1, 1.0, 1.0, kl=12.0)]
    assert verdict(far, **RULE | {"max_kl": 10.0}).action == "stop"
    assert verdict(far, **RULE).action == "go"
    spoilt = [look(0, 0.0, 0.0), look(1, 1.0, 1.0, degenerate=0.2)]
    assert "20%" in verdict(spoilt, **RULE).reason
    assert verdict([look(0, 0.0, 0.0, degenerate=0.5), look(1, 1.0, 1.0, degenerate=0.4)], **RULE).action == "go"


def test_the_curve_of_gao_is_found_again() -> None:
    curve = [look(0, 0.0, 0.0, kl=0.0, noise=0.0)]
    for step, distance in enumerate((0.5, 1.0, 2.0, 3.0, 5.0), start=1):
        curve.append(look(step, distance * (0.9 - 0.5 * math.log(distance)), 0.0, kl=distance**2, noise=0.0))
    found = fit(curve)
    assert found is not None
    assert (found.alpha, found.beta) == pytest.approx((0.9, 0.5), abs=0.02)
    assert found.peak == pytest.approx(math.exp(0.9 / 0.5 - 1), rel=0.05)
    assert fit(curve[:4]) is None
    assert fit([curve[0], *[look(n, 1.0, 1.0, kl=4.0) for n in range(1, 9)]]) is None


@pytest.mark.parametrize("text", ["", "  ", "the the the the", "the end the end the end the end", "Tell me a joke."])
def test_degenerate(text: str) -> None:
    assert is_degenerate(text, "Tell me a joke.")


@pytest.mark.parametrize("text", ["Ha ha!", "No.", "Why did the crow go home? It felt a little off.", "no no no"])
def test_not_degenerate(text: str) -> None:
    assert not is_degenerate(text, "Tell me a joke.")
