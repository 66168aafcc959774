"""What is said of a reward model's scores."""

from __future__ import annotations

import numpy as np
import pytest

from llmkit.preference.measures import Scored, calibration_error, measures


def test_a_model_in_the_raters_order_is_right_everywhere() -> None:
    rows = [Scored([3.0, 1.0, 2.0], [[1, 3, 2]], [5, 9, 7]), Scored([0.0, 1.0], [[2, 1]], [4, 4])]
    found = measures(rows)
    assert (found["accuracy"], found["top1"], found["tau"]) == (1, 1, 1)
    assert (found["accuracy_gap_1"], found["accuracy_gap_2"]) == (1, 1)
    assert (found["num_prompts"], found["num_pairs"]) == (2, 4)


def test_a_reversed_one_is_right_nowhere_and_equal_scores_are_half_right() -> None:
    assert measures([Scored([1.0, 2.0], [[1, 2]], [1, 2])])["accuracy"] == 0
    level = measures([Scored([1.0, 1.0, 1.0], [[1, 2, 3]], [1, 2, 3])])
    assert level["accuracy"] == 0.5
    assert level["top1"] == pytest.approx(1 / 3)
    assert "tau" not in level


def test_prompts_count_alike_and_ties_of_a_rater_make_no_pair() -> None:
    rows = [Scored([2.0, 1.0], [[1, 2]], [1, 1]), Scored([1.0, 2.0, 3.0], [[1, 1, 2]], [1, 1, 1])]
    found = measures(rows)
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["num_pairs"] == 3


def test_length() -> None:
    """The longer answer wins twice of three; the model always scores it lower."""
    rows = [
        Scored([0.0, 1.0], [[1, 2]], [9, 3]),
        Scored([0.0, 1.0], [[1, 2]], [9, 3]),
        Scored([0.0, 1.0], [[2, 1]], [9, 3]),
    ]
    found = measures(rows)
    assert found["longer_wins"] == pytest.approx(2 / 3)
    assert found["longer_scores"] == 0
    assert found["length_correlation"] == pytest.approx(-1)


def test_several_raters_of_a_prompt_are_averaged() -> None:
    found = measures([Scored([2.0, 1.0], [[1, 2], [2, 1], [1, 2]], [1, 1])])
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_calibration_is_zero_where_chances_come_true() -> None:
    rng = np.random.default_rng(0)
    strength = rng.uniform(0, 3, 200_000)
    wins = rng.random(200_000) < 1 / (1 + np.exp(-strength))
    assert calibration_error(np.where(wins, strength, -strength)) < 0.01
    assert calibration_error(np.full(100, -5.0)) > 0.9
