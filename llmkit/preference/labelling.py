"""Rankings by a function that scores completions, with the mistakes that people make.

A rater sees every score through noise of its own and orders what it sees. Gumbel noise of one scale makes that the
Plackett-Luce model (Luce 1959, Yellott 1977): of two completions the better one comes first with the chance
1 / (1 + exp(-difference / scale)).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from llmkit.preference.rankings import Decision
from llmkit.preference.rollouts import Item

_STEPS = 60
Scores = Sequence[float]
"""Of the completions of one item, in its order."""


def noise_scale(scores: Sequence[Scores], noise: float) -> float:
    """Scale at which a share `noise` of all pairs with different scores comes out the wrong way round on average.

    Raises:
        ValueError: no two completions of an item differ in score.
    """
    if not noise:
        return 0.0
    gaps_P = np.concatenate([_gaps(np.asarray(each, dtype=float)) for each in scores])
    if not len(gaps_P):
        raise ValueError("no two completions of a prompt differ in score")
    low, high = 0.0, 1e6 * float(gaps_P.max())
    for _ in range(_STEPS):
        # halves the ratio: scores may be of any size
        middle = float(np.sqrt(max(low, 1e-9 * float(gaps_P.min())) * high))
        wrong = float(np.mean(1 / (1 + np.exp(np.minimum(gaps_P / middle, 700)))))
        low, high = (middle, high) if wrong < noise else (low, middle)
    return high


def _gaps(scores_K: np.ndarray) -> np.ndarray:
    """Differences of all pairs that differ, (P,), positive."""
    all_KK = np.abs(scores_K[:, None] - scores_K[None, :])[np.triu_indices(len(scores_K), 1)]
    return np.asarray(all_KK[all_KK > 0])


def ranked(
    items: Sequence[Item], scores: Sequence[Scores], *, scale: float, rater: str, seed: int, seconds: float = 0.0
) -> Iterator[Decision]:
    """A rater's decisions, the same for the same seed, rater and item. Equal scores without noise are ties.

    Args:
        seconds: that scoring an item took.
    """
    for item, own in zip(items, scores, strict=True):
        yield _decision(item, own, scale, rater, seed, seconds)


def _decision(item: Item, scores: Scores, scale: float, rater: str, seed: int, seconds: float) -> Decision:
    name = hashlib.sha256(f"{seed} {rater} {item.id} {item.version}".encode()).hexdigest()
    rng = np.random.default_rng(int(name[:16], 16))
    ids = list(item.texts)
    seen = np.asarray(scores, dtype=float) + (scale * rng.gumbel(size=len(ids)) if scale else 0.0)
    groups: dict[float, list[str]] = {}
    for place in np.argsort(-seen, kind="stable"):
        groups.setdefault(float(seen[place]), []).append(ids[place])
    return Decision(
        id=name[:24],
        rater=rater,
        time="",
        item=item.id,
        version=item.version,
        shown=tuple(ids),
        groups=tuple(tuple(group) for group in groups.values()),
        seconds=seconds,
        by="labeller",
    )


def right_share(items: Sequence[Item], scores: Sequence[Scores], decisions: Sequence[Decision]) -> float | None:
    """Share of the ordered pairs that a model of the scores has right; None: there is no such pair. Of two equal scores
    noise makes an order that nobody can know: half right."""
    num_right, num_pairs = 0.0, 0
    for item, own, decision in zip(items, scores, decisions, strict=True):
        values = dict(zip(item.texts, own, strict=True))
        ranks = decision.ranks
        for better in ranks:
            for worse in ranks:
                if ranks[better] < ranks[worse]:
                    num_pairs += 1
                    num_right += 1.0 if values[better] > values[worse] else 0.5 * (values[better] == values[worse])
    return num_right / num_pairs if num_pairs else None
