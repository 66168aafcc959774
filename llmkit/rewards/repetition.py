"""A penalty on saying the same words again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmkit.recipe.reward_values import check_values
from llmkit.rewards.rows import Completion, Reward, text_of

COLUMNS: tuple[str, ...] = ()
CORRECTNESS: bool = False


def make_repetition(*, ngram: int = 3, max_penalty: float = 1.0) -> Reward:
    """-max_penalty times the share of runs of `ngram` words that stood in the completion before.

    Words are what spaces separate, without regard to case; a text of fewer than `ngram` words repeats nothing.

    Args:
        ngram: words in a run.
        max_penalty: of a text that only repeats itself.

    Returns:
        repetition(completions, **columns) -> one penalty per completion, in (-max_penalty, 0].

    Raises:
        UserError: an option is out of range.
    """
    check_values("repetition", ngram=ngram, max_penalty=max_penalty)

    def penalty(text: str) -> float:
        words = text.casefold().split()
        runs = len(words) - ngram + 1
        if runs < 1:
            return 0.0
        distinct = len({tuple(words[place : place + ngram]) for place in range(runs)})
        return -max_penalty * (runs - distinct) / runs + 0.0

    def repetition(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [penalty(text_of(completion)) for completion in completions]

    return repetition
