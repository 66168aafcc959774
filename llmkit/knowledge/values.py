"""Text as words, numbers and dates, each in one canonical form, for comparing short answers.

    1,000 = 1000 = 1 000 = one thousand = 1k         (number)
    4 July 1776 = July 4th, 1776 = 1776-07-04        (date; months also in German, French, Spanish)
    Élodie's = elodie, L'Italie = italie, U.S. = us  (word)

Reading is linear in the text; only the first 4,000 characters are read, since an answer is to be short.
"""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from typing import Literal

from llmkit.knowledge.numerals import canonical, put_numbers_together, roman
from llmkit.knowledge.tokens import Date, Token, plain, words
from llmkit.knowledge.units import UNITS

MAX_DIGITS = 30
"""A longer run of digits is a word, not a number."""

_LEX = re.compile(
    r"(?P<iso>(?<!\d)\d{4}-\d{1,2}-\d{1,2}(?!\d))"
    r"|(?P<slashed>(?<!\d)\d{1,2}(?P<mark>[./])\d{1,2}(?P=mark)\d{4}(?!\d))"
    r"|(?P<decade>\d{3}0s\b)"
    r"|(?P<number>(?!0)\d{1,3}(?:[, ]\d{3})+(?!\d)(?:\.\d+)?|\d{1,3}(?:\.\d{3}){2,}(?!\d)|\d+(?:[.,]\d+)?)"
    r"(?P<ordinal>(?:st|nd|rd|th)\b)?"
    r"|(?P<word>(?:[^\W\d_]\.){2,}|(?<![^\W_])[^\W\d_](?:\+\+?|#)(?![^\W_])|[^\W\d_][^\W_]*(?:'[^\W\d_]+)*)"
)
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan januar janner janvier enero",
            "february feb februar fevrier febrero",
            "march mar marz maerz mars marzo",
            "april apr avril abril",
            "may mai mayo",
            "june jun juni juin junio",
            "july jul juli juillet julio",
            "august aug aout agosto",
            "september sep sept septembre septiembre setiembre",
            "october oct oktober okt octobre octubre",
            "november nov novembre noviembre",
            "december dec dezember dez decembre diciembre",
        ),
        start=1,
    )
    for name in names.split()
}
_ABBREVIATIONS = words("mr mrs ms dr prof st jr sr vs no mt ca c gen lt col rev")
_TURNS = {"but", "although", "though", "however", "aber", "sondern", "mais", "pero", "sino"}


def read(text: str) -> list[Token]:
    """The tokens of a text, numbers and dates put together."""
    tokens = _dates(_units(put_numbers_together(_initials(_lex(plain(text))))))
    return [replace(token, opens=_opens(tokens, i)) for i, token in enumerate(tokens)]


def _opens(tokens: list[Token], i: int) -> Literal["", "clause", "sentence"]:
    token, last = tokens[i], tokens[i - 1]
    if i == 0 or re.search(r"[!?;\n]", token.before):
        return "sentence"
    short = last.text in _ABBREVIATIONS or (len(last.written) == 1 and last.capital)
    if "." in token.before and not (short and token.before == "." and token.text):
        return "sentence"
    return "clause" if re.search(r"[,:()\[\]]|--", token.before) or token.text in _TURNS else ""


def _lex(text: str) -> list[Token]:
    tokens: list[Token] = []
    end = 0
    for found in _LEX.finditer(text):
        gap, end = text[end : found.start()], found.end()
        before = gap.strip(" \t\r")
        if before == "-" != gap:
            before = "--"
        if before == "&":
            tokens.append(Token("and", "", written="&"))
            before = ""
        sign = gap.endswith("-") and (not tokens or gap != "-")
        tokens.extend(_token(found, before, negative=sign and found["number"] is not None))
    if tail := text[end:].strip(" \t\r"):
        tokens.append(Token("", tail))
    return tokens


def _token(found: re.Match[str], before: str, negative: bool) -> list[Token]:
    written = found.group()
    if found["iso"]:
        year, month, day = map(int, written.split("-"))
        return [_date_token(written, before, (year, month, day))]
    if found["slashed"]:
        first, second, year = map(int, re.split(r"[./]", written))
        return [_date_token(written, before, (year, second, first), (year, first, second))]
    if found["decade"]:
        return [Token(written, before, written=written)]
    if found["number"]:
        return [replace(_number_token(found["number"], before, negative), ordinal=bool(found["ordinal"]))]
    return [_word(written, before)]


def _date_token(written: str, before: str, *readings: tuple[int, int, int]) -> Token:
    dates = tuple({Date(*ymd): None for ymd in readings if 1 <= ymd[1] <= 12 and 1 <= ymd[2] <= 31})
    return Token(written, before, dates=dates, written=written)


def _number_token(digits: str, before: str, negative: bool) -> Token:
    if len(digits) > MAX_DIGITS:
        return Token(digits, before, written=digits)
    grouped = re.fullmatch(r"(?!0)\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?", digits)
    plain_digits = re.sub(r"[, ]", "", digits) if grouped else digits.replace(",", ".")
    if plain_digits.count(".") > 1:
        plain_digits = plain_digits.replace(".", "")
    value = Decimal(plain_digits) * (-1 if negative else 1)
    return Token(canonical(value), before, number=value, written=digits)


def _word(written: str, before: str) -> Token:
    low = written.casefold()
    possessive = low.endswith("'s")
    low = re.sub(r"^(?:l|d|qu|j|c|s|n|m)'(?=\w{2})", "", low.removesuffix("'s"))
    low = low.replace("'", "").replace(".", "")
    return Token(low, before, capital=written[0].isupper(), possessive=possessive, written=written)


def _initials(tokens: list[Token]) -> list[Token]:
    """`J. R. R. Tolkien` and `J.R.R. Tolkien` -> `jrr tolkien`; Roman numerals behind a capital word -> numbers."""
    done: list[Token] = []
    for token in tokens:
        last = done[-1] if done else None
        single = len(token.text) == 1 and token.capital and token.kind == "word"
        if last and single and last.capital and len(last.written.replace(".", "")) < 4 and last.written.isupper():
            near = token.before in ("", ".") and (len(last.text) == 1 or "." in last.written)
            if near and last.kind == "word":
                done[-1] = replace(last, text=last.text + token.text, written=last.written + "." + token.written)
                continue
        if last and last.capital and not token.before and token.written.isupper() and len(token.text) > 1:
            value = roman(token.text)
            if value:
                token = replace(token, text=str(value), number=Decimal(value), weak=True, capital=False)
        done.append(token)
    return done


def _units(tokens: list[Token]) -> list[Token]:
    """The unit of a number: in front (`$5`) or behind (`5 feet`, `5%`, `20 degrees`); the word behind is left out."""
    done: list[Token] = []
    i = 0
    while i < len(tokens):
        token = tokens[i]
        i += 1
        if token.number is None:
            done.append(token)
            continue
        unit = next((mark for mark in "$€£¥" if token.before.endswith(mark)), "")
        if i < len(tokens):
            after = tokens[i]
            mark = after.before.lstrip()
            if mark.startswith("%"):
                unit, tokens[i] = "%", replace(after, before=mark[1:].lstrip())
            elif mark.startswith("°") and after.text in ("c", "f"):
                unit, i = f"°{after.text}", i + 1
            elif after.text in ("degrees", "degree") and not mark:
                scale = UNITS.get(tokens[i + 1].text, "") if i + 1 < len(tokens) else ""
                unit, i = (scale, i + 2) if scale.startswith("°") else ("", i + 1)
            elif mark in ("", "-") and after.text in UNITS and not token.weak:
                unit, i = unit or UNITS[after.text], i + 1
        done.append(replace(token, unit=unit, before=token.before.rstrip("$€£¥ ")))
    return done


def _dates(tokens: list[Token]) -> list[Token]:
    done: list[Token] = []
    i = 0
    while i < len(tokens):
        date, length = _date(tokens, i)
        if length:
            text = "-".join(str(part) for part in (date.year, date.month, date.day) if part is not None)
            done.append(Token(text, tokens[i].before, dates=(date,), written=text))
        elif tokens[i].number is not None and i + 1 < len(tokens) and tokens[i + 1].text in ("bc", "bce"):
            done.append(replace(tokens[i], number=None, dates=(Date(-int(tokens[i].number or 0)),)))
            length = 2
        else:
            done.append(tokens[i])
        i += max(length, 1)
    return done


def _date(tokens: list[Token], i: int) -> tuple[Date, int]:
    """`4 July 1776`, `4th of July`, `July 4, 1776`, `July 1776`; length 0: no date begins here."""

    def at(k: int) -> Token:
        return tokens[k] if k < len(tokens) else Token("", "")

    def joined(k: int, allowed: tuple[str, ...]) -> bool:
        return at(k).before in allowed

    if day := _day(at(i)):
        k = i + 1
        if at(k).text in ("of", "de") and joined(k, ("",)):
            k += 1
        month = _MONTHS.get(at(k).text, 0)
        if not month or not joined(k, ("", ".")):
            return Date(), 0
        k += 1
        if at(k).text in ("of", "de", "del") and _year(at(k + 1)):
            k += 1
        year = _year(at(k)) if joined(k, ("", ",", ".", ".,")) else 0
        return Date(year or None, month, day), k + bool(year) - i
    month = _MONTHS.get(at(i).text, 0)
    if not month:
        return Date(), 0
    k = i + 1
    if at(k).text in ("of", "de") and _year(at(k + 1)):
        return Date(_year(at(k + 1)), month), 3
    if at(k).text == "the" and _day(at(k + 1)):
        k += 1
    if (day := _day(at(k))) and joined(k, ("", ".")):
        year = _year(at(k + 1)) if joined(k + 1, ("", ",", ".,")) else 0
        return Date(year or None, month, day), k + 1 + bool(year) - i
    if (year := _year(at(k))) and joined(k, ("", ",", ".")):
        return Date(year, month), 2
    return Date(), 0


def _day(token: Token) -> int:
    value = token.number
    return int(value) if value is not None and not token.unit and value == int(value) and 1 <= value <= 31 else 0


def _year(token: Token) -> int:
    """0 unless the token is written like a year: four digits, no separator."""
    return (
        int(token.written) if len(token.written) == 4 and token.written.isdecimal() and token.number is not None else 0
    )
