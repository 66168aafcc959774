"""How far raters agree, with themselves and with each other: Kendall's tau of two rankings of one item.

tau-b     Kendall 1945, Biometrika 33, 239: 1 the same order, 0 no relation, -1 reversed; ties count for neither side.
          A ranking in which all are equal has no order and so no tau.
ceiling   what a model of a rater's taste can reach, from how far the rater's two looks agree: `agreement_ceiling`.

Intervals are over items, since the pairs of one item depend on each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt

from llmkit.intervals import mean_interval
from llmkit.preference.rankings import Decision

Ranks = Mapping[str, int]
SEED = 0
FEWEST = 5
"""Items that an interval takes: resamples of fewer hardly differ, so that it would be too narrow."""
CONTRADICTS = 0.2
"""Tau of two raters who agree, at least: of two who each err in a quarter of the pairs it is 0.25."""


@dataclass(frozen=True)
class Agreement:
    """Of two rankings of each of several items."""

    tau: float | None
    """Mean over the items where both rankings have an order."""
    low: float | None
    high: float | None
    """95 % interval of `tau`; None for few items."""
    num_items: int
    num_no_order: int
    """Items that `tau` leaves out: one of the two rankings holds all completions equal."""
    num_same: int
    """Pairs of completions that both put in the same order, of `num_pairs`."""
    num_pairs: int
    """Pairs of completions that neither ties."""


@dataclass(frozen=True)
class Ceiling:
    """What a perfect model of a rater's taste, or of what raters have in common, can reach."""

    share: float
    """Of the rater's pairs, in the rater's order."""
    low: float
    high: float
    """95 % interval of `share`."""
    num_items: int
    """That were looked at twice and hold a pair which neither look ties."""


@dataclass(frozen=True)
class Contradiction:
    """A rater, and how far he is from those whom he contradicts."""

    rater: str
    tau: float
    """Mean over these raters."""
    num_items: int
    """Pairs of rankings of one item."""


def tau_b(first: Ranks, second: Ranks) -> float | None:
    """None where one of the two has no order. scipy has it too, and takes a second to import for these few pairs.

    >>> tau_b({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 2})
    0.3333333333333333
    """
    signs = _signs(first, second)
    ordered_first, ordered_second = sum(a != 0 for a, _ in signs), sum(b != 0 for _, b in signs)
    if not ordered_first or not ordered_second:
        return None
    return sum(a * b for a, b in signs) / sqrt(ordered_first * ordered_second)


def _signs(first: Ranks, second: Ranks) -> list[tuple[int, int]]:
    return [(_sign(first[a] - first[b]), _sign(second[a] - second[b])) for a, b in combinations(sorted(first), 2)]


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def agreement(pairs: Sequence[tuple[Ranks, Ranks]]) -> Agreement:
    """Of the two rankings of every item."""
    taus = [tau for first, second in pairs if (tau := tau_b(first, second)) is not None]
    both = [a * b for first, second in pairs for a, b in _signs(first, second) if a and b]
    low, high = _interval(taus)
    return Agreement(
        tau=sum(taus) / len(taus) if taus else None,
        low=low,
        high=high,
        num_items=len(pairs),
        num_no_order=len(pairs) - len(taus),
        num_same=sum(product > 0 for product in both),
        num_pairs=len(both),
    )


def agreement_ceiling(share: float) -> float:
    """Share of pairs in which a perfect model of a rater's taste agrees with one look, from that of two looks.

    Each look errs in a share q of the pairs, independently: two agree in share = (1 - q)^2 + q^2, the model with one in
    1 - q = (1 + sqrt(2 share - 1)) / 2. Looks that agree no more than by chance (one half) give one half. Where
    some pairs are harder than others, or the second look remembers the first, less can be reached than this.

    >>> agreement_ceiling(0.625)
    0.75
    """
    return (1 + sqrt(max(0.0, 2 * share - 1))) / 2


def _interval(taus: list[float]) -> tuple[float | None, float | None]:
    """On the scale from 0 to 1, where taus that are all 1 or -1 are a share and have an interval of some width."""
    found = mean_interval([(tau + 1) / 2 for tau in taus], SEED) if len(taus) >= FEWEST else None
    return (2 * found[0] - 1, 2 * found[1] - 1) if found else (None, None)


def contradicting(decisions: Sequence[Decision]) -> list[Contradiction]:
    """Raters who surely rank otherwise than most of the others: the whole interval of their tau with these lies below
    CONTRADICTS. Of two raters who contradict each other both are named."""
    raters = sorted({each.rater for each in decisions})
    pairs = {frozenset(both): between(decisions, *both) for both in combinations(raters, 2)}
    found = []
    for rater in raters:
        known = [each for both, each in pairs.items() if rater in both and each.high is not None]
        against = [each for each in known if each.high is not None and each.high < CONTRADICTS]
        if 2 * len(against) > len(known):
            taus = [each.tau for each in against if each.tau is not None]
            found.append(Contradiction(rater, sum(taus) / len(taus), sum(each.num_items for each in against)))
    return found


def _first_looks(decisions: Iterable[Decision]) -> dict[str, dict[str, Ranks]]:
    """Item -> rater -> ranks."""
    found: dict[str, dict[str, Ranks]] = {}
    for each in decisions:
        if each.groups and not each.repeat:
            found.setdefault(each.item, {})[each.rater] = each.ranks
    return found


def with_oneself(decisions: Iterable[Decision], rater: str) -> Agreement:
    """Of one rater's two rankings of the items that came twice."""
    return agreement(_two_looks(decisions, rater))


def ceiling(decisions: Iterable[Decision], rater: str) -> Ceiling | None:
    """From one rater's two rankings of the items that came twice; None for few items."""
    return _ceiling([[both] for both in _two_looks(decisions, rater)])


def ceilings(decisions: Sequence[Decision]) -> dict[str, Ceiling]:
    """Of all raters together: `between_raters`, where two looks at an item are those of two raters, so that what they
    like differently counts as error, and `with_oneself`. Without those for which there are few items."""
    raters = sorted({each.rater for each in decisions})
    own = [[both] for rater in raters for both in _two_looks(decisions, rater)]
    others = [list(combinations(each.values(), 2)) for each in _first_looks(decisions).values()]
    found = {"between_raters": _ceiling(others), "with_oneself": _ceiling(own)}
    return {name: each for name, each in found.items() if each is not None}


def _ceiling(items: Iterable[Sequence[tuple[Ranks, Ranks]]]) -> Ceiling | None:
    """From all pairs of looks at each item."""
    looks = [[a * b > 0 for both in pairs for a, b in _signs(*both) if a and b] for pairs in items]
    shares = [sum(same) / len(same) for same in looks if same]
    found = mean_interval(shares, SEED) if len(shares) >= FEWEST else None
    if found is None:
        return None
    share, low, high = (agreement_ceiling(each) for each in (sum(shares) / len(shares), *found))
    return Ceiling(share, low, high, len(shares))


def _two_looks(decisions: Iterable[Decision], rater: str) -> list[tuple[Ranks, Ranks]]:
    own = {(each.item, each.repeat): each.ranks for each in decisions if each.rater == rater and each.groups}
    return [(own[item, 0], ranks) for (item, repeat), ranks in own.items() if repeat and (item, 0) in own]


def between(decisions: Iterable[Decision], first: str, second: str) -> Agreement:
    """Of two raters' first rankings of the items that both have ranked."""
    ranks = {(each.rater, each.item): each.ranks for each in decisions if each.groups and not each.repeat}
    shared = [item for rater, item in ranks if rater == first and (second, item) in ranks]
    return agreement([(ranks[first, item], ranks[second, item]) for item in shared])
