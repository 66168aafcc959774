"""Values that an answer offers beside one that it mentions: `Paris or London`, `5-7`, `A) Alice B) Bob`.

Heuristic; conjunctions are known in English, German, French and Spanish.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llmkit.knowledge.claims import AND, LEADS, NEGATORS, OR, Span, covered_by, sentence_starts
from llmkit.knowledge.references import is_country
from llmkit.knowledge.tokens import Token

_SAME_THING = {"so", "more", "less", "rather", "simply", "just", "formally", "officially", "aka", "known"}
_LEADS_OR_NOT = LEADS | NEGATORS
_LEADS_OR_SAME = LEADS | _SAME_THING
_LONGEST_OPTION = 6
"""Words."""
_LIST = 3
"""Names in a row from which on they are a list: two may be a place within another."""


def hedged(said: Sequence[Token], span: Span, accepted: Sequence[Span], *, places: bool = False) -> bool:
    """Paris or London; Paris and London; Paris, London, Rome; A) Paris B) London. Two names with a comma between them
    (`Paris, Texas`), a few common nouns in a row (`actor and director`) and a place within others up to its country
    are one answer.

    Args:
        places: a place may be asked for, so that `Lynn, Massachusetts, USA` is one.
    """
    if _is_option(said, span, accepted):
        return True
    items = list(_items(said, span))
    covered = covered_by(accepted)
    own = next(k for k, (start, end, _) in enumerate(items) if start <= span[0] < end)
    extras: list[str] = []
    others = 0
    run = [items[own]]
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
            run.append(items[k])
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
    if places and joiners and set(joiners) == {","} and _is_chain(said, sorted(run), items[own]):
        return False
    return "and" in joiners or len(joiners) >= _LIST - 1


_Item = tuple[int, int, str]


def _is_chain(said: Sequence[Token], run: Sequence[_Item], own: _Item) -> bool:
    """Whether names in a row are places each within the next: the last is a country, no other one is, and the mention
    is at one end of it."""
    countries = [is_country(said[start:end]) for start, end, _ in run]
    return countries[-1] and sum(countries) == 1 and own in (run[0], run[-1])


def _is_option(said: Sequence[Token], span: Span, accepted: Sequence[Span]) -> bool:
    """Whether a mention is one of several options with letters or numbers before them: `A) Alice B) Bob C) Carl`."""
    marks = [(i, said[i].text) for i in range(len(said)) if is_mark(said, i)]
    runs: list[list[int]] = []
    for k, (i, text) in enumerate(marks):
        follows = k > 0 and _rank(text) == _rank(marks[k - 1][1]) + 1
        if follows:
            runs[-1].append(i)
        else:
            runs.append([i])
    covered = covered_by(accepted)
    for run in runs:
        ends = [*run[1:], _end_of_line(said, run[-1])]
        if len(run) > 1 and run[0] < span[0] < ends[-1]:
            options = zip((start + 1 for start in run), ends, strict=True)
            return any(covered.isdisjoint(range(*option)) and _is_short(said, *option) for option in options)
    return False


def is_mark(said: Sequence[Token], i: int) -> bool:
    """`A)`, `b.`, `(1)`, `2:` in front of an option."""
    if i + 1 >= len(said):
        return False
    short = len(said[i].written) == 1 and (said[i].kind == "word" or said[i].written.isdigit())
    return short and re.match(r"[).:]", said[i + 1].before) is not None


def _is_short(said: Sequence[Token], start: int, end: int) -> bool:
    """An option is a value or a short name; what begins with a word such as `it` is a remark."""
    return 0 < end - start <= _LONGEST_OPTION and (said[start].kind != "word" or said[start].text not in LEADS)


def _rank(mark: str) -> int:
    return int(mark) if mark.isdigit() else ord(mark) + 100  # letters never follow on digits


def _end_of_line(said: Sequence[Token], mark: int) -> int:
    """Where the option behind the last mark ends."""
    return next((i for i in range(mark + 2, len(said)) if said[i].opens == "sentence"), len(said))


def _items(said: Sequence[Token], span: Span) -> Iterator[_Item]:
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
        word = "or" if token.text in OR or _is_range(said, i) else "and" if token.text in AND else ""
        word = "" if i == span[0] else word  # `And Then There Were None`
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


def _bare_start(said: Sequence[Token], start: int, mention: int) -> bool:
    between = said[start : max(start, mention)]
    return all(token.text in _LEADS_OR_NOT or token.capital or token.kind != "word" for token in between)


def _starts_with_or(said: Sequence[Token], span: Span) -> bool:
    """`Paris. Or London.`"""
    after = [start for start in sentence_starts(said) if start >= span[1]]
    end = after[1] if len(after) > 1 else len(said)
    return bool(after) and said[after[0]].text in OR and _rivals(said, (after[0] + 1, end), span, "or")


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
    if not tokens or tokens[0].text in NEGATORS:
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
