"""Number words, scales and Roman numerals as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

from llmkit.knowledge.tokens import Token


def _numbered(text: str, values: Iterable[int]) -> dict[str, int]:
    return dict(zip(text.split(), values, strict=True))


_SMALL = _numbered(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen",
    range(20),
)
_TENS = _numbered("twenty thirty forty fifty sixty seventy eighty ninety", range(20, 100, 10))
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_SHORT_SCALES = {"k": 1000, "mn": 10**6, "bn": 10**9, "tn": 10**12}
_ORDINALS = (
    _numbered(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth",
        range(1, 20),
    )
    | {word.removesuffix("y") + "ieth": value for word, value in _TENS.items()}
    | {"hundredth": 100, "thousandth": 1000, "millionth": 10**6}
)
_WEAK = {"one", "first", "second", "third"}
_ROMAN = {"i": 1, "v": 5, "x": 10}


def canonical(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def roman(text: str) -> int:
    """Up to XXXIX; 0 for anything else."""
    if not re.fullmatch(r"x{0,3}(?:ix|iv|v?i{0,3})", text):
        return 0
    values = [_ROMAN[letter] for letter in text]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))


def put_numbers_together(tokens: list[Token]) -> list[Token]:
    """Number words and scales -> one number: `two hundred and five`, `5 million`, `fourth`, `twenty-first`."""
    done: list[Token] = []
    i = 0
    while i < len(tokens):
        value, length = _spelled(tokens, i)
        if not length:
            done.append(tokens[i])
        else:
            first, parts = tokens[i], [token.text for token in tokens[i : i + length]]
            weak = length == 1 and (parts[0] in _WEAK or first.weak)
            ordinal = first.ordinal or parts[-1] in _ORDINALS
            number = replace(first, text=canonical(value), number=value, weak=weak, ordinal=ordinal)
            if first.number is None and done and (year := _spelled_year(done[-1], number)):
                done[-1] = replace(done[-1], text=str(year), number=Decimal(year), written=str(year))
            else:
                done.append(number)
        i += max(length, 1)
    return done


def _spelled_year(first: Token, second: Token) -> int:
    """`nineteen` `eighty-nine` -> 1989; 0 for anything else."""
    high, low = int(first.number or 0), int(second.number or 0)
    spelled = first.written.isalpha() and second.before == "" and not (first.ordinal or second.ordinal)
    return high * 100 + low if spelled and 11 <= high <= 20 and 10 <= low <= 99 else 0


def _spelled(tokens: list[Token], start: int) -> tuple[Decimal, int]:
    """Value and number of tokens of the number that begins here; length 0: none does."""
    total, group, end, i = Decimal(0), Decimal(0), start, start
    seen = digits = False
    room = Decimal(10**18)  # what may still be added below the last part: `twenty` leaves room for `one`
    while i < len(tokens):
        token, text = tokens[i], tokens[i].text
        if i > start and token.before not in ("", "-"):
            break
        if i == start and token.number is not None:
            group, seen, digits, room = token.number, True, True, Decimal(0)
        elif text in _SCALES and (seen or text != "dozen"):
            if not seen and not (i > start):
                break
            scale = _SCALES[text]
            if scale in (100, 12):
                group = (group or Decimal(1)) * scale
                room = Decimal(100)
            else:
                total, group = total + (group or Decimal(1)) * scale, Decimal(0)
                room = Decimal(scale)
            digits = False
        elif text in _SHORT_SCALES and i == start + 1 and digits and token.before == "":
            return group * _SHORT_SCALES[text], 2
        elif (small := _SMALL.get(text, _TENS.get(text, _ORDINALS.get(text)))) is not None and small < room:
            group += small
            seen = True
            room = Decimal(10) if text in _TENS else Decimal(0)
            if text in _ORDINALS:
                return total + group, i + 1 - start
        elif text == "and" and seen and room >= 100 and i + 1 < len(tokens) and tokens[i + 1].text in {*_SMALL, *_TENS}:
            i += 1
            continue
        elif text == "a" and i == start and i + 1 < len(tokens) and tokens[i + 1].text in _SCALES:
            i += 1
            seen = True
            continue
        else:
            break
        i += 1
        end = i
    return total + group, end - start
