"""What an answer claims about a value that it mentions: denies it, offers it among others, takes it back.

A mention is a span (start, end) of tokens. All that follows is heuristic and speaks English first; negations and
conjunctions are known in German, French and Spanish too.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from llmkit.knowledge.tokens import Token, words

Span = tuple[int, int]
_REACH = 15
"""Words that a negation reaches over."""

_NEGATORS = words(
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
_NOT_COPULAS = {"isnt", "wasnt", "arent", "werent"}
_CLOSERS = {"correct", "right", "true", "it", "where", "who", "so", "possible", "accurate"}
_WRONG = {"wrong", "false", "incorrect", "untrue"}
_OR = {"or", "oder", "ou", "o"}
_AND = {"and", "und", "et", "y", "sowie"}
_SAME_THING = {"so", "more", "less", "rather", "simply", "just", "formally", "officially", "aka", "known"}
LEADS = words(
    "it its is was are were be been he she they we i you this that there these those his her their my the a an answer "
    "would could might may must will should think believe guess say said suppose know sure probably maybe perhaps "
    "possibly likely certainly definitely even also either both in at on from of near to by as around about between "
    "approximately roughly circa ca c exactly just called named known year city town country person name correct "
    "right yes well so then later if to be m s re ve"
)
_LEADS_OR_NOT = LEADS | _NEGATORS
_LEADS_OR_SAME = LEADS | _SAME_THING
_RETRACTIONS = {"no", "wait", "actually", "sorry", "correction", "nein", "non", "pardon"}
_RETRACTING = (("i", "mean"), ("i", "meant"), ("scratch", "that"), ("or", "rather"), ("make", "that"))


def sentence_starts(said: Sequence[Token]) -> list[int]:
    """Indices of tokens that begin a sentence or a line; 0 first."""
    return [i for i, token in enumerate(said) if i == 0 or token.opens == "sentence"]


def negated(said: Sequence[Token], span: Span) -> bool:
    """Not Paris, never in Paris, instead of Paris; Paris is wrong, Paris? No."""
    start, end = span
    i = start
    while i > max(0, start - _REACH) and not said[i].opens:
        i -= 1
        word, after = said[i].text, said[i + 1].text
        numbered = word == "no" and said[i + 1].number is not None
        if word == "but" and i and said[i - 1].text in ("anything", "everything", "anywhere"):
            return True
        if (word in _NEGATORS and (word, after) not in _AFFIRMED and not numbered) or (word, after) in _DENIALS:
            return True
    behind = [token.text for token in said[end : end + 4]]
    if not behind:
        return False
    if "?" in said[end].before and behind[0] in ("no", "nein", "non"):
        return True
    if said[end].before:
        return False
    if behind[0] in _COPULAS:
        denied = behind[1:2] == ["not"] and bool(_CLOSERS.intersection(behind[2:]))
        return denied or bool(_WRONG.intersection(behind[1:3]))
    return behind[0] in _NOT_COPULAS and bool(_CLOSERS.intersection(behind[1:3]))


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


def hedged(said: Sequence[Token], span: Span, accepted: Sequence[Span]) -> bool:
    """Paris or London; Paris and London; Paris, London, Rome, Berlin. Names of a place within another (`Paris, France`)
    and a few common nouns in a row (`actor and director`) are one answer."""
    items = list(_items(said, span))
    covered = _covered(accepted)
    own = next(k for k, (start, end, _) in enumerate(items) if start <= span[0] < end)
    extras: list[str] = []
    others = 0
    for step in (1, -1):
        k = own
        while 0 <= k + step < len(items):
            if step < 0 and k == own and not _bare_start(said, items[k][0], span[0]):
                break  # a clause of its own: `..., and I choose Paris`
            joiner = items[max(k, k + step)][2]
            k += step
            start, end, _ = items[k]
            if not covered.isdisjoint(range(start, end)):
                others += 1
                extras.append("same")
                continue
            if not _rivals(said, (start, end), span, joiner, at_end=step < 0):
                break
            extras.append(joiner)
        extras.append("end")
    if _starts_with_or(said, span):
        extras.append("or")
    joiners = [joiner for joiner in extras if joiner not in ("same", "end")]
    common = said[span[0]].kind == "word" and not said[span[0]].capital
    if "or" in joiners:
        return True
    if common:
        return len(joiners) >= 3 and len(joiners) > others + 1
    if said[span[0]].kind != "word":
        return bool(joiners)
    return "and" in joiners or len(joiners) >= 3


def _items(said: Sequence[Token], span: Span) -> Iterator[tuple[int, int, str]]:
    """Items of the sentence around a mention: start, end, and what joins each to the one before: `or`, `and`, `,`."""
    starts = sentence_starts(said)
    low = max(start for start in starts if start <= span[0])
    high = min([start for start in starts if start >= span[1]] or [len(said)])
    start, joiner = low, ""
    i = low
    while i < high:
        if span[0] < i < span[1] or i == low:
            i += 1
            continue
        token = said[i]
        word = "or" if token.text in _OR or _is_range(said, i) else "and" if token.text in _AND else ""
        mark = "or" if re.search(r"[/|]", token.before) else "," if re.search(r"[,(]", token.before) else ""
        if token.kind != "word" and token.before in ("-", "--") and said[i - 1].kind == token.kind:
            mark = "or"  # a range
        elif token.kind != "word" and not token.before and said[i - 1].kind == token.kind:
            mark = ","
        if word or mark:
            if i > start:
                yield start, i, joiner
                joiner = ""
            strongest = [found for found in ("or", "and", ",") if found in (joiner, word, mark)]
            joiner, start = strongest[0], i + bool(word)
        i += 1
    yield start, max(high, start), joiner


def _is_range(said: Sequence[Token], i: int) -> bool:
    """`3 to 7`: two values and a word between them."""
    if said[i].text not in ("to", "through", "until", "bis") or i + 1 >= len(said):
        return False
    return said[i - 1].kind != "word" and said[i - 1].kind == said[i + 1].kind


def _covered(spans: Sequence[Span]) -> set[int]:
    return {i for start, end in spans for i in range(start, end)}


def _bare_start(said: Sequence[Token], start: int, mention: int) -> bool:
    between = said[start : max(start, mention)]
    return all(token.text in _LEADS_OR_NOT or token.capital or token.kind != "word" for token in between)


def _starts_with_or(said: Sequence[Token], span: Span) -> bool:
    """`Paris. Or London.`"""
    after = [start for start in sentence_starts(said) if start >= span[1]]
    end = after[1] if len(after) > 1 else len(said)
    return bool(after) and said[after[0]].text in _OR and _rivals(said, (after[0] + 1, end), span, "or")


def _rivals(said: Sequence[Token], item: Span, span: Span, joiner: str, at_end: bool = False) -> bool:
    """Whether an item is a value of the same kind as the mention.

    Args:
        at_end: the item stands before the mention, so that its value is the last thing in it: `he was born in 1902`.
    """
    tokens = [token for token in said[item[0] : item[1]] if token.text]
    first_own = said[span[0]]
    if at_end and tokens:
        begin = len(tokens) - 1
        while begin and (tokens[begin].capital and tokens[begin - 1].capital and not tokens[begin].before):
            begin -= 1
        alone = [token for token in tokens if token.text not in LEADS]
        tokens = tokens[begin:] if first_own.capital or first_own.kind != "word" or joiner == "or" else alone
    while tokens and (tokens[0].text in _LEADS_OR_SAME):
        if tokens[0].text in _SAME_THING and joiner == "or":
            return False
        tokens = tokens[1:]
    if not tokens or tokens[0].text in _NEGATORS:
        return False
    first = tokens[0]
    if first_own.kind != "word":
        return first.kind != "word" and (not first.unit or first.unit == first_own.unit or first_own.kind == "date")
    if first.kind != "word":
        return False
    if joiner == "or":
        return first.capital == first_own.capital and (first.capital or len(tokens) <= 4)
    if first_own.capital:
        named = sum(token.capital for token in tokens)
        return first.capital and not first.possessive and named >= len(tokens) - 1 and len(tokens) <= 5
    return not any(token.capital for token in tokens) and len(tokens) <= 3


def contradicts(said: Sequence[Token], span: Span, accepted: Sequence[Span]) -> bool:
    """The same words with another value: `Born in Paris. Born in London.`; or bare values: `Paris. Rome.`"""
    starts = sentence_starts(said)
    low = max(start for start in starts if start <= span[0])
    own = said[span[0]]
    frame = [token.text for token in said[max(low, span[0] - 3) : span[0]]]
    texts = [token.text for token in said]
    covered = _covered(accepted)
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
