"""Numbers of held-out sets before and after a stage, from the keys `heldout/<set>/<before|after>/<metric>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmkit.artifacts.manifest import Manifest
from llmkit.report.compare import Bounded, Change, unpaired
from llmkit.report.metrics import budget
from llmkit.report.numbers import count, interval, value

PREFIX = "heldout/"
WHEN = ("before", "after")
_COUNTS = {"num_pairs": "pairs", "num_problems": "problems"}
_SHARES = ("answered", "truncated")


@dataclass(frozen=True)
class Pair:
    before: Bounded | None = None
    after: Bounded | None = None

    @property
    def bounded(self) -> tuple[Bounded, Bounded] | None:
        return (self.before, self.after) if self.before and self.after else None


@dataclass(frozen=True)
class Told:
    """A number in words, with its interval; empty where nothing was measured."""

    text: str = ""
    bounds: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.bounds})" if self.bounds else self.text


@dataclass(frozen=True)
class HeldoutLine:
    """One number of one set, in words."""

    name: str
    size: str
    """What the set holds: `150 pairs`."""
    key: str
    before: Told
    after: Told
    change: Change | None
    is_share: bool
    beside: tuple[Told, ...] = ()
    """The same number after each control."""


def heldout_sets(made: Manifest) -> dict[str, dict[str, Pair]]:
    """Set -> metric -> its numbers."""
    found: dict[str, dict[str, Pair]] = {}
    for key, number in made.metrics.items():
        if (place := split(key)) is None:
            continue
        name, when, metric = place
        own = found.setdefault(name, {})
        bounded = Bounded(number, made.metrics.get(f"{key}_low"), made.metrics.get(f"{key}_high"))
        own[metric] = replace(own.get(metric, Pair()), **{when: bounded})
    return found


def split(key: str) -> tuple[str, str, str] | None:
    """(set, when, metric); None for other keys and for bounds of an interval."""
    parts = key.removeprefix(PREFIX).rsplit("/", 2)
    if not key.startswith(PREFIX) or len(parts) != 3 or parts[1] not in WHEN or key.endswith(("_low", "_high")):
        return None
    return parts[0], parts[1], parts[2]


def heldout_lines(made: Manifest, beside: Sequence[Manifest] = ()) -> list[HeldoutLine]:
    """`beside`: the controls'."""
    others = [heldout_sets(each) for each in beside]
    return [
        _line(name, metric, own, [other.get(name, {}) for other in others])
        for name, own in heldout_sets(made).items()
        for metric in own
        if metric not in _COUNTS
    ]


def is_share(metric: str) -> bool:
    return metric.endswith("accuracy") or metric in _SHARES or budget(metric) is not None


def size_of(own: Mapping[str, Pair]) -> str:
    """`150 pairs`."""
    sizes = [(own[key].after or own[key].before, noun) for key, noun in _COUNTS.items() if key in own]
    return next((f"{count(int(size.value))} {noun}" for size, noun in sizes if size), "")


def _line(name: str, metric: str, own: Mapping[str, Pair], others: Sequence[Mapping[str, Pair]]) -> HeldoutLine:
    pair, shares = own[metric], is_share(metric)
    return HeldoutLine(
        name=name,
        size=size_of(own),
        key=metric.replace("_", " "),
        before=_told(pair.before, shares),
        after=_told(pair.after, shares),
        change=unpaired(metric, *pair.bounded) if pair.bounded else None,
        is_share=shares,
        beside=tuple(_told(other.get(metric, Pair()).after, shares) for other in others),
    )


def _told(number: Bounded | None, shares: bool) -> Told:
    if number is None:
        return Told()
    return Told(value(number.value, shares), interval(number.low, number.high, shares))
