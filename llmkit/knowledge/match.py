"""Whether a short answer gives one of the accepted answers. Rules, in one line each:

form        case, accents (ö = o = oe), punctuation, articles, hyphens and possessives do not count; words match whole
numbers     compare by value, with the unit if both name one; a reference with decimals takes a longer number that
            rounds to it
dates       an answer says at least what the reference says: a year alone is right only for a year
names       middle names may be left out or be initials, surnames may come first; a surname alone is right if the
            answer says nothing more
nouns       a plural is its singular; three words or more may stand in any order; `season two` is `second season`
sentences   the accepted answer may stand in a sentence, but not inside a longer name (`New York` is not `York`)
negation    `not Paris`, `instead of Paris`, `Paris is wrong` are wrong
hedging     several values of which not all are accepted are wrong: `Paris or London`, `5-7`, lists of four; the last
            mention counts: `Paris or London, and I choose Paris`
retraction  what is said last counts: `London. No, Paris.`; two claims of the same form contradict each other
echo        an accepted answer that only repeats the question's words is not given
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Literal

from llmkit.knowledge.claims import LEADS, Span, contradicts, hedged, last_word, negated
from llmkit.knowledge.names import is_person, is_titled, name_spans, without_titles
from llmkit.knowledge.tokens import MAX_CHARS, Token, plain, words
from llmkit.knowledge.values import read, unit_asked_for

Asked = Literal["person", "place", "other", ""]

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
_YES_NO = {"yes": "yes", "no": "no", "true": "yes", "false": "no", "ja": "yes", "nein": "no", "oui": "yes", "non": "no"}
_PARTS = words(
    "new old north south east west northern southern eastern western saint st san santa papua equatorial upper lower "
    "port fort mount vice deputy assistant non anti pseudo"
)
_NAMED_AFTER = words(
    "city county river lake bay island islands street road avenue airport university college school museum fc united "
    "rovers state province district valley beach desert sea ocean"
)
_PLAIN_BEFORE = LEADS | words(
    "central downtown greater inner city town ancient modern imperial beautiful nearby answer"
)
_ASKS_PERSON = words("who whom whose wer wen wem qui quien quienes")
_ASKS_PLACE = words(
    "where city country town capital state place county river continent wo stadt land ville pays donde ciudad pais"
)


@dataclass(frozen=True)
class Reference:
    """An accepted answer, read."""

    tokens: tuple[Token, ...]

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


@lru_cache(maxsize=4096)
def reference(text: str) -> Reference:
    tokens = [token for token in read(text) if token.text]
    kept = [token for token in tokens if token.text not in _IGNORABLE or token.capital]
    if len(kept) == 1 and kept[0].kind != "word":
        return Reference((kept[0],))
    dates = [token for token in tokens if token.text not in _IGNORABLE]  # `14 December 1972 UTC`
    if len(dates) == 1 and dates[0].kind == "date":
        return Reference((dates[0],))
    return Reference(tuple(_without_articles(tokens)))


def is_correct(answer: str, accepted: Sequence[str], question: str = "") -> bool:
    """Whether `answer` commits to one of the accepted answers and to nothing that contradicts it.

    Args:
        question: tells whether a person or a place is asked for, and which words an answer may merely repeat.
    """
    references = _references(accepted, question)
    said = read(answer)
    if is_accepted(answer, accepted, question):
        return True
    if verdict := _yes_or_no(said, references):
        return verdict == "yes"
    said = last_word(said)
    if _is_exact(said, references):
        return True
    asked_for = _asked_for(question)
    spans = sorted({span for found in references for span in _spans(found, said, asked_for)})
    spans = [span for span in spans if not _embedded(said, span, asked_for, question)]
    if question:
        asked = read(question)
        spans = [span for span in spans if not _echoes(said, span, asked)]
    if not spans or any(negated(said, span) for span in spans):
        return False
    return not hedged(said, spans[-1], spans) and not any(
        contradicts(said, span, spans) for span in (spans[0], spans[-1])
    )


def is_accepted(answer: str, accepted: Sequence[str], question: str = "") -> bool:
    """Whether the answer is an accepted one and nothing more."""
    whole = _squeezed(answer)
    return bool(whole and whole in map(_squeezed, accepted)) or _is_exact(read(answer), _references(accepted, question))


def _references(accepted: Sequence[str], question: str) -> list[Reference]:
    unit = unit_asked_for(question)
    return [_in_unit(found, unit) for text in accepted for found in _spellings(text) if found.tokens]


def _spellings(text: str) -> list[Reference]:
    """The reference, and variants of it: digraphs for umlauts, without a parenthesis or titles at its ends."""
    bare = re.sub(r"(?<=\w)\s*\([^()]*\)\s*$", "", text[:MAX_CHARS])
    found = {reference(each): None for each in (text, text.translate(_UMLAUTS), bare)}
    for each in list(found):
        if (untitled := without_titles(each.tokens)) is not None:
            found[Reference(untitled)] = None
    return list(found)


def _in_unit(found: Reference, unit: str) -> Reference:
    """A number without a unit is in the one that the question names."""
    value = found.value
    if not unit or value is None or value.kind != "number" or value.unit or len(found.tokens) > 1:
        return found
    return Reference((replace(value, unit=unit),))


def contradictory(accepted: Sequence[str]) -> bool:
    """Whether accepted answers exclude each other: two numbers of one unit, two dates, yes and no."""
    values = [value for text in accepted if (value := reference(text).value) is not None]
    answers = {
        _YES_NO[found.texts[0]] for found in map(reference, accepted) if found.texts and found.texts[0] in _YES_NO
    }
    return len(answers) > 1 or any(
        _excludes(one, other) for i, one in enumerate(values[:100]) for other in values[i + 1 : 100]
    )


def _excludes(one: Token, other: Token) -> bool:
    if one.unit != other.unit and one.kind == other.kind == "number":
        return False
    if _short_year(one, other) or _short_year(other, one):
        return False
    return not (_says(one, other) or _says(other, one))


def _short_year(one: Token, other: Token) -> bool:
    """`81` beside `1981` is the same year."""
    if one.number is None or other.number is None or one.unit or other.unit:
        return False
    return (
        1000 <= one.number < 2100 and other.text.isdigit() and len(other.text) == 2 and one.number % 100 == other.number
    )


def _is_exact(said: Sequence[Token], references: Sequence[Reference]) -> bool:
    kept = [token for token in _without_articles(said) if token.text]
    words = tuple(token.text for token in kept)
    return any(words == found.texts and (found.value is None or _says(kept[0], found.value)) for found in references)


def _squeezed(text: str) -> str:
    """`Singer-Songwriter` = `singersongwriter`; "" for a text with digits, where marks between them matter."""
    folded = plain(text).casefold()
    return "" if any(char.isdigit() for char in folded) else "".join(char for char in folded if char.isalpha())


def _without_articles(tokens: Sequence[Token]) -> list[Token]:
    return [token for i, token in enumerate(tokens) if not _is_article(tokens, i)]


def _is_article(tokens: Sequence[Token], i: int) -> bool:
    """An article stands before a word; the A of `Vitamin A` or of `A & M` is none."""
    article = tokens[i].text in _ARTICLES and (not tokens[i].capital or i == 0 or tokens[i].text != "a")
    return article and i + 1 < len(tokens) and tokens[i + 1].text not in ("", "and")


def _may_turn(found: Reference, first: Token) -> bool:
    """Whether the words of a reference mean the same in another order."""
    return len(found.texts) >= 3 or (found.tokens[-1].number is not None and first.ordinal)


def _yes_or_no(said: Sequence[Token], references: Sequence[Reference]) -> str:
    wanted = {_YES_NO[found.texts[0]] for found in references if len(found.texts) == 1 and found.texts[0] in _YES_NO}
    if len(wanted) != 1:
        return ""
    first = _YES_NO.get(said[0].text) if said else None
    return "" if first is None else "yes" if first in wanted else "no"


def _asked_for(question: str) -> Asked:
    words = set(plain(question).casefold().replace("?", " ").split())
    if not words:
        return ""
    return "person" if words & _ASKS_PERSON else "place" if words & _ASKS_PLACE else "other"


def _spans(found: Reference, said: Sequence[Token], asked_for: Asked) -> Iterator[Span]:
    """Where the answer mentions an accepted one."""
    if (value := found.value) is not None:
        yield from ((i, i + 1) for i, token in enumerate(said) if _says(token, value))
        return
    places = [i for i, token in enumerate(said) if token.text and not _is_article(said, i)]
    words = [said[i].text for i in places]
    wanted = list(found.texts)
    size = len(wanted)
    for k in range(len(words) - size + 1):
        window = words[k : k + size]
        same = window[:-1] == wanted[:-1] and _same_noun(window[-1], wanted[-1])
        if same or (sorted(window) == sorted(wanted) and _may_turn(found, said[places[k]])):
            yield places[k], places[k + size - 1] + 1
    if _unspaced(found.texts[0]):
        yield from ((i, i + 1) for i, token in enumerate(said) if "".join(found.texts) in token.text)
    if asked_for != "place" and is_person(found.tokens):
        titled = is_titled(found.tokens)  # `General Motors` is no general
        yield from name_spans(found.tokens, said, alone=asked_for == "person" or (not asked_for and not titled))


def _says(token: Token, value: Token) -> bool:
    """Whether a token of the answer says all that a number or date of the reference says."""
    if value.dates:
        return any(own.within(date) for own in token.dates for date in value.dates)
    assert value.number is not None or value.kind == "word"
    if token.dates:
        year = int(value.number or 0)
        return value.number == year and not value.unit and any(own.year == year for own in token.dates)
    if token.number is None or value.number is None or (value.unit and token.unit and value.unit != token.unit):
        return False
    return token.number == value.number or _rounds(token.number, value.number)


def _rounds(number: Decimal, to: Decimal) -> bool:
    """3.14159 is right for 3.14; 52 is not right for 50."""
    places = to.normalize().as_tuple().exponent
    if not isinstance(places, int) or places >= 0:
        return False
    return number.quantize(to.normalize(), rounding=ROUND_HALF_UP) == to


def _same_noun(one: str, other: str) -> bool:
    """Equal but for a plural ending."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    return len(short) >= 4 and long in (short + "s", short + "es") and not short.endswith("s")


def _unspaced(word: str) -> bool:
    """Chinese, Japanese, Thai and the like are written without spaces."""
    return any("\u0e00" <= char <= "\u0eff" or "\u3040" <= char <= "\u9fff" for char in word)


def _embedded(said: Sequence[Token], span: Span, asked_for: Asked, question: str) -> bool:
    """Whether a mention is part of a longer name that means something else."""
    start, end = span
    first, last = said[start], said[end - 1]
    if first.kind != "word":
        return False
    if start and first.before in ("", "-"):
        before = said[start - 1]
        if before.text in _PARTS and (before.capital or not first.capital):
            return True
        opens = start == 1 or before.opens == "sentence"
        plain_word = before.text in _PLAIN_BEFORE or before.possessive or (opens and before.text.endswith("ly"))
        if asked_for == "place" and first.capital and before.capital and before.kind == "word" and not plain_word:
            return True
    if end >= len(said) or said[end].before not in ("", "-") or not said[end].text or last.possessive:
        return False
    after = said[end]
    if end - start == 1 and after.text in _NAMED_AFTER and (after.capital or not first.capital):
        return after.text not in {token.text for token in read(question)}
    if after.number is not None and first.capital and 1 < after.number < 100 and not after.unit:
        return True
    single = end - start == 1 and first.capital
    return single and asked_for == "person" and after.capital and after.kind == "word" and after.text not in LEADS


def _echoes(said: Sequence[Token], span: Span, asked: Sequence[Token]) -> bool:
    """Whether a mention stands where the question has it: `The capital of Mexico is Oaxaca` does not say Mexico."""
    words = [token.text for token in said[span[0] : span[1]]]
    size = len(words)
    before = said[span[0] - 1].text if span[0] else ""
    after = said[span[1]].text if span[1] < len(said) else ""
    choice = any(token.text in ("or", "oder", "ou", "o") for token in asked)
    content = {
        token.text
        for token in asked
        if token.text and token.text not in LEADS | _ASKS_PERSON | {"which", "what", "or", "and"}
    }
    for i in range(len(asked) - size + 1):
        if [token.text for token in asked[i : i + size]] != words:
            continue
        same = before and i and before == asked[i - 1].text
        if same and (not choice or before in content):
            return True
        if after in content - set(words) and i + size < len(asked) and asked[i + size].text == after:
            return True
    return False
