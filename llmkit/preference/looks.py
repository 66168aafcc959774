"""How often the guard looks: as often as the recipe says, unless looks would be more than their share of the work.

Estimated before training begins, from how many answers are read how often, and not from a clock: two runs of a recipe
look after the same steps, on whatever machine.
"""

from __future__ import annotations

import math

WRITING = 3.0
"""Forward passes that writing an answer token by token is worth."""
LEARNING = 3.0
"""Forward passes that one with its gradient is worth."""


def num_looks(num_steps: int, stride: int) -> int:
    """At the start, every `stride` steps, and at the end."""
    return 1 + -(-num_steps // stride)


def share(num_steps: int, stride: int, step: float, look: float) -> float:
    """Of all the work what looks are. Args: step, look: what one costs, in the same unit."""
    looks = num_looks(num_steps, stride) * look
    return looks / (looks + num_steps * step)


def stride_of(every: float, max_share: float, num_steps: int, step: float, look: float, fewest: int) -> int:
    """Steps between two looks.

    Args:
        every: share of the steps that the recipe wants between two.
        max_share: of all the work that looks may be.
        step, look: what one costs, in the same unit.
        fewest: looks behind the first without which a guard is none: so many there are, whatever they cost.
    """
    wanted = max(1, round(every * num_steps))
    widest = -(-num_steps // fewest)
    if num_looks(num_steps, widest) <= fewest:
        widest = num_steps // fewest
    last = max(wanted, widest)
    fitting = (each for each in range(wanted, last) if share(num_steps, each, step, look) <= max_share)
    return next(fitting, last)


def cost_of_step(num_answers: int, *, readers: float, has_reference: bool, num_iterations: int = 1) -> float:
    """Of an optimizer step, in forward passes of the policy over one answer.

    Args:
        readers: size of all reward models, in policies.
        num_iterations: times that an answer is trained on.
    """
    return num_answers * (LEARNING + (WRITING + readers + has_reference) / num_iterations)


def cost_of_look(num_prompts: int, *, readers: float) -> float:
    """In the same unit. Args: readers: size of all reward models, gold's too, in policies."""
    return num_prompts * (WRITING + readers + 1)


def percent(value: float) -> str:
    return f"{math.ceil(100 * value)} %"
