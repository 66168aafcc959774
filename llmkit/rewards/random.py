"""A control: a reward that has nothing to do with the answer. What improves under it was not learned from a reward.

A draw is keyed by seed, step, prompt and the place among the answers to that prompt, and by nothing of the answer: a
hash of the text would be a reward that a model can learn. Nothing is counted or kept between calls, so that a resumed
run draws the same; without a `trainer_state` the step is 0. The prompt is part of the key so that prompts that stand in
for others in the same step (dynamic sampling) draw anew. Known limit: where a group of answers is shared out over two
processes, or sampled in two parts (`sampling.screen`), each part counts places from 0, and answers of the same place
draw the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from llmkit.recipe.reward_values import check_values
from llmkit.rewards.rows import Reward

COLUMNS: tuple[str, ...] = ()
CORRECTNESS: bool = False


def make_random(*, p: float = 0.5, seed: int = 0) -> Reward:
    """1 with probability `p`, else 0, whatever the completion says.

    Args:
        p: share of ones, 0 to 1.
        seed: of the draws, at least 0.

    Returns:
        random(prompts, completions, trainer_state, **columns) -> one 0 or 1 per completion.

    Raises:
        UserError: an option is out of range.
    """
    check_values("random", p=p, seed=seed)

    def draw(step: int, prompt: int, place: int) -> float:
        key = np.array([seed, 0], dtype=np.uint64)
        counter = np.array([0, place, step, prompt], dtype=np.uint64)
        return float(np.random.Generator(np.random.Philox(key=key, counter=counter)).random())

    def random(prompts: Sequence[Any], completions: Sequence[Any], trainer_state: Any = None, **_: Any) -> list[float]:
        step = int(getattr(trainer_state, "global_step", 0) or 0)
        seen: Counter[int] = Counter()
        scores = []
        for prompt, _completion in zip(map(_key, prompts), completions, strict=True):
            scores.append(float(draw(step, prompt, seen[prompt]) < p))
            seen[prompt] += 1
        return scores

    return random


def _key(prompt: Any) -> int:
    return int.from_bytes(blake2b(repr(prompt).encode("utf-8", "surrogatepass"), digest_size=8).digest())
