"""The rule by which practice against a reward model is stopped, on curves that were drawn by hand."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from llmkit.preference.watch import Evaluation, Rule, best_of, fit, is_degenerate, outside, verdict

RULE = Rule(patience=2, confidence=0.95, max_kl=None, max_degenerate=0.1, max_unlikely=0.5, max_idle=None)


def look(
    step: int,
    gold: float,
    proxy: float,
    *,
    kl: float = 1.0,
    degenerate: float = 0.0,
    unlikely: float = 0.0,
    noise: float = 0.3,
    num: int = 128,
) -> Evaluation:
    """Gold of each prompt is its own level, the same at every evaluation, and some noise."""
    levels, rng = random.Random(0), random.Random(step)
    golds = [gold + levels.gauss(0, 1) + rng.gauss(0, noise) for _ in range(num)]
    return Evaluation(step, kl, [proxy] * num, golds, degenerate, {}, unlikely=unlikely)


def test_goes_on_while_gold_rises() -> None:
    curve = [look(step, gold=step / 10, proxy=step / 5) for step in range(10)]
    found = verdict(curve, RULE)
    assert (found.best, found.action) == (9, "go")


def test_stops_at_the_second_fall_and_keeps_the_best() -> None:
    golds = [0.0, 0.5, 1.0, 0.8, 0.6]
    curve = [look(step, gold, proxy=float(step)) for step, gold in enumerate(golds)]
    assert verdict(curve[:4], RULE).action == "go"
    found = verdict(curve, RULE)
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
    assert verdict(curve, RULE).action == "go"


@pytest.mark.parametrize(("num_looks", "num_prompts"), [(20, 128), (11, 64)])
def test_noise_alone_seldom_stops(num_looks: int, num_prompts: int) -> None:
    stopped = 0
    for trial in range(60):
        rng = random.Random(trial)
        curve = []
        for step in range(num_looks):
            curve.append(look(1000 * trial + step, gold=0.0, proxy=rng.random(), noise=1.0, num=num_prompts))
            if verdict(curve, RULE).action == "stop":
                stopped += 1
                break
    assert stopped <= 6


@pytest.mark.parametrize(
    ("proxies", "said"), [([5.0, 5.0, 2.0, 1.0], "the policy unlearns"), ([5.0, 5.0, 5.0, 6.0], "it is being gamed")]
)
def test_gold_that_falls_stops_and_says_whether_the_reward_rose(proxies: list[float], said: str) -> None:
    golds = [0.0, 1.0, 0.2, 0.1]
    found = verdict([look(step, golds[step], proxies[step]) for step in range(4)], RULE)
    assert (found.best, found.action) == (1, "stop")
    assert said in found.reason


def test_a_reward_that_rises_by_chance_alone_is_not_said_to_rise() -> None:
    curve = [look(step, gold, proxy=0.0) for step, gold in enumerate([0.0, 1.0, 0.2, 0.1])]
    rng = random.Random(3)
    wobbly = [replace(each, proxy=[0.01 * each.step + rng.gauss(0, 1) for _ in each.proxy]) for each in curve]
    assert "has not risen" in verdict(wobbly, RULE).reason


def test_budget_and_degenerate_answers() -> None:
    far = [look(0, 0.0, 0.0), look(1, 1.0, 1.0, kl=12.0)]
    assert verdict(far, replace(RULE, max_kl=10.0)).action == "stop"
    assert verdict(far, RULE).action == "go"
    strange = [look(0, 0.0, 0.0), look(1, 1.0, 1.0, unlikely=0.6)]
    assert "60% of the answers are such as it hardly ever gave" in verdict(strange, RULE).reason
    assert verdict(strange, replace(RULE, max_unlikely=None)).action == "go"
    spoilt = [look(0, 0.0, 0.0), look(1, 1.0, 1.0, degenerate=0.2)]
    assert "20%" in verdict(spoilt, RULE).reason
    assert verdict([look(0, 0.0, 0.0, degenerate=0.5), look(1, 1.0, 1.0, degenerate=0.4)], RULE).action == "go"


def test_stops_where_gold_rises_no_more() -> None:
    rule, golds = replace(RULE, max_idle=4), [0.0, 1.0, 0.99, 0.98, 0.99, 0.98]
    curve = [look(step, gold, 1.0, noise=0.05) for step, gold in enumerate(golds)]
    assert verdict(curve[:-1], rule).action == "go"
    found = verdict(curve, rule)
    assert (found.best, found.action) == (1, "stop")
    assert found.reason == "gold has been no better than at step 1 for 4 evaluations"
    assert verdict(curve, RULE).action == "go"
    better = verdict([*curve[:-1], look(5, 1.2, 1.0)], rule)
    assert (better.best, better.action) == (5, "go")


def test_a_policy_that_is_slow_to_begin_is_waited_for() -> None:
    curve = [look(step, 0.0, 1.0, noise=0.0) for step in range(9)]
    assert verdict(curve, replace(RULE, max_idle=4)).action == "go"


@pytest.mark.parametrize("limit", [{"kl": 50.0}, {"degenerate": 0.6}, {"unlikely": 0.6}])
def test_what_passes_a_limit_is_not_kept(limit: dict[str, float]) -> None:
    curve = [look(0, 0.0, 0.0), look(2, 0.5, 1.0), look(4, 1.5, 2.0, **limit)]
    found = verdict(curve, replace(RULE, max_kl=30.0))
    assert (found.best, found.action) == (1, "stop")
    assert best_of(curve) == 2


@pytest.mark.parametrize(("before", "after", "stops"), [(8, 9, False), (8, 12, False), (8, 24, True), (0, 12, True)])
def test_degenerate_answers_must_have_become_more_by_more_than_chance(before: int, after: int, stops: bool) -> None:
    curve = [look(step, step / 2, 1.0, degenerate=num / 64, num=64) for step, num in enumerate((before, after))]
    found = verdict(curve, RULE)
    assert (found.action == "stop") == bool(outside(curve, RULE)) == stops
    assert found.best == (0 if stops else 1)


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


@pytest.mark.filterwarnings("error")
def test_a_peak_that_is_no_number_is_none() -> None:
    """Gold that rises in step with the distance: beta is all but 0."""
    curve = [look(0, 0.0, 0.0, kl=0.0, noise=0.0)]
    curve += [look(n, n * (0.9 - 1e-4 * math.log(n)), 0.0, kl=float(n**2), noise=0.0) for n in range(1, 8)]
    found = fit(curve)
    assert found is not None
    assert found.beta > 0
    assert found.peak is None


REPEATS = ("the the the the", "the end the end the end the end", "the" * 30, "\u54c8" * 40, "Well then. " + "ha" * 60)


@pytest.mark.parametrize("text", ["", "  ", "Tell me a joke.", *REPEATS])
def test_degenerate(text: str) -> None:
    assert is_degenerate(text, "Tell me a joke.")


FAIR = (
    *("Ha ha!", "No.", "Why did the crow go home? It felt a little off.", "no no no", "hahahahaha", "10000000000"),
    "| day | open |\n| --- | --- |\n| Monday | no |\n| Tuesday | no |\n| Friday | yes |",
    "\u4e3a\u4ec0\u4e48\u9e66\u9e49\u98de\u8d70\u4e86\uff1f\u56e0\u4e3a\u5b83\u542c\u591f\u4e86\u6211\u4eec\u7684\u7b11\u8bdd\u3002",
)


@pytest.mark.parametrize("text", FAIR)
def test_not_degenerate(text: str) -> None:
    assert not is_degenerate(text, "Tell me a joke.")
