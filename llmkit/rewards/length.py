"""A penalty on answers that are longer than they should be, rising to a limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmkit.recipe.reward_values import check_values
from llmkit.rewards.rows import Reward

COLUMNS: tuple[str, ...] = ()
CORRECTNESS: bool = False


def make_length(*, target: int, slack: int) -> Reward:
    """0 up to `target` tokens, then falling to -1 at `target + slack`: -min(1, max(0, n - target) / slack).

    Args:
        target: tokens of a completion that cost nothing.
        slack: tokens above `target` at which the penalty is whole.

    Returns:
        length(completion_ids, **columns) -> one penalty per completion, in [-1, 0].

    Raises:
        UserError: `target` is negative or `slack` is not positive.
    """
    check_values("length", target=target, slack=slack)

    def length(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [-min(1.0, max(0, len(ids) - target) / slack) + 0.0 for ids in completion_ids]

    return length
