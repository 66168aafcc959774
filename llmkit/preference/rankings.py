"""What raters decided: one ranking, skip or flag of one item each.

rankings.jsonl    {"event": "decision", "id", "item", "version", "rater", "repeat", "shown", "groups", "skipped",
                   "flagged", "seconds", "time", "by"}
                  {"event": "undo", "id", "rater", "time"}        takes the decision with this id back

`groups` stand from best to worst; completions in one group are as good as each other. A ranking is complete: every
completion that was shown stands in one group.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from llmkit.errors import DataError, UserError
from llmkit.preference.rollouts import Item

LONGEST_NAME = 40
"""Characters of a person's name; a model or a function may be called whatever it is."""
LONGEST_REASON = 500
LONGEST_TURN = 7 * 24 * 3600.0
NAMED = 3
"""Prompts that a message names."""
Outcome = Literal["ranked", "skipped", "flagged"]
Id = TypeVar("Id", str, int)
Key = tuple[str, str, int]
"""Rater, item, repeat: what is decided once."""


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    id: str = Field(min_length=1, max_length=64)
    """Of a decision: made by the page, and the same when it is sent twice."""
    rater: str = Field(min_length=1)
    time: str
    """UTC, ISO 8601."""


class Decision(_Event):
    event: Literal["decision"] = "decision"
    item: str
    version: str
    """Of the item when it was shown."""
    repeat: int = Field(default=0, ge=0)
    """0: seen for the first time."""
    shown: tuple[str, ...] = Field(min_length=2)
    """Ids of the completions, in the order in which they were shown."""
    shown_again: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Of a judge that was asked twice: the second order. What it never saw stands last in both."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Best to worst; empty where nothing was ranked."""
    skipped: bool = False
    flagged: str = Field(default="", max_length=LONGEST_REASON)
    """Why the item should not be used; empty: it was not flagged."""
    seconds: float = Field(ge=0, le=LONGEST_TURN)
    by: str = "human"

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if bool(self.groups) + self.skipped + bool(self.flagged) != 1:
            raise ValueError("must be one of ranked, skipped and flagged")
        if self.groups:
            check_groups(self.groups, self.shown)
        if self.shown_again and sorted(self.shown_again) != sorted(self.shown):
            raise ValueError("shows other completions the second time")
        return self

    @property
    def key(self) -> Key:
        return self.rater, self.item, self.repeat

    @property
    def outcome(self) -> Outcome:
        return "ranked" if self.groups else "skipped" if self.skipped else "flagged"

    @property
    def ranks(self) -> dict[str, int]:
        """Completion -> place of its group, from 1."""
        return {id: place for place, group in enumerate(self.groups, start=1) for id in group}


class Undo(_Event):
    event: Literal["undo"] = "undo"


Event = Annotated[Decision | Undo, Field(discriminator="event")]
EVENT: TypeAdapter[Decision | Undo] = TypeAdapter(Event)


def check_groups(groups: Sequence[Sequence[Id]], shown: Sequence[Id]) -> None:
    """Raises ValueError unless every completion stands in one group, and no other does."""
    placed = [id for group in groups for id in group]
    if unknown := sorted(set(placed) - set(shown)):
        raise ValueError(f"ranks completions that were not shown: {', '.join(map(str, unknown))}")
    if missing := sorted(set(shown) - set(placed)):
        raise ValueError(f"leaves completions without a rank: {', '.join(map(str, missing))}")
    if len(placed) > len(set(placed)) or len(shown) > len(set(shown)):
        raise ValueError("ranks a completion twice")
    if not all(groups):
        raise ValueError("has an empty group")


def clean_name(name: str) -> str:
    """A person's name as it is kept: one spelling of equal letters, single blanks. Raises UserError for a bad one."""
    cleaned = " ".join(unicodedata.normalize("NFC", name).split())
    if not cleaned or len(cleaned) > LONGEST_NAME or not cleaned.isprintable():
        raise UserError("rater", "is no name", f"give 1 to {LONGEST_NAME} printable characters")
    return cleaned


@dataclass(frozen=True)
class Standing:
    """What counts of all that was decided."""

    decisions: dict[Key, Decision]
    """In the order in which they were made."""
    undone: dict[str, Decision]
    """What was taken back, by id, in the order of the undos."""
    stale: tuple[Decision, ...]
    """Of items that are not there any more, or whose texts have changed since."""

    def of(self, rater: str) -> list[Decision]:
        return [decision for decision in self.decisions.values() if decision.rater == rater]

    def taken_back(self, rater: str) -> list[Decision]:
        """What a rater took back and has not decided again, the last one first."""
        own = [decision for decision in self.undone.values() if decision.rater == rater]
        return [decision for decision in reversed(own) if decision.key not in self.decisions]

    @property
    def raters(self) -> list[str]:
        return sorted({rater for rater, _, _ in self.decisions})

    def told_stale(self) -> str:
        """`3 rankings are of answers that are not there any more (prompts p3, p7, p9)`; empty for none."""
        if not self.stale:
            return ""
        names = list(dict.fromkeys(decision.item for decision in self.stale))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        prompts = f"{'prompt' if len(names) == 1 else 'prompts'} {', '.join(names[:NAMED])}{more}"
        return f"{len(self.stale)} rankings are of answers that are not there any more ({prompts})"


def standing(
    events: Iterable[Decision | Undo],
    items: Mapping[str, Item],
    place_of: Callable[[Decision], str] = lambda _: "rankings",
) -> Standing:
    """Folds events in their order: an undo takes back, and of two decisions on one thing the later counts.

    Args:
        place_of: where a decision stands, for messages.

    Raises:
        DataError: a decision ranks other completions than its item has.
    """
    kept: dict[str, Decision] = {}
    undone: dict[str, Decision] = {}
    for event in events:
        if isinstance(event, Decision):
            kept[event.id] = event
        elif event.id in kept:
            undone[event.id] = kept.pop(event.id)
    decisions: dict[Key, Decision] = {}
    stale = []
    for decision in kept.values():
        item = items.get(decision.item)
        if item is None or item.version != decision.version:
            stale.append(decision)
            continue
        _check_ids(decision, item, place_of)
        decisions.pop(decision.key, None)
        decisions[decision.key] = decision
    return Standing(decisions, undone, tuple(stale))


def _check_ids(decision: Decision, item: Item, place_of: Callable[[Decision], str]) -> None:
    if sorted(decision.shown) != sorted(item.texts):
        shown, has = (", ".join(sorted(ids)) for ids in (decision.shown, item.texts))
        what = f"decision {decision.id} on item {item.id!r} ranks {shown}, and the item has {has}"
        raise DataError(place_of(decision), what, "remove the line from the rankings")
