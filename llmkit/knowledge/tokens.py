"""Tokens of short answers, and text without what does not count in them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Literal

MAX_CHARS = 4000


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def text_file(name: str) -> str:
    """What `texts/<name>.txt` holds."""
    return (files("llmkit.knowledge") / "texts" / f"{name}.txt").read_text(encoding="utf-8")


_LETTERS = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "ħ": "h", "\u0131": "i"}
    | dict.fromkeys("\u2018\u2019`\u00b4\u02bc\u02bb\u2032", "'")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
    | dict.fromkeys("\u00ae\u2122", " ")
    | {"\u00ad": ""}
)


@dataclass(frozen=True)
class Date:
    """A day, a month or a year; None where the text does not say. Years before Christ are negative."""

    year: int | None = None
    month: int | None = None
    day: int | None = None

    def within(self, other: Date) -> bool:
        """Whether this date says all that `other` says."""
        pairs = ((other.year, self.year), (other.month, self.month), (other.day, self.day))
        return all(theirs is None or theirs == own for theirs, own in pairs)


@dataclass(frozen=True)
class Token:
    text: str
    """Canonical: casefolded, without accents; digits for numbers."""
    before: str
    """What stands between the previous token and this one, without spaces at its ends (a new line is kept)."""
    capital: bool = False
    """Begins with a capital letter as it was written."""
    possessive: bool = False
    number: Decimal | None = None
    dates: tuple[Date, ...] = ()
    """Readings of a date: 4/7/1776 has two."""
    unit: str = ""
    """Canonical unit of a number."""
    weak: bool = False
    """A number word that often is none: one, first, second, third."""
    written: str = ""
    """As it was written, without accents."""
    ordinal: bool = False
    opens: Literal["", "clause", "sentence"] = ""
    """What begins with this token."""

    @property
    def kind(self) -> str:
        return "number" if self.number is not None else "date" if self.dates else "word"


def plain(text: str) -> str:
    """NFKC, without accents on Latin letters and invisible characters; one kind of apostrophe and of hyphen."""
    text = unicodedata.normalize("NFKC", text[:MAX_CHARS].translate(_LETTERS)).translate(_LETTERS)
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    text = "".join(char for char in unicodedata.normalize("NFD", text) if not "\u0300" <= char <= "\u036f")
    return unicodedata.normalize("NFC", text)
