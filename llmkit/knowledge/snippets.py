"""Documents cut into snippets that questions can be written about, and a sample of snippets from a stream."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple, TypeVar

from llmkit.knowledge.split import is_unicode, words

T = TypeVar("T")
Span = tuple[int, int]

MIN_WORDS = 4
"""A fragment with fewer different words ("See also", "Yours, Anna") states nothing that can be asked."""
MIN_LETTERS = 0.5
"""Share of letters among letters and digits; below it a fragment is a table or a list of numbers."""

_LONGEST_HEADING = 200
_HEADING = re.compile(r"(=+) ?[^=].*\1|(?:= )+[^=].*(?: =)+|#{1,6} .+")
_BLANK_LINE = re.compile(r"(?<=\S)[^\S\n]*\n[^\S\n]*\n\s*")
_LINE_END = re.compile(r"(?<=\S)[^\S\n]*\n\s*")
_SPACE = re.compile(r"(?<=\S)\s+")
_SPACE_OR_MARK = re.compile(r"(?<=[.!?…\"'”\u2019»)\]])\s+(?=\S)|(?<=[。\uff01\uff1f।])(?=[^\s。\uff01\uff1f।」』”)])")
_CLOSERS = " \"'”\u2019»)]」』"
_ABBREVIATION = re.compile(
    r"(?:\A|[\s(\"'.])(?:[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Nos?|vs|cf|ca|approx|etc|al|Figs?|"
    r"Vol|Inc|Ltd|Co|Corp|Mt|Ft|pp|eds?)\.\Z"
)
_WINDOW = 16


class Snippet(NamedTuple):
    text: str
    where: str
    """`file:line` of its document."""


def snippets(text: str, max_chars: int, dropped: Counter[str] | None = None) -> list[str]:
    """Pieces of a document in its order, each as it stands there, at most `max_chars` characters long.

    Paragraphs (between blank lines) that fit together stay together, but no snippet reaches over a heading. A longer
    paragraph is cut between lines, a longer line between sentences, and a longer sentence between words.

    Args:
        dropped: gets a count of the pieces that hold no facts: "heading", "too few words", "mostly numbers", and
            "broken text" (lone surrogates).
    """
    dropped = Counter() if dropped is None else dropped
    kept = []
    for section in _sections(text, dropped):
        for start, end in _packed(text, section, max_chars, 0):
            if reason := _why_no_facts(text[start:end]):
                dropped[reason] += 1
            else:
                kept.append(text[start:end])
    return kept


def reservoir(items: Iterable[T], num: int, seed: int) -> list[T]:
    """`num` items of a stream of any length, in its order, each as likely as any other; all of a shorter one.

    Holds `num` items at a time (Vitter 1985, algorithm R).
    """
    rng = random.Random(seed)
    drawn: list[tuple[int, T]] = []
    for index, item in enumerate(items):
        if index < num:
            drawn.append((index, item))
        elif (place := rng.randrange(index + 1)) < num:
            drawn[place] = (index, item)
    return [item for _, item in sorted(drawn, key=lambda pair: pair[0])]


def _why_no_facts(piece: str) -> str:
    if not is_unicode(piece):
        return "broken text"
    letters, digits = sum(map(str.isalpha, piece)), sum(map(str.isdigit, piece))
    if not letters or letters < MIN_LETTERS * (letters + digits):
        return "mostly numbers"
    return "too few words" if len(set(words(piece))) < MIN_WORDS else ""


def _sections(text: str, dropped: Counter[str]) -> Iterator[Span]:
    """What stands between headings, without the blanks around it."""
    start = place = 0
    for line in text.splitlines(keepends=True):
        if len(line) <= _LONGEST_HEADING and _HEADING.fullmatch(line.strip()):
            dropped["heading"] += 1
            yield from _trimmed(text, start, place)
            start = place + len(line)
        place += len(line)
    yield from _trimmed(text, start, place)


def _packed(text: str, span: Span, max_chars: int, level: int) -> Iterator[Span]:
    """A span that fits, or else its parts: neighbours joined while they fit, long ones cut one level deeper."""
    if span[1] - span[0] <= max_chars:
        yield span
        return
    if level == len(_BORDERS):
        yield from ((start, min(start + max_chars, span[1])) for start in range(*span, max_chars))
        return
    held: Span | None = None
    for part in _parts(text, span, level):
        if held and part[1] - held[0] <= max_chars:
            held = held[0], part[1]
            continue
        if held:
            yield held
        held = part
        if part[1] - part[0] > max_chars:
            yield from _packed(text, part, max_chars, level + 1)
            held = None
    if held:
        yield held


def _parts(text: str, span: Span, level: int) -> Iterator[Span]:
    cuts = [border for match in _BORDERS[level].finditer(text, *span) if (border := _border(text, match, level))]
    for (_, start), (end, _) in pairwise([(span[0], span[0]), *cuts, (span[1], span[1])]):
        yield from _trimmed(text, start, end)


def _border(text: str, match: re.Match[str], level: int) -> Span | None:
    if _BORDERS[level] is _SPACE_OR_MARK and match[0] and not _ends_sentence(text, match):
        return None
    return match.span()


def _ends_sentence(text: str, space: re.Match[str]) -> bool:
    """Whether a sentence ends before this space: a mark that ends no abbreviation, and no small letter behind it."""
    behind = text[space.end()]
    before = text[max(0, space.start() - _WINDOW) : space.start()].rstrip(_CLOSERS)
    if not before.endswith((".", "!", "?", "…")) or behind.islower() or behind in _CLOSERS + ",;:":
        return False
    return not _ABBREVIATION.search(before)


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    piece = text[start:end]
    if bare := piece.strip():
        begin = start + len(piece) - len(piece.lstrip())
        yield begin, begin + len(bare)


_BORDERS = (_BLANK_LINE, _LINE_END, _SPACE_OR_MARK, _SPACE)
