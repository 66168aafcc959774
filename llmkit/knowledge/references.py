"""Accepted answers, read, and other spellings of them.

Ö = Oe                     digraphs for umlauts
X (film) = X               without a parenthesis at its end
President Y = Y            without titles
Saint P. = St. P.          words that are often shortened in names, first or last
United States = USA        a few countries under names that are no variants of each other
United Nations = UN        initials in capitals, where the name is no person's
Z, Region = Z              a town without its region, where a town is asked for
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from llmkit.knowledge.names import is_person, without_titles
from llmkit.knowledge.tokens import MAX_CHARS, Token, text_file, words
from llmkit.knowledge.values import read

_ARTICLES = {"the", "a", "an"}
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})
_IGNORABLE = {
    *_ARTICLES,
    "utc",
    "gmt",
    "on",
    "in",
    "at",
    "circa",
    "ca",
    "c",
    "about",
    "around",
    "approximately",
} | words("monday tuesday wednesday thursday friday saturday sunday")


def _others(*groups: str) -> dict[str, list[str]]:
    """Word -> the other words of its group."""
    found = [group.split() for group in groups]
    return {word: [other for other in group if other != word] for group in found for word in group}


_SHORT_FIRST = _others("saint st sankt", "sainte ste", "mount mt", "fort ft", "doctor dr")
_SHORT_LAST = _others("street st", "avenue ave", "road rd", "boulevard blvd")
_COUNTRIES = (
    ("United States of America", "United States", "USA", "US"),
    ("United Kingdom of Great Britain and Northern Ireland", "United Kingdom", "UK"),
    ("United Arab Emirates", "UAE"),
    ("Union of Soviet Socialist Republics", "Soviet Union", "USSR"),
    ("Democratic Republic of the Congo", "DR Congo", "DRC"),
    ("Czech Republic", "Czechia"),
)
"""A single word of these stands for its country only in capitals: `us` is none."""


@dataclass(frozen=True)
class Reference:
    """An accepted answer, read."""

    tokens: tuple[Token, ...]
    region: frozenset[str] = frozenset()
    """Words of the region that was left out behind a place."""

    @property
    def value(self) -> Token | None:
        """Its number or date, if it is nothing else."""
        if len(self.tokens) == 1 and self.tokens[0].kind != "word":
            return self.tokens[0]
        first = self.tokens[0] if self.tokens else None
        counted = first is not None and first.number is not None and not first.weak and len(self.tokens) <= 2
        return first if counted and not self.tokens[1].capital and not self.tokens[1].before else None

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(token.text for token in self.tokens)

    @property
    def initials(self) -> str:
        """Of a name of two words or more that may be no person's, in lower case; "" for anything else."""
        if is_person(self.tokens) or any(token.kind != "word" for token in self.tokens):
            return ""
        letters = "".join(token.text[0] for token in self.tokens if token.capital and token.text)
        return letters if len(letters) > 1 else ""


@lru_cache(maxsize=4096)
def reference(text: str) -> Reference:
    tokens = [token for token in read(text) if token.text]
    kept = [token for token in tokens if token.text not in _IGNORABLE or token.capital]
    if len(kept) == 1 and kept[0].kind != "word":
        return Reference((kept[0],))
    dates = [token for token in tokens if token.text not in _IGNORABLE]  # `14 December 1972 UTC`
    if len(dates) == 1 and dates[0].kind == "date":
        return Reference((dates[0],))
    return Reference(tuple(without_articles(tokens)))


@lru_cache(maxsize=4096)
def spellings(text: str, *, of_town: bool = False) -> tuple[Reference, ...]:
    """The reference and its variants.

    Args:
        of_town: a town is asked for, which may be named without its region.
    """
    bare = re.sub(r"(?<=\w)\s*\([^()]*\)\s*$", "", text[:MAX_CHARS])
    found = {reference(each): None for each in (text, text.translate(_UMLAUTS), bare)}
    for each in list(found):
        if (untitled := without_titles(each.tokens)) is not None:
            found[Reference(untitled)] = None
        for shortened in _shortened(each.tokens):
            found[Reference(shortened)] = None
        for name in _names_of_country(each):
            found[reference(name)] = None
        if of_town and (town := without_region(each.tokens)) is not None:
            found[town] = None
    return tuple(each for each in found if each.tokens)


def _shortened(tokens: tuple[Token, ...]) -> Iterator[tuple[Token, ...]]:
    """`Saint Petersburg` -> `St Petersburg`, `St Petersburg` -> `Saint Petersburg`, `Wall Street` -> `Wall St`."""
    if len(tokens) < 2:
        return
    for place, others in ((0, _SHORT_FIRST), (len(tokens) - 1, _SHORT_LAST)):
        for other in others.get(tokens[place].text, ()) if tokens[place].capital else ():
            yield (*tokens[:place], replace(tokens[place], text=other), *tokens[place + 1 :])


def _names_of_country(found: Reference) -> tuple[str, ...]:
    texts = " ".join(found.texts)
    capitals = all(token.capital for token in found.tokens if token.text not in ("of", "and"))
    written = len(found.texts) > 1 or (found.tokens and found.tokens[0].written.replace(".", "").isupper())
    groups = (names for names in _COUNTRIES if texts in {name.casefold() for name in names})
    return next(groups, ()) if capitals and written else ()


def without_region(tokens: Sequence[Token]) -> Reference | None:
    """`Portland, Oregon` -> `Portland`."""
    places = [i for i, token in enumerate(tokens) if i and token.before == ","]
    if len(places) != 1 or any(token.kind != "word" or not token.capital for token in tokens):
        return None
    (place,) = places
    return Reference(tuple(tokens[:place]), frozenset(token.text for token in tokens[place:]))


def is_country(tokens: Sequence[Token]) -> bool:
    """Whether this is the name of a country or a continent."""
    return tuple(token.text for token in without_articles(tokens) if token.text) in _country_names()


@lru_cache
def _country_names() -> frozenset[tuple[str, ...]]:
    return frozenset(reference(line).texts for line in text_file("countries").splitlines())


def without_articles(tokens: Sequence[Token]) -> list[Token]:
    return [token for i, token in enumerate(tokens) if not is_article(tokens, i)]


def is_article(tokens: Sequence[Token], i: int) -> bool:
    """An article stands before a word; the A of `Vitamin A` or of `A & M` is none."""
    article = tokens[i].text in _ARTICLES and (not tokens[i].capital or i == 0 or tokens[i].text != "a")
    return article and i + 1 < len(tokens) and tokens[i + 1].text not in ("", "and")
