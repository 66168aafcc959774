"""Soft overlong punishment of DAPO (Yu et al. 2025, arXiv 2503.14476, equation 13).

An answer that is cut off is not wrong for its reasoning; a penalty that grows towards the limit says so gently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmkit.recipe.reward_values import check_values
from llmkit.rewards.rows import Reward

COLUMNS: tuple[str, ...] = ()
CORRECTNESS: bool = False


def make_overlong(*, max_length: int, cache: int) -> Reward:
    """0 up to `max_length - cache` tokens, falling to -1 at `max_length`, -1 beyond.

    Args:
        max_length: tokens at which the punishment is whole; the stage's `max_completion_length`.
        cache: tokens below `max_length` over which it grows.

    Returns:
        overlong(completion_ids, **columns) -> one penalty per completion, in [-1, 0].

    Raises:
        UserError: `cache` is not in 1..max_length.
    """
    check_values("overlong", max_length=max_length, cache=cache)
    free = max_length - cache

    def overlong(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [max(-1.0, min(0.0, (free - len(ids)) / cache)) for ids in completion_ids]

    return overlong
