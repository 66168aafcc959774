"""A stage's plain numbers for readers: counts that belong together in one place, and nothing that stands elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmkit.artifacts.manifest import Manifest
from llmkit.report.numbers import count, interval, number, percent
from llmkit.report.words import fact

# Of refusal data: counts by what became of a question, a row, ...: `rows_answered` belongs to `rows`.
_WHOLES = ("rows", "questions", "entities", "pairs")
_TOTALS = {"rows": "num_rows", "questions": "questions"}
# Of an interrogation: the section on knowledge shows these.
_OF_PROBE = ("share_", "num_questions", "num_answers", "num_consistently_wrong", "num_undecided")
_HELDOUT, _WHEN = "heldout/", ("before", "after")


@dataclass(frozen=True)
class Figure:
    name: str
    value: str
    under: str = ""
    """What the figure is made of, or its interval."""


@dataclass(frozen=True)
class PairLine:
    """One number of a set of held-out preference pairs."""

    name: str
    key: str
    before: str
    after: str


def figures(made: Manifest) -> list[Figure]:
    metrics = {key: value for key, value in made.metrics.items() if not key.startswith(_HELDOUT)}
    if made.probe:
        metrics = {key: value for key, value in metrics.items() if not key.startswith(_OF_PROBE)}
    found = []
    if made.kind == "refusals":
        found = [figure for whole in _WHOLES if (figure := _parts(whole, metrics))]
    return [*found, *(_figure(key, value, metrics) for key, value in metrics.items() if not _is_told(key, made))]


def _parts(whole: str, metrics: Mapping[str, float]) -> Figure | None:
    """Those that are not zero, the largest first."""
    parts = {key.removeprefix(f"{whole}_"): value for key, value in metrics.items() if key.startswith(f"{whole}_")}
    if not parts:
        return None
    total = metrics.get(_TOTALS.get(whole, ""), sum(parts.values()))
    told = [f"{number(value)} {key.replace('_', ' ')}" for key, value in sorted(parts.items(), key=_size) if value]
    return Figure(whole, number(total), ", ".join(told))


def _size(item: tuple[str, float]) -> float:
    return -item[1]


def _is_told(key: str, made: Manifest) -> bool:
    """By a figure's parts, or as the bound of an interval."""
    if key.endswith(("_low", "_high")) and key.rpartition("_")[0] in made.metrics:
        return True
    return made.kind == "refusals" and (key in _TOTALS.values() or key.startswith(tuple(f"{w}_" for w in _WHOLES)))


def _figure(key: str, value: float, metrics: Mapping[str, float]) -> Figure:
    name, text = fact(key, value)
    low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
    is_share = key.endswith("accuracy")
    return Figure(name, percent(value) if is_share else text, interval(low, high, is_share))


def pair_lines(made: Manifest) -> list[PairLine]:
    """From `heldout/<set>/before/<key>`, as preference training writes them."""
    keys = [key.split("/") for key in made.metrics if key.startswith(_HELDOUT)]
    places = dict.fromkeys((parts[1], parts[3]) for parts in keys if len(parts) == 4)
    return [
        PairLine(name, key.replace("_", " "), *(_pair(f"{_HELDOUT}{name}/{when}/{key}", made) for when in _WHEN))
        for name, key in places
        if not key.endswith(("_low", "_high"))
    ]


def _pair(key: str, made: Manifest) -> str:
    if key not in made.metrics:
        return ""
    is_share = key.endswith("accuracy")
    value = made.metrics[key]
    text = percent(value) if is_share else count(int(value)) if key.endswith("num_pairs") else number(value)
    bounds = interval(made.metrics.get(f"{key}_low"), made.metrics.get(f"{key}_high"), is_share)
    return f"{text} ({bounds})" if bounds else text
