"""A recipe in the making: what is taken from the foreign file, and the account of what became of each key."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from llmkit.errors import Problem, RecipeError
from llmkit.importing.foreign import Foreign, Loc, as_number, dotted, leaves

Fate = Literal["mapped", "renamed", "listed"]
_EMPTY: tuple[Any, ...] = (None, {}, [], "")


@dataclass(frozen=True)
class Entry:
    """What became of one key. `to` is its place in the recipe; `why` says what llmkit does instead."""

    key: str
    fate: Fate
    to: str = ""
    why: str = ""


@dataclass(frozen=True)
class Options:
    """What a person says who imports."""

    stage: str | None = None
    num_processes: int | None = None
    allow_unknown: bool = False
    accelerate: str | None = None
    """The Accelerate config that it was launched with."""
    target: str = ""
    """Path of the recipe, as it will be named on the command line."""


@dataclass
class Draft:
    """One stage with its model and run."""

    foreign: Foreign
    options: Options
    kind: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    stage: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    added: list[Entry] = field(default_factory=list)
    """Settings that the foreign file does not write: its program's defaults, where llmkit's are others."""
    files: dict[str, str] = field(default_factory=dict)
    """Files beside the recipe: name -> text."""
    notes: list[Entry] = field(default_factory=list)
    """Places of the recipe that a person should look at before it runs, and why."""
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left: dict[Loc, None] = dict.fromkeys(leaves(self.foreign.data))
        for loc in list(self.left):
            if self.value(loc) in _EMPTY:
                self.listed(loc, "is empty: nothing to set")

    @property
    def given(self) -> dict[str, Any]:
        return self.foreign.data

    def value(self, loc: Loc) -> Any:
        """What stands at a place of the file."""
        value: Any = self.given
        for part in loc:
            value = value[part]
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the file; the default where it is empty."""
        value = self.given.get(key)
        return default if value is None or value == "" else value

    def number(self, key: str, default: float) -> float:
        """A value that must be a number. Raises RecipeError."""
        value = as_number(self.get(key, default))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise RecipeError([Problem(self.place((key,)), f"must be a number, got {value!r:.80}")])
        return value

    def count(self, key: str, default: int) -> int:
        """A value that must be a whole number above 0. Raises RecipeError."""
        value = self.number(key, default)
        if value != int(value) or value < 1:
            raise RecipeError([Problem(self.place((key,)), f"must be a whole number above 0, got {value!r}")])
        return int(value)

    def place(self, loc: Loc) -> str:
        return f"{self.foreign.where(loc)}: {dotted(loc)}" if loc else str(self.foreign.path)

    def refuse(self, loc: Loc, what: str, cure: str = "") -> RecipeError:
        """The error to raise about a key."""
        return RecipeError([Problem(self.place(loc), what, cure)])

    def account(self, loc: Loc, fate: Fate, to: str = "", why: str = "") -> None:
        """Say what became of a key and of all under it. What is accounted for already stays so."""
        for leaf in [leaf for leaf in self.left if leaf[: len(loc)] == loc]:
            del self.left[leaf]
            inside = dotted(leaf[len(loc) :])
            self.entries.append(Entry(dotted(leaf), fate, f"{to}.{inside}" if to and inside else to, why))

    def moved(self, loc: Loc, to: str, why: str = "") -> None:
        """A key whose value stands in the recipe at `to`."""
        same = str(loc[-1]) == to.rpartition(".")[2] and not why
        self.account(loc, "mapped" if same else "renamed", to, why)

    def listed(self, loc: Loc, why: str) -> None:
        self.account(loc, "listed", "", why)

    def note(self, to: str, why: str) -> None:
        """Something of the recipe to check before it runs."""
        self.notes.append(Entry("", "listed", to, why))

    def list_all(self, reasons: dict[str, str]) -> None:
        """Top-level keys with one reason each, where they are there."""
        for key, why in reasons.items():
            if key in self.given:
                self.listed((key,), why)

    def list_absent(self, reasons: dict[str, str]) -> None:
        """As `list_all`, of features that llmkit does not have: where one is switched off, that is the reason."""
        off = [key for key in reasons if key in self.given and self.given[key] is False]
        self.list_all({**reasons, **dict.fromkeys(off, "false: it is off")})

    def list_families(self, reasons: dict[str, str]) -> None:
        """Top-level keys that begin with one of these. Args: reasons: first letters -> reason."""
        for start, why in reasons.items():
            self.list_absent({key: why for key in self.given if key.startswith(start)})

    def set_trainer(self, key: str, value: Any, loc: Loc | None = None, why: str = "") -> None:
        """An option of the trainer, from a key of the file (`loc`) or from its program's default."""
        self.stage.setdefault("trainer", {})[key] = value
        to = f"trainer.{key}"
        if loc is None:
            said = str(value).lower() if isinstance(value, bool) else str(value)
            self.added.append(Entry(said, "mapped", to, why))
        else:
            self.moved(loc, to, why)

    def default_trainer(self, **values: Any) -> None:
        """Defaults of the other program, where the file says nothing and llmkit's or TRL's differ."""
        for key, value in values.items():
            if key not in self.stage.get("trainer", {}):
                self.set_trainer(key, value, None, "the default there")
