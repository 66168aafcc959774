"""What an answer claims about a value that it mentions: denies it, takes it back, says another in its place.

A mention is a span (start, end) of tokens. All that follows is heuristic and speaks English first; negations and
conjunctions are known in German, French and Spanish too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from llmkit.knowledge.tokens import Token, words

Span = tuple[int, int]
_REACH = 15
"""Words that a negation reaches over."""

NEGATORS = words(
    "not never no neither nor cannot isnt wasnt arent werent aint dont doesnt didnt cant couldnt wont wouldnt hasnt "
    "havent hadnt without unlike except excluding wrong incorrect false nobody none nowhere "
    "nicht kein keine keiner keinen keinem niemals nie weder pas jamais ni aucun aucune nunca jamas tampoco"
)
_DENIALS = (("instead", "of"), ("rather", "than"), ("other", "than"), ("apart", "from"), ("different", "from"))
_AFFIRMED = (
    ("not", "only"),
    ("not", "just"),
    ("no", "doubt"),
    ("without", "doubt"),
    ("without", "a"),
    ("none", "other"),
    ("no", "other"),
    ("nicht", "nur"),
    ("pas", "seulement"),
    ("no", "solo"),
)
_COPULAS = {"is", "was", "are", "were", "ist", "war", "est", "etait", "es", "era"}
_DENYING_VERBS = words(
    "isnt wasnt arent werent doesnt didnt dont cannot cant couldnt wont wouldnt hasnt hadnt havent shouldnt never"
)
_DENYING = _DENYING_VERBS | words("not nor nicht kein keine keiner keinen nie niemals pas jamais nunca jamas")
_LACKING = words("no without except lack lacks lacked refuse refuses refused fail fails failed decline declined")
_AUXILIARIES = _COPULAS | words(
    "be been being do does did can could may might must will would shall should has have had still also certainly "
    "definitely actually really simply probably surely of course most"
)
_CLOSERS = {"correct", "right", "true", "it", "where", "who", "so", "possible", "accurate"}
_DENIED_ANSWER = _CLOSERS | {"answer", "solution", "one", "case"}
_MARKS = "\"'`*_)”“«»."
"""Marks around a name, and the point of `Inc.`, which end no clause."""
_SUBJECT_REACH = 4
"""Words between a subject and the `not` of its sentence, at most."""
_WRONG = {"wrong", "false", "incorrect", "untrue"}
OR = {"or", "oder", "ou", "o"}
AND = {"and", "und", "et", "y", "sowie"}
LEADS = words(
    "it its is was are were be been he she they we i you this that there these those his her their my the a an answer "
    "would could might may must will should think believe guess say said suppose know sure probably maybe perhaps "
    "possibly likely certainly definitely even also either both in at on from of near to by as around about between "
    "approximately roughly circa ca c exactly just called named known year city town country person name correct "
    "right yes well so then later if to be m s re ve"
)
_RETRACTIONS = {"no", "wait", "actually", "sorry", "correction", "nein", "non", "pardon"}
_RETRACTING = (("i", "mean"), ("i", "meant"), ("scratch", "that"), ("or", "rather"), ("make", "that"))


def sentence_starts(said: Sequence[Token]) -> list[int]:
    """Indices of tokens that begin a sentence or a line; 0 first."""
    return [i for i, token in enumerate(said) if i == 0 or token.opens == "sentence"]


def negates(said: Sequence[Token]) -> bool:
    """Whether a text holds a negation: `Which planet has no moons?`"""
    return any(token.text in _DENYING or token.text in _LACKING for token in said)


def negated(said: Sequence[Token], span: Span, *, asked_for_not: bool = False) -> bool:
    """Not Paris, never in Paris, instead of Paris; Paris is wrong, Paris is not it, Paris? No.

    Args:
        asked_for_not: the question holds a negation itself, so that `Mars is not a gas giant` may answer it.
    """
    start, end = span
    i = start
    while i > max(0, start - _REACH) and not said[i].opens:
        i -= 1
        word, after = said[i].text, said[i + 1].text
        numbered = word == "no" and said[i + 1].number is not None
        if word == "but" and i and said[i - 1].text in ("anything", "everything", "anywhere"):
            return True
        if (word in NEGATORS and (word, after) not in _AFFIRMED and not numbered) or (word, after) in _DENIALS:
            return True
    behind = [token.text for token in said[end : end + 4]]
    if not behind:
        return False
    if "?" in said[end].before and behind[0] in ("no", "nein", "non"):
        return True
    if said[end].before.strip(_MARKS):
        return False
    if behind[0] in _COPULAS and _WRONG.intersection(behind[1:3]):
        return True
    place = _denied_from(said, end)
    if place is None:
        return False
    if _DENIED_ANSWER.intersection(token.text for token in said[place + 1 : place + 4]):
        return True
    return not asked_for_not and _is_subject(said, start)


def _denied_from(said: Sequence[Token], end: int) -> int | None:
    """Place of the `not` that denies what is said of a subject (`Paris is of course not ...`); None: nothing does. In
    `Paris not London` and `Shakespeare wrote it not Marlowe` it denies what comes behind it."""
    for i in range(end, min(len(said), end + _SUBJECT_REACH)):
        token, after = said[i], said[i + 1] if i + 1 < len(said) else None
        if token.before.strip(_MARKS) or token.capital or token.kind != "word" or token.text in AND | OR:
            return None
        if token.text in _DENYING or (token.text == "no" and after and after.text in _COPULAS | {"longer"}):
            bare = token.text not in _DENYING_VERBS and (i == end or said[i - 1].text not in _AUXILIARIES)
            contrast = bare and (token.text != "no" and (i == end or after is None or after.capital))
            return None if contrast or (after and (token.text, after.text) in _AFFIRMED) else i
    return None


def _is_subject(said: Sequence[Token], start: int) -> bool:
    """Whether a mention is the first thing of an answer: an answer that begins with what something is not says less
    than one that gives it first and goes on about it (`It is Paris. Paris is not a small city.`)."""
    return all(token.text in LEADS for token in said[:start])


def last_word(said: Sequence[Token]) -> list[Token]:
    """What stands after the last retraction (`London. No, Paris.` -> `Paris`), if it holds a value of its own."""
    cut = 0
    for i in range(1, len(said)):
        pair = (said[i].text, said[i + 1].text if i + 1 < len(said) else "")
        opens = said[i].opens and said[i].text in _RETRACTIONS and pair not in _AFFIRMED
        if not opens and pair not in _RETRACTING:
            continue
        rest = said[i + 1 + (pair in _RETRACTING) :]
        if any(token.kind != "word" or token.capital for token in rest if token.text not in LEADS):
            cut = len(said) - len(rest)
    return list(said[cut:])


def covered_by(spans: Sequence[Span]) -> set[int]:
    return {i for start, end in spans for i in range(start, end)}


def contradicts(said: Sequence[Token], span: Span, accepted: Sequence[Span]) -> bool:
    """The same words with another value: `Born in Paris. Born in London.`; or bare values: `Paris. Rome.`"""
    starts = sentence_starts(said)
    low = max(start for start in starts if start <= span[0])
    own = said[span[0]]
    frame = [token.text for token in said[max(low, span[0] - 3) : span[0]]]
    texts = [token.text for token in said]
    covered = covered_by(accepted)
    size = len(frame)
    for i in range(len(said) - size):
        if not size or i == span[0] - size or texts[i : i + size] != frame:
            continue
        whole = size > 1 or i == 0 or said[i].opens == "sentence"
        if whole and _other_value(said, i + size, own, covered):
            return True
    return (
        not size
        and _bare(said, span[0], starts)
        and any(_other_value(said, start, own, covered) and _bare(said, start, starts) for start in starts)
    )


def _other_value(said: Sequence[Token], i: int, own: Token, covered: set[int]) -> bool:
    token = said[i]
    if i in covered or token.text in LEADS or not token.text or token.possessive:
        return False
    if own.kind != "word":
        return token.kind == own.kind and token.unit == own.unit
    return token.kind == "word" and token.capital and own.capital


def _bare(said: Sequence[Token], start: int, starts: Sequence[int]) -> bool:
    """Whether a sentence is nothing but a value."""
    place = bisect_right(starts, start)
    end = starts[place] if place < len(starts) else len(said)
    tokens = [token for token in said[start:end] if token.text]
    return 0 < len(tokens) <= 4 and all(token.capital or token.kind != "word" for token in tokens)
