"""Rankings by a function: how often noise puts a pair the wrong way round, and that nothing else decides."""

from __future__ import annotations

import random

import pytest

from llmkit.preference.labelling import noise_scale, ranked, right_share
from llmkit.preference.rankings import standing
from llmkit.preference.rollouts import Completion, Item


def items(num: int, size: int = 5) -> list[Item]:
    return [
        Item(f"p{n}", f"prompt {n}", tuple(Completion(f"c{n}.{i}", f"text {n} {i}") for i in range(size)))
        for n in range(num)
    ]


def scores(num: int, size: int = 5, spread: float = 1.0) -> list[list[float]]:
    rng = random.Random(0)
    return [[rng.gauss(0, spread) for _ in range(size)] for _ in range(num)]


@pytest.mark.parametrize("noise", [0.1, 0.25, 0.4])
@pytest.mark.parametrize("spread", [0.01, 1.0, 1000.0])
def test_the_share_of_wrong_pairs_is_what_was_asked_for(noise: float, spread: float) -> None:
    listed, own = items(800), scores(800, spread=spread)
    made = list(ranked(listed, own, scale=noise_scale(own, noise), rater="a", seed=1))
    share = right_share(listed, own, made)
    assert share == pytest.approx(1 - noise, abs=0.02)


def test_without_noise_the_order_is_the_scores_and_equal_ones_tie() -> None:
    (item,) = items(1, size=4)
    (made,) = ranked([item], [[1.0, 3.0, 1.0, 2.0]], scale=0.0, rater="a", seed=1)
    assert made.groups == (("c0.1",), ("c0.3",), ("c0.0", "c0.2"))
    assert noise_scale([[1.0, 2.0]], 0.0) == 0.0


def test_equal_scores_that_noise_puts_in_order_are_half_right() -> None:
    """A model of the scores itself is right in no more of these pairs."""
    listed, own = items(200, size=3), [[0.0, 0.0, 100.0]] * 200
    made = list(ranked(listed, own, scale=1.0, rater="a", seed=1))
    assert right_share(listed, own, made) == pytest.approx((2 + 0.5) / 3)
    exact = list(ranked(listed, own, scale=0.0, rater="a", seed=1))
    assert right_share(listed, own, exact) == 1.0


def test_raters_seeds_and_prompts_have_noise_of_their_own_and_the_same_again() -> None:
    listed, own = items(30), [[0.0, 0.1, 0.2, 0.3, 0.4]] * 30
    made = {
        key: [d.groups for d in ranked(listed, own, scale=1.0, rater=key[0], seed=key[1])]
        for key in (("a", 1), ("b", 1), ("a", 2))
    }
    assert len({tuple(groups) for groups in made.values()}) == 3
    assert made["a", 1] == [d.groups for d in ranked(listed, own, scale=1.0, rater="a", seed=1)]
    places = {tuple(id.partition(".")[2] for (id,) in groups) for groups in made["a", 1]}
    assert len(places) > 10


def test_decisions_count_for_their_items() -> None:
    listed, own = items(5), scores(5)
    made = list(ranked(listed, own, scale=0.5, rater="a", seed=1))
    assert list(standing(made, {item.id: item for item in listed}).decisions.values()) == made


def test_scores_that_never_differ_have_no_noise() -> None:
    with pytest.raises(ValueError, match="no two completions"):
        noise_scale([[1.0, 1.0], [2.0, 2.0]], 0.25)
