"""Documents cut into passages: at paragraphs where they fit, else at sentences, else at words, else anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

_PARAGRAPH = re.compile(r"\n\s*\n")
# also behind the full stops of Chinese and Japanese, which no blank follows
_SENTENCE = re.compile("(?<=[.!?])\\s+|(?<=[\u3002\uff01\uff1f])|\n")
_WORD = re.compile(r"\s+")


def passages(text: str, size: int, overlap: int) -> Iterator[str]:
    """Passages of at most `size` characters, in order; every word of the text is in one of them.

    Args:
        overlap: characters of whole pieces that a passage repeats from the end of the one before; below `size`.
    """
    held: list[tuple[str, str]] = []
    for joint, piece in _pieces(text, size, (_PARAGRAPH, "\n\n"), (_SENTENCE, " "), (_WORD, " ")):
        if held and _length(held) + len(joint) + len(piece) > size:
            yield _joined(held)
            held = _repeated(held, min(overlap, size - len(joint) - len(piece)))
        held.append((joint, piece))
    if held:
        yield _joined(held)


def _pieces(text: str, size: int, *ways: tuple[re.Pattern[str], str]) -> Iterator[tuple[str, str]]:
    """Pieces that fit, each with what joins it to the one before."""
    if not ways:
        yield from (("", text[start : start + size]) for start in range(0, len(text), size))
        return
    (border, joint), *finer = ways
    for piece in border.split(text):
        if len(piece) > size:
            yield from _pieces(piece, size, *finer)
        elif piece.strip():
            yield joint, piece.strip()


def _repeated(held: list[tuple[str, str]], room: int) -> list[tuple[str, str]]:
    """The last pieces that fit into the room."""
    start = len(held)
    while start > 0 and _length(held[start - 1 :]) <= room:
        start -= 1
    return held[start:]


def _length(held: list[tuple[str, str]]) -> int:
    return sum(len(joint) + len(piece) for joint, piece in held) - len(held[0][0])


def _joined(held: list[tuple[str, str]]) -> str:
    return "".join(joint + piece for joint, piece in held)[len(held[0][0]) :]
