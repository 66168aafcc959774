"""Which item a rater sees next, and its completions in which order.

All raters meet the items in one order, so that two who stop early have ranked the same ones and can be compared. The
completions are shuffled by seed, rater, item and repeat: no place in the list belongs to a model. Some items come
again later in another order, which shows how far raters agree with themselves. A new item hardly changes which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from random import Random

from llmkit.preference.rankings import Decision, Key
from llmkit.preference.rollouts import Item

GAP = 5
"""Items between the two showings of one, where there are as many."""


@dataclass(frozen=True)
class Turn:
    """One showing of one item to one rater."""

    item: Item
    rater: str
    repeat: int
    shown: tuple[str, ...]

    @property
    def key(self) -> Key:
        return self.rater, self.item.id, self.repeat

    @property
    def name(self) -> str:
        """What the page calls it: says neither the item nor that it comes again."""
        text = "\0".join((self.item.version, *map(str, self.key), *self.shown))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def turns(items: Sequence[Item], rater: str, seed: int, repeat: float) -> list[Turn]:
    """All turns of a rater in their order.

    Args:
        repeat: share of the items that come twice; any above 0 means at least one, if there are two items.
    """
    order = sorted(items, key=lambda item: _random(seed, item.id).random())
    drawn = [_two(_random(seed, rater, item.id, "repeat")) for item in order]
    again = _repeats(drawn, ceil(repeat * len(order)))
    placed = [(float(index), showing(item, rater, 0, seed)) for index, item in enumerate(order)]
    placed += [(later - 0.5, showing(order[index], rater, 1, seed)) for index, later in again]
    return [turn for _, turn in sorted(placed, key=lambda each: each[0])]


def _two(random: Random) -> tuple[float, float]:
    return random.random(), random.random()


def _repeats(drawn: Sequence[tuple[float, float]], num: int) -> list[tuple[int, int]]:
    """(item, how many first showings stand before its second one), at least GAP later where there are as many.

    The lowest first numbers come again, so that one new item replaces one repeat at most.
    """
    num_items = len(drawn)
    gap = min(GAP, num_items - 1)
    num_early = max(num_items - gap, 1)
    candidates = sorted(range(num_items - 1), key=lambda index: (index >= num_early, drawn[index]))
    firsts = [(index, min(index + 1 + gap, num_items)) for index in candidates[:num]]
    return [(index, first + int(drawn[index][1] * (num_items + 1 - first))) for index, first in firsts]


def showing(item: Item, rater: str, repeat: int, seed: int) -> Turn:
    """`repeat`: 0 the first time, another order of the completions at each later one."""
    ids = sorted(item.texts)
    shown = _shuffled(ids, _random(seed, rater, item.id, 0))
    if repeat:
        before, random = shown, _random(seed, rater, item.id, repeat)
        while shown == before:
            shown = _shuffled(ids, random)
    return Turn(item, rater, repeat, tuple(shown))


def _shuffled(ids: list[str], random: Random) -> list[str]:
    return random.sample(ids, len(ids))


def _random(*of: object) -> Random:
    """Random numbers that depend on nothing else: a text seeds the same ones everywhere."""
    return Random(repr(of))


def asked(queue: Sequence[Turn], decisions: Mapping[Key, Decision]) -> list[Turn]:
    """The turns that are to be decided: what was skipped or flagged does not come again."""
    firsts = {turn.item.id: decisions.get((turn.rater, turn.item.id, 0)) for turn in queue}
    dropped = {item for item, decision in firsts.items() if decision is not None and not decision.groups}
    return [turn for turn in queue if not turn.repeat or turn.item.id not in dropped]
