"""Whether a short answer gives one of the accepted answers. Rules, in one line each:

form        case, accents (ö = o = oe), punctuation, articles, hyphens and possessives do not count; words match whole
numbers     compare by value, with the unit if both name one; a reference with decimals takes a longer number that
            rounds to it
dates       an answer says at least what the reference says: a year alone is right only for a year
names       middle names may be left out or be initials, surnames may come first; a surname alone is right if the
            answer says nothing more than numbers and words of the question (`Shakespeare wrote it in 1600`)
short       `St.` is Saint, `USA` the United States; initials in capitals stand for a name that is no person's; a town
            may lack its region where a town is asked for
units       2 hours are 120 minutes, 8848 m are 29,029 feet: the same to the last of three digits or more
nouns       a plural is its singular; three words or more may stand in any order; `season two` is `second season`
sentences   the accepted answer may stand in a sentence, but not inside a longer name (`New York` is not `York`, `C++`
            not `C`, `American football` not `football`; an `American actor` is an actor)
negation    `not Paris`, `instead of Paris`, `Paris is wrong`, `Paris is not the capital` are wrong; the last is
            right for a question that holds a negation itself
hedging     several values of which not all are accepted are wrong: `Paris or London`, `5-7`, `A) Paris B) London`,
            three names in a row (but for a place within others up to its country), four common nouns; the last mention
            counts: `Paris or London, and I choose Paris`
retraction  what is said last counts: `London. No, Paris.`; two claims of the same form contradict each other
echo        an accepted answer that only repeats the question's words is not given
choice      where a question sets two numbers against each other, what the answer says of them must be so: `9.11 is
            larger than 9.9` is wrong (`llmkit.knowledge.comparing`)
nothing     where 0 is accepted as a count, `none`, `there is no "b"`, `it does not occur` say so
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Literal

from llmkit.knowledge.claims import LEADS, Span, contradicts, last_word, negated, negates
from llmkit.knowledge.comparing import Choice, choice_of, chooses_right, is_number
from llmkit.knowledge.counting import says_none
from llmkit.knowledge.lists import hedged, is_mark
from llmkit.knowledge.names import is_person, is_titled, name_spans
from llmkit.knowledge.references import (
    Reference,
    is_article,
    is_country,
    reference,
    spellings,
    without_articles,
    without_region,
)
from llmkit.knowledge.tokens import Token, plain, words
from llmkit.knowledge.units import same_measure, unit_asked_for
from llmkit.knowledge.values import read

Asked = Literal["person", "place", "other", ""]

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
_SHORT_REGION = 3
"""Letters."""
_COUNTRY_LETTERS = {"us", "usa", "uk", "uae", "ussr", "drc"}
_ASKS_PERSON = words("who whom whose wer wen wem qui quien quienes")
_ASKS_TOWN = words("city town capital village stadt hauptstadt ville ciudad capitale")
_ASKS_PLACE = _ASKS_TOWN | words(
    "where country state place county river continent birthplace location region province district wo land pays donde "
    "pais"
)
_ASKS_ROLE = words("do occupation profession job work living career trade role position beruf")
_ORIGINS = ("an", "ish", "ese")
"""Endings of adjectives of a country, by which they are known where a sentence begins."""


def is_correct(answer: str, accepted: Sequence[str], question: str = "") -> bool:
    """Whether `answer` commits to one of the accepted answers and to nothing that contradicts it.

    Args:
        question: tells whether a person or a place is asked for, and which words an answer may merely repeat.
    """
    references = _references(accepted, question)
    if (choice := _choice(references, question)) is not None:
        return is_number(answer, choice.right) or chooses_right(answer, choice)
    said = read(answer)
    if is_accepted(answer, accepted, question) or (_accepts_nothing(references) and says_none(said, question)):
        return True
    if verdict := _yes_or_no(said, references):
        return verdict == "yes"
    said = last_word(said)
    if _is_exact(said, references):
        return True
    asked_for, asked = _asked_for(question), read(question)
    asked_words = frozenset(token.text for token in asked)
    spans = sorted({span for found in references for span in _spans(found, said, asked_for, asked_words)})
    common = not any(token.capital for found in references for token in found.tokens)
    spans = [span for span in spans if not _embedded(said, span, asked_for, question)]
    if common and asked_for == "other" and not asked_words & _ASKS_ROLE:
        spans = [span for span in spans if not _of_a_kind(said, span)]
    spans = [span for span in spans if not _echoes(said, span, asked)]
    regions = [found for text in accepted if (found := without_region(reference(text).tokens)) is not None]
    if regions and asked_for == "place":
        spans = [span for span in spans if not _is_elsewhere(said, span, regions)]
    if not spans or any(negated(said, span, asked_for_not=negates(asked)) for span in spans):
        return False
    return not hedged(said, spans[-1], spans, places=asked_for in ("place", "")) and not any(
        contradicts(said, span, spans) for span in (spans[0], spans[-1])
    )


def is_accepted(answer: str, accepted: Sequence[str], question: str = "") -> bool:
    """Whether the answer is an accepted one and nothing more."""
    references = _references(accepted, question)
    if (choice := _choice(references, question)) is not None:
        return is_number(answer, choice.right)
    whole = _squeezed(answer)
    return bool(whole and whole in map(_squeezed, accepted)) or _is_exact(read(answer), references)


def _choice(references: Sequence[Reference], question: str) -> Choice | None:
    values = [found.value for found in references if found.value is not None and len(found.tokens) == 1]
    return choice_of(question, [value.number for value in values if value.number is not None and not value.unit])


def _accepts_nothing(references: Sequence[Reference]) -> bool:
    return any(found.value is not None and found.value.number == 0 for found in references)


def _references(accepted: Sequence[str], question: str) -> list[Reference]:
    unit = unit_asked_for(question)
    of_town = bool(_words_of(question) & _ASKS_TOWN)
    return [_in_unit(found, unit) for text in accepted for found in spellings(text, of_town=of_town)]


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
    kept = [token for token in without_articles(said) if token.text]
    words = tuple(token.text for token in kept)
    return any(words == found.texts and (found.value is None or _says(kept[0], found.value)) for found in references)


def _squeezed(text: str) -> str:
    """`Singer-Songwriter` = `singersongwriter`; "" for a text with digits or with `+` and `#`, where marks matter."""
    folded = plain(text).casefold()
    return (
        ""
        if any(char.isdigit() or char in "+#" for char in folded)
        else "".join(char for char in folded if char.isalpha())
    )


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
    words = _words_of(question)
    if not words:
        return ""
    return "person" if words & _ASKS_PERSON else "place" if words & _ASKS_PLACE else "other"


@lru_cache(maxsize=1024)
def _words_of(question: str) -> frozenset[str]:
    return words(plain(question).casefold().replace("?", " "))


def _spans(found: Reference, said: Sequence[Token], asked_for: Asked, asked_words: frozenset[str]) -> Iterator[Span]:
    """Where the answer mentions an accepted one."""
    if (value := found.value) is not None:
        yield from ((i, i + 1) for i, token in enumerate(said) if _says(token, value))
        return
    places = [i for i, token in enumerate(said) if token.text and not is_article(said, i)]
    words = [said[i].text for i in places]
    wanted = list(found.texts)
    size = len(wanted)
    for k in range(len(words) - size + 1):
        window = words[k : k + size]
        same = window[:-1] == wanted[:-1] and _same_noun(window[-1], wanted[-1])
        if same or (sorted(window) == sorted(wanted) and _may_turn(found, said[places[k]])):
            span = places[k], places[k + size - 1] + 1
            if _is_short_for(found, said, span):
                yield span
    if initials := found.initials:
        yield from ((i, i + 1) for i in range(len(said)) if _is_initialism(said, i, initials))
    if _unspaced(found.texts[0]):
        yield from ((i, i + 1) for i, token in enumerate(said) if "".join(found.texts) in token.text)
    if asked_for != "place" and is_person(found.tokens):
        titled = is_titled(found.tokens)  # `General Motors` is no general
        alone = asked_for == "person" or (not asked_for and not titled)
        yield from name_spans(found.tokens, said, alone=alone, asked=asked_words)


def _is_short_for(found: Reference, said: Sequence[Token], span: Span) -> bool:
    """Whether a country's initials are written in capitals (`us` is a pronoun), and a place that stands without its
    region does not begin a longer name."""
    after = said[span[1]] if span[1] < len(said) else None
    if len(found.tokens) == 1 and found.texts[0] in _COUNTRY_LETTERS and found.tokens[0].written.isupper():
        return _is_initialism(said, span[0], found.texts[0])
    if not found.region or after is None or not after.text:
        return True
    return bool(after.before) or not (after.capital or after.text in _NAMED_AFTER)


def _is_elsewhere(said: Sequence[Token], span: Span, regions: Sequence[Reference]) -> bool:
    """`Paris, Texas` where `Paris, France` is accepted. Countries and short words (`OR` for Oregon) may be other names
    of a region."""
    start, end = span
    texts = tuple(token.text for token in said[start:end])
    if end >= len(said) or said[end].before != "," or not said[end].capital or len(said[end].text) <= _SHORT_REGION:
        return False
    others = {token.text for token in said[end:]}
    own = [found.region for found in regions if found.texts == texts]
    return bool(own) and not is_country([said[end]]) and all(others.isdisjoint(region) for region in own)


def _is_initialism(said: Sequence[Token], i: int, initials: str) -> bool:
    token, after = said[i], said[i + 1] if i + 1 < len(said) else None
    written = token.text == initials and token.written.replace(".", "").isupper()
    return written and not (after and after.text and after.capital and after.before in ("", "-"))


def _says(token: Token, value: Token) -> bool:
    """Whether a token of the answer says all that a number or date of the reference says."""
    if value.dates:
        return any(own.within(date) for own in token.dates for date in value.dates)
    assert value.number is not None or value.kind == "word"
    if token.dates:
        year = int(value.number or 0)
        return value.number == year and not value.unit and any(own.year == year for own in token.dates)
    if token.number is None or value.number is None:
        return False
    if token.unit and value.unit and token.unit != value.unit:
        return same_measure(token.number, token.unit, value.number, value.unit)
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


def _of_a_kind(said: Sequence[Token], span: Span) -> bool:
    """Whether a common noun is part of a name of its own: `American football`, `Gaelic football`. Behind an article it
    is described: `a British politician`."""
    start = span[0]
    if not start or said[start].capital or said[start].kind != "word" or said[start].before:
        return False
    before = said[start - 1]
    opens = start == 1 or before.opens == "sentence"
    name = before.capital and before.kind == "word" and not before.possessive and before.text not in LEADS
    article = start > 1 and not before.opens and said[start - 2].text in ("a", "an", "the")
    return name and not article and (not opens or before.text.endswith(_ORIGINS))


def _echoes(said: Sequence[Token], span: Span, asked: Sequence[Token]) -> bool:
    """Whether a mention stands where the question has it: `The capital of Mexico is Oaxaca` does not say Mexico."""
    words = [token.text for token in said[span[0] : span[1]]]
    size = len(words)
    before = said[span[0] - 1].text if span[0] and not is_mark(said, span[0] - 1) else ""
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
