"""Personal names in their variants: initials, middle names left out, surname first, surname alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmkit.knowledge.claims import LEADS, Span
from llmkit.knowledge.tokens import Token, words

_PARTICLES = words("van von der den de del della di da dos du la le bin ibn al el ter ten zu zur y")
_SUFFIXES = {"jr", "sr", "junior", "senior", "esq", "phd", "md"}
_TITLES = words(
    "mr mrs ms miss dr prof professor sir dame lord lady king queen prince princess emperor empress president senator "
    "pope saint general captain chancellor minister prime director actor actress"
)
_NOT_PERSONS = words(
    "new old los las san santa saint st real north south east west northern southern eastern western united great "
    "mount lake fort port el upper lower grand the city river county island islands university college school street "
    "war battle park house bank company band act court sea ocean bridge tower kingdom republic states union league "
    "club team football national international world order society museum church cathedral prize cup games"
)


_NOT_NAMES = LEADS | _TITLES | _PARTICLES | _SUFFIXES
_DOING = words("did does do has had between and from until during since")


def is_person(tokens: Sequence[Token]) -> bool:
    """Whether an accepted answer may be a personal name: two to five capital words with or without particles."""
    if not 2 <= len(tokens) <= 6 or any(token.text in _NOT_PERSONS for token in tokens):
        return False
    plain = all(token.kind == "word" or (token.weak and i) for i, token in enumerate(tokens))
    capital = all(token.capital or token.text in _PARTICLES or token.number is not None for token in tokens)
    return plain and capital and tokens[0].capital and not any(token.before.strip(".-") for token in tokens[1:])


def is_titled(tokens: Sequence[Token]) -> bool:
    return tokens[0].text in _TITLES


def without_titles(tokens: Sequence[Token]) -> tuple[Token, ...] | None:
    """`U.S. President John F. Kennedy` -> `John F. Kennedy`; None where no title stands before a name."""
    for i in reversed(range(min(3, len(tokens)))):
        if tokens[i].text in _TITLES and is_person(tokens[i + 1 :]):
            return tuple(tokens[i + 1 :])
    return None


def name_spans(
    name: Sequence[Token], said: Sequence[Token], alone: bool, asked: frozenset[str] = frozenset()
) -> Iterator[Span]:
    """Where a text has a variant of a name.

    Args:
        alone: the surname is enough if the text says nothing more, but for numbers and words of the question.
        asked: these words.
    """
    parts = _parts(name)
    if len(parts) < 2:
        return
    surname = parts[-1]
    for i, token in enumerate(said):
        if token.text != surname or token.kind != "word":
            continue
        if (start := _forenames(parts, said, i)) is not None:
            yield start, i + 1
        if (end := _behind(parts, said, i)) is not None:
            yield i, end
    if alone and (span := _nothing_more(name, said, asked)) is not None:
        yield span


def _parts(tokens: Sequence[Token]) -> list[str]:
    """`J. R. R. Tolkien Jr.` -> j, r, r, tolkien."""
    parts: list[str] = []
    for token in tokens:
        if token.text in _SUFFIXES or token.number is not None:
            continue
        letters = token.written.replace(".", "")
        initials = letters.isupper() and (len(letters) == 1 or "." in token.written or len(letters) == 2)
        parts.extend(token.text if initials else [token.text])
    return parts


def _forenames(parts: Sequence[str], said: Sequence[Token], surname: int) -> int | None:
    """Start of the forenames that stand in front of a surname and agree with the name."""
    start = surname
    while start > 0 and surname - start < 4 and said[start].before in ("", ".", "-"):
        before = said[start - 1]
        if before.kind != "word" or not (before.capital or before.text in _PARTICLES) or before.text in _TITLES:
            break
        start -= 1
    for begin in range(start, surname):
        if said[begin].capital and _agree(_parts(said[begin:surname]), parts[:-1]):
            return begin
    return None


def _behind(parts: Sequence[str], said: Sequence[Token], surname: int) -> int | None:
    """End of the forenames behind `Surname,`."""
    end = surname + 1
    if end >= len(said) or said[end].before != ",":
        return None
    while end < len(said) and end - surname < 5 and said[end].capital and (end == surname + 1 or not said[end].before):
        end += 1
    given = _parts(said[surname + 1 : end])
    return end if given and _agree(given, parts[:-1]) else None


def _agree(one: Sequence[str], other: Sequence[str]) -> bool:
    """First names agree, and the middle names of the shorter one stand in the longer one in their order."""
    if not one or not other or not _alike(one[0], other[0]):
        return False
    short, long = sorted((one[1:], other[1:]), key=len)
    rest = iter(long)
    return all(any(_alike(part, candidate) for candidate in rest) for part in short)


def _alike(one: str, other: str) -> bool:
    return one == other or (min(len(one), len(other)) == 1 and one[0] == other[0])


def _nothing_more(name: Sequence[Token], said: Sequence[Token], asked: frozenset[str]) -> Span | None:
    """The surname, if all else that is said are numbers, words of the question (`Shakespeare wrote it in 1600`) and
    whom it was not (`Shakespeare, not Marlowe`)."""
    surname = [token for token in name if token.text not in _SUFFIXES and token.number is None][-1].text
    if surname in asked:
        return None  # what only repeats the question answers nothing
    end = next((i for i, token in enumerate(said) if token.text == "not" and token.opens == "clause"), len(said))
    known = _NOT_NAMES | _DOING | asked
    kept = [i for i in range(end) if said[i].text and said[i].kind == "word" and said[i].text not in known]
    (i,) = kept if len(kept) == 1 else (-1,)
    if i < 0 or said[i].text != surname or _is_named(said, i - 1, i) or _is_named(said, i + 1, i + 1):
        return None
    return i, i + 1


def _is_named(said: Sequence[Token], i: int, second: int) -> bool:
    """Whether another name stands beside a surname: `Louis Armstrong` where Louis is a word of the question."""
    near = 0 <= i < len(said) and second < len(said) and said[second].before in ("", "-")
    return near and said[i].kind == "word" and said[i].capital and said[i].text not in _NOT_NAMES
