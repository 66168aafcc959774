"""A price on calls of tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmkit.recipe.reward_values import check_values
from llmkit.rewards.rows import Completion, Reward

COLUMNS: tuple[str, ...] = ()
CORRECTNESS: bool = False


def make_calls(*, free: int = 0) -> Reward:
    """-1 for every call beyond `free`; the reward's `weight` is the price. Without calls 0.

    Args:
        free: calls that cost nothing.

    Returns:
        calls(completions, **columns) -> one number per completion, at most 0.

    Raises:
        UserError: `free` is negative.
    """
    check_values("calls", free=free)

    def calls(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [-float(max(0, _num_calls(completion) - free)) + 0.0 for completion in completions]

    return calls


def _num_calls(completion: Completion) -> int:
    if isinstance(completion, str):
        return 0
    wanted: int = sum(len(message.get("tool_calls") or ()) for message in completion)
    # of a turn with a call that cannot be read the others are made, and it stays text
    return int(max(wanted, sum(message.get("role") == "tool" for message in completion)))
