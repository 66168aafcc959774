"""How often problems are solved: by one answer, by one of k, by the majority of k.

pass@k   share of problems that at least one of k answers solves; unbiased from n >= k answers of which c are right:
         1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, eq. 1)
maj@k    share of problems that the most frequent of k answers solves (Wang et al. 2022, arXiv 2203.11171)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np

NUM_DRAWS = 100
"""Draws of k of the n answers that maj@k averages over."""


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Raises ValueError for k above the number of samples.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 4), pass_at_k(4, 0, 2)
    (0.25, 1.0, 0.0)
    """
    if not 0 < k <= num_samples:
        raise ValueError(f"k is {k}, and there are {num_samples} answers")
    return 1.0 - comb(num_samples - num_right, k) / comb(num_samples, k)


def maj_at_k(votes: Sequence[str | None], is_right: Sequence[bool], k: int, seed: int = 0) -> float:
    """Share of draws of k answers whose most frequent one is right; of several as frequent, the mean.

    Args:
        votes: the answer that each text gives; None: it gives none and does not vote.
        is_right: whether it is right.

    Raises:
        ValueError: k above the number of answers.

    >>> maj_at_k(["7", "7", "8", None], [True, True, False, False], 4)
    1.0
    """
    num = len(votes)
    if not 0 < k <= num:
        raise ValueError(f"k is {k}, and there are {num} answers")
    if k == num:
        return _majority(votes, is_right, range(num))
    rng = np.random.default_rng([seed, num, k])
    draws = (rng.permutation(num)[:k] for _ in range(NUM_DRAWS))
    return sum(_majority(votes, is_right, draw.tolist()) for draw in draws) / NUM_DRAWS


def _majority(votes: Sequence[str | None], is_right: Sequence[bool], places: Sequence[int]) -> float:
    counts: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for place in places:
        vote = votes[place]
        if vote is not None:
            counts[vote] += 1
            right[vote] += is_right[place]
    if not counts:
        return 0.0
    most = max(counts.values())
    winners = [vote for vote, count in counts.items() if count == most]
    return sum(right[vote] / most for vote in winners) / len(winners)


def budgets(num_samples: int) -> list[int]:
    """1, 2, 4, ... up to the number of samples, and that number."""
    powers = [2**power for power in range(num_samples.bit_length()) if 2**power <= num_samples]
    return sorted({*powers, num_samples}) if num_samples else []
