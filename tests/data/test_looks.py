"""How often the guard looks, and what that costs."""

from __future__ import annotations

import pytest

from llmkit.preference.looks import cost_of_look, cost_of_step, num_looks, share, stride_of

STEP = cost_of_step(128, readers=1, has_reference=True)
LOOK = cost_of_look(128, readers=2)


@pytest.mark.parametrize(("num_steps", "stride", "expected"), [(40, 4, 11), (40, 3, 15), (5, 5, 2), (5, 9, 2)])
def test_looks_are_counted_with_the_first_and_the_last(num_steps: int, stride: int, expected: int) -> None:
    assert num_looks(num_steps, stride) == expected


def test_a_run_looks_as_often_as_it_was_told_where_that_is_cheap() -> None:
    assert stride_of(0.05, 0.1, 1000, STEP, LOOK, fewest=4) == 50
    assert stride_of(0.05, 1.0, 40, STEP, LOOK, fewest=4) == 2


@pytest.mark.parametrize("max_share", [0.05, 0.1, 0.2])
def test_looks_take_no_more_than_their_share(max_share: float) -> None:
    stride = stride_of(0.01, max_share, 200, STEP, LOOK, fewest=4)
    assert share(200, stride, STEP, LOOK) <= max_share < share(200, stride - 1, STEP, LOOK)


@pytest.mark.parametrize(("num_steps", "expected"), [(20, 5), (14, 5), (5, 6), (3, 4), (1, 2)])
def test_a_guard_is_left_as_many_looks_as_it_needs(num_steps: int, expected: int) -> None:
    assert num_looks(num_steps, stride_of(0.05, 0.001, num_steps, STEP, LOOK, fewest=4)) == expected


def test_a_look_at_as_many_answers_as_are_trained_on_costs_less_than_a_step() -> None:
    assert 0.5 < LOOK / STEP < 1
    assert cost_of_step(128, readers=1, has_reference=False) < STEP < cost_of_step(128, readers=2, has_reference=True)
    assert cost_of_step(128, readers=1, has_reference=True, num_iterations=2) < STEP
