"""The order in which problems are practised: shuffled anew for every round, by level where a curriculum says so.

All of it follows from the seed and from what was scored so far, so that every process draws the same problems, and a
stage that goes on from a checkpoint draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmkit.recipe.practice import CurriculumSpec

MEMORY = 0.95
"""Weight of the past in the running share of right answers, per group."""
ENOUGH = 16
"""Groups of a level that must have been scored before the next level opens."""


@dataclass
class Level:
    """How the policy fares on the problems of one level."""

    value: float
    share: float = 0.0
    num_groups: int = 0

    def add(self, share: float) -> None:
        """A running mean that forgets, and is a plain mean while there is little to forget."""
        self.num_groups += 1
        weight = max(1 - MEMORY, 1 / self.num_groups)
        self.share += weight * (share - self.share)


class PromptStream:
    """Numbers of problems, without end.

    Args:
        allowed: numbers of the problems that may be practised.
        levels: level of every problem (of all, not only the allowed ones), NaN for those that have none and are always
            practised; None: no curriculum.
    """

    def __init__(
        self,
        allowed: Sequence[int],
        seed: int,
        levels: Sequence[float] | np.ndarray | None = None,
        curriculum: CurriculumSpec | None = None,
    ) -> None:
        self.allowed = np.asarray(allowed, dtype=np.int64)
        self._seed, self._curriculum = seed, curriculum
        self._levels = None if levels is None or curriculum is None else np.asarray(levels, dtype=float)
        own = self._levels[self.allowed] if self._levels is not None else np.empty(0)
        known = np.unique(own[~np.isnan(own)]).tolist()
        self.levels = [Level(value) for value in known]
        self.num_open = min(1, len(known))
        self.round, self.num_drawn = 0, 0
        self._queue: list[int] = []
        self._begin_round()

    def next(self, count: int) -> list[int]:
        """The next problems."""
        found: list[int] = []
        while len(found) < count:
            if not self._queue:
                self.round += 1
                self._begin_round()
            found.append(self._queue.pop())
        self.num_drawn += count
        return found

    def score(self, problem: int, share: float) -> None:
        """Share of right answers of one group. May open the next level: its problems join from the next draw on."""
        if self._levels is None or self._curriculum is None or np.isnan(self._levels[problem]):
            return
        level = next(level for level in self.levels if level.value == self._levels[problem])
        level.add(share)
        hardest = self.levels[self.num_open - 1]
        opens = hardest.num_groups >= ENOUGH and hardest.share >= self._curriculum.unlock
        if level is hardest and opens and self.num_open < len(self.levels):
            self.num_open += 1
            self.round += 1
            self._begin_round()

    def state_dict(self) -> dict[str, Any]:
        """All that the next draw depends on, as JSON."""
        return {
            "round": self.round,
            "num_drawn": self.num_drawn,
            "num_open": self.num_open,
            "left": len(self._queue),
            "levels": [[level.value, level.share, level.num_groups] for level in self.levels],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round, self.num_drawn, self.num_open = state["round"], state["num_drawn"], state["num_open"]
        self.levels = [Level(*level) for level in state["levels"]]
        self._begin_round()
        del self._queue[state["left"] :]

    def _begin_round(self) -> None:
        open_ = self.allowed
        if self._levels is not None and self.levels:
            limit = self.levels[self.num_open - 1].value
            open_ = self.allowed[~(self._levels[self.allowed] > limit)]
        rng = np.random.default_rng([self._seed & (2**63 - 1), self.round])
        self._queue = rng.permutation(open_).tolist()
