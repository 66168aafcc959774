"""The final answer of a completion, read strictly and leniently side by side, and whether it is the expected one.

strict    what stands behind the last of the marks that are allowed:
              answer_is   `The answer is 12.`, to the end of the sentence or line
              hash        `#### 12`, to the end of the line
              boxed       `\\boxed{12}`, with balanced braces
              tag         `<answer>12</answer>`
lenient   the same, or the last number of the text where no mark stands

Of a completion that closes `</think>` only what follows counts, and of that the last 2,000 characters. A number has at
most 64 digits. Every pass over the text is linear: no completion costs more than about two milliseconds.

A number is right if its value is: `1,234.50`, `$1234.5`, `1234.5 dollars` are one number, `50%` is `50`, `1/2`,
`\\frac{1}{2}` and `0.5` are one. Where both name a unit it must be the same. Of `3 * 5 = 15` the last part counts.
`5 or 6`, `5 thousand`, `5x`, `not 5` are no numbers. What is no number must be the same text but for case, spaces,
quotes and markup.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from llmkit.errors import UserError
from llmkit.recipe.reward_values import check_values
from llmkit.rewards.rows import RowError, Said, Samples

MARKS = ("answer_is", "hash", "boxed", "tag")
MAX_CHARS = 2_000
MAX_DIGITS = 64

_INTEGER = rf"(?:[0-9]{{1,3}}(?:,[0-9]{{3}}){{1,20}}(?![0-9])|[0-9]{{1,{MAX_DIGITS}}}(?![0-9]))"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]{{1,{MAX_DIGITS}}}(?![0-9]))?|\.[0-9]{{1,{MAX_DIGITS}}}(?![0-9]))"
_BODY = (
    rf"(?:\\frac\{{(?P<over>{_INTEGER})\}}\{{(?P<under>{_INTEGER})\}}"
    rf"|(?:(?P<whole>{_INTEGER}) )?(?P<top>{_INTEGER}) ?/ ?(?P<bottom>{_INTEGER})(?!/|\.?[0-9])"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<power>[-+]?[0-9]{{1,2}})(?![0-9]))?)"
)
_MONEY = r"(?:[$€£¥] ?)?"
_WHOLE = re.compile(rf"{_MONEY}(?P<sign>[-+]?) ?{_MONEY}{_BODY}(?P<unit>.*)", re.DOTALL)
_LAST = re.compile(rf"(?<![\w^.])(?:(?<![)\]}}])[-+])?\$?{_BODY}|(?<=\.){_INTEGER}")
_SPOKEN = re.compile(r"\bthe\s{1,9}(?:(?:final|correct|right)\s{1,9})?answer\s{1,9}is\b\s*:?", re.IGNORECASE)
_HASHES = re.compile(r"(?<!#)####(?!#)")
_SENTENCE_END = re.compile(r"(?<![ .][A-Z])(?<!^[A-Z])(?<!\bSt)(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bNo)[.!?]+(?=\s)")
_BRACES = re.compile(r"\\boxed\s?\{|\\.|[{}]", re.DOTALL)

_MARKUP = [
    (re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[!,;:]|\\ |\*\*|`"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[dt]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\\frac\s?([0-9])\s?([0-9])(?![0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\^\s?\{?\\circ\}?|\\degree(?![a-z])"), "°"),
    (re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\s+"), " "),
]
_SIGNS = str.maketrans(dict.fromkeys("\u2212\u2013\u2010\u2011", "-") | dict.fromkeys("\u00a0\u2009\u202f", " "))
_QUOTES = " \t\n\"'\u201c\u201d\u2018\u2019.,;:!?$*_"
# A single letter behind a number is a variable unless it is one of these.
_LETTER_UNITS = frozenset("mgshlLJNVWACF")
_SCALES = ("k", "K", "M", "B")
_PERCENT = re.compile(r"^(?:%|(?:percent|per cent|pct)\b)", re.IGNORECASE)
_ASIDE = re.compile(r"^(?:, |\()(?=[A-Za-z])")
_POWER = re.compile(r"([A-Za-z ]{1,20}?) ?\^?\{?([23²³])\}?")
_POWERS = str.maketrans("²³", "23")
_FORMULA = re.compile(r"[\d=+*^<>\\²³]|(?<![A-Za-z])/|/(?![A-Za-z])")
_MONEY_WORDS = re.compile(r"(?:us )?(?:dollar|euro|pound|usd|eur|gbp)s?|[$€£¥]")
# Words behind a number that make it another number, or none.
_OTHER_VALUE = frozenset(
    {"or", "and", "to", "not", "but", "nor", "vs", "versus", "either", "maybe", "until", "through", "over", "point"}
    | {"plus", "minus", "divided", "squared", "cubed", "factorial", "sqrt", "pi", "half", "third", "quarter"}
    | {"dozen", "hundred", "thousand", "million", "billion", "trillion", "mn", "bn"}
)


@dataclass(frozen=True)
class Found:
    """The answer that a completion gives, as it is written there; None where it gives none."""

    strict: str | None
    lenient: str | None

    def read(self, parse: str) -> str | None:
        """The one that `parse` names: `strict` or `lenient`."""
        return self.strict if parse == "strict" else self.lenient


@dataclass(frozen=True)
class Number:
    """A number and what is counted; `unit` is "" where none is named."""

    value: Fraction
    unit: str


def check_options(reward: str, parse: str, marks: Sequence[str]) -> tuple[str, ...]:
    """The marks. Raises UserError for a `parse` or a mark that does not exist."""
    if parse not in ("strict", "lenient"):
        raise UserError(f"{reward}: parse", f"is {parse!r}", "give strict or lenient")
    if isinstance(marks, str) or not set(marks) <= set(MARKS):
        raise UserError(f"{reward}: marks", f"are {marks!r}", f"give a list of some of {', '.join(MARKS)}")
    check_values(reward, marks=marks)
    return tuple(marks)


def found_in(text: str, marks: Sequence[str] = MARKS) -> Found:
    """The answer that stands in `text`, behind one of `marks` or not."""
    said = text.rpartition("</think>")[2] if "</think>" in text else text
    said = said[-MAX_CHARS:]
    last = max(_marked(said, marks), default=None)
    if last is None:
        return Found(None, last_number(said))
    strict = last[1].strip()
    return Found(strict or None, strict or last_number(said))


def last_number(text: str) -> str | None:
    """The last number of a text, as it is written there."""
    found = list(_LAST.finditer(text[-MAX_CHARS:].translate(_SIGNS)))
    return found[-1].group().lstrip("$") if found else None


def number(text: str) -> Number | None:
    """The number that `text` is, with sign, currency and unit; None if it is anything else or more than that."""
    found = _WHOLE.fullmatch(plain(text).rstrip(".,;:!? "))
    if found is None:
        return None
    unit = _unit(found["unit"])
    value = _value(found)
    return None if unit is None or value is None else Number(-value if found["sign"] == "-" else value, unit)


def same(given: str | None, expected: str) -> bool:
    """Whether an answer is the expected one: as a number where the expected one is a number, else as a text."""
    if given is None:
        return False
    wanted = number(expected)
    if wanted is None:
        folded = fold(given)
        return bool(folded) and folded == fold(expected)
    got = number(given.rpartition("=")[2])  # `3 * 5 = 15`: what is said last counts
    return got is not None and got.value == wanted.value and (got.unit == wanted.unit or not (got.unit and wanted.unit))


def canonical(given: str) -> str:
    """One text for all spellings of an answer, for votes: a number without its unit, else the text folded."""
    found = number(given.rpartition("=")[2])
    return str(found.value) if found is not None else fold(given)


def said_of(text: str, parse: str, marks: Sequence[str]) -> Said:
    """The answer that a completion gives behind a mark, or, read leniently, without one."""
    found = found_in(text, marks)
    given = found.read(parse)
    return Said(None if given is None else canonical(given), found.strict is not None)


def fold(text: str) -> str:
    """A text without what does not count: case, spaces, quotes, markup, marks at its ends."""
    folded = unicodedata.normalize("NFC", plain(text[:MAX_CHARS])).casefold().rstrip(_QUOTES)
    bare = folded.lstrip(_QUOTES)
    is_decimal = bare[:1].isdigit() and folded[: len(folded) - len(bare)].endswith(".")
    return f".{bare}" if is_decimal else bare


def expected_answer(value: Any, row: int, reward: str) -> str:
    """The expected answer of one row as a text. Raises RowError where the row names none."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        text = str(value).strip()
        if 0 < len(text) <= MAX_CHARS and (isinstance(value, str) or text not in ("nan", "inf", "-inf")):
            return text
    what = f"its answer is {repr(value)[:80]}"
    raise RowError(row, f"{reward}: row {row}", what, f"give a number, or a text of 1 to {MAX_CHARS} characters")


def say(answer: str, marks: Sequence[str] = MARKS) -> str:
    """A completion that gives an answer behind the first of the marks that holds it to the letter, or in its sense."""
    forms = {
        "answer_is": f"The answer is {answer}.",
        "hash": f"#### {answer}",
        "boxed": f"\\boxed{{{answer}}}",
        "tag": f"<answer>{answer}</answer>",
    }
    said = [forms[mark] for mark in MARKS if mark in marks]
    given = [(form, found_in(form, marks).strict) for form in said]
    letter = [form for form, text in given if text == answer.strip()]
    sense = [form for form, text in given if same(text, answer)]
    return [*letter, *sense, *said][0]


def samples_of(row: Mapping[str, Any], reward: str, parse: str, marks: Sequence[str]) -> Samples:
    """The row's `solution` where it gives an answer that the reward reads, else its `answer` behind a mark; and the
    same with its final number changed. No samples without an `answer`."""
    if row.get("answer") is None:
        return Samples()
    answer = expected_answer(row["answer"], 0, reward)
    solution = row.get("solution")
    given = found_in(solution, marks).read(parse) if isinstance(solution, str) else None
    if given is None or not isinstance(solution, str):
        return Samples(say(answer, marks), say(changed(answer), marks))
    before, _, after = solution.rpartition(given)
    wrong = f"{before}{changed(given)}{after}"
    is_other = not same(found_in(wrong, marks).read(parse), given)
    return Samples(solution, wrong if is_other else say(changed(answer), marks))


def changed(text: str) -> str:
    """Another answer: its last number is one larger; without a number, one more is added."""
    found = list(re.finditer(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+", text))
    if not found:
        return f"{text}+1"
    last = found[-1]
    return f"{text[: last.start()]}{int(last.group().replace(',', '')[:MAX_DIGITS]) + 1}{text[last.end() :]}"


def _marked(text: str, marks: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(place, answer) of the last mark of each kind."""
    if "answer_is" in marks and (spoken := list(_SPOKEN.finditer(text))):
        yield spoken[-1].start(), _sentence(text[spoken[-1].end() :])
    if "hash" in marks and (hashes := list(_HASHES.finditer(text))):
        yield hashes[-1].start(), text[hashes[-1].end() :].partition("\n")[0]
    if "boxed" in marks:
        yield from _boxes(text)
    if "tag" in marks and (end := text.rfind("</answer>")) >= 0 and (start := text.rfind("<answer>", 0, end)) >= 0:
        yield start, text[start + len("<answer>") : end]


def _sentence(text: str) -> str:
    """The first sentence of what follows a mark, without closing markup."""
    line = text.lstrip().partition("\n")[0].partition("</")[0]
    end = _SENTENCE_END.search(line)
    return (line[: end.start()] if end else line).rstrip(" .*_!?")


def _boxes(text: str) -> Iterator[tuple[int, str]]:
    r"""Every `\boxed{...}` that is closed: one pass with a stack, since nested ones would be read again and again."""
    opened: list[tuple[int, int, bool]] = []
    for found in _BRACES.finditer(text):
        token = found.group()
        if token.endswith("{") and token != r"\{":
            opened.append((found.start(), found.end(), len(token) > 1))
        elif token == "}" and opened:
            start, end, is_box = opened.pop()
            if is_box:
                yield start, text[end : found.start()]


def plain(text: str) -> str:
    """A text without markup around it: one dollar sign at an end alone is a currency, at both ends it is LaTeX."""
    text = text[:MAX_CHARS].translate(_SIGNS).strip()
    for start, end in (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$")):
        if len(text) > len(start + end) and text.startswith(start) and text.endswith(end):
            text = text[len(start) : -len(end)]
    for pattern, instead in _MARKUP:
        text = pattern.sub(instead, text)
    return text.strip().strip("*_")


def _unit(text: str) -> str | None:
    """What is counted, "" if that goes without saying; None if the text makes another number of it."""
    unit = _PERCENT.sub("", text.strip().strip("*_"), count=1).lstrip()
    if not unit or _MONEY_WORDS.fullmatch(unit.casefold()):
        return ""
    unit = _ASIDE.sub("", unit).rstrip(")")
    if not unit:  # of a bracket that the answer closes
        return ""
    power = _POWER.fullmatch(unit)
    name = power[1] if power else unit
    words = re.findall(r"\w+", name)
    if not (unit[0].isalpha() or unit[0] == "°") or _FORMULA.search(name):
        return None
    if len(words) == 1 and len(words[0]) == 1 and words[0] not in _LETTER_UNITS and unit[0] != "°":
        return None
    if (words and words[0] in _SCALES) or _OTHER_VALUE & {word.casefold() for word in words}:
        return None
    return _singular(name.casefold()) + (power[2].translate(_POWERS) if power else "")


def _singular(unit: str) -> str:
    return unit[:-1] if len(unit) > 3 and unit.endswith("s") and not unit.endswith("ss") else unit


def _value(found: re.Match[str]) -> Fraction | None:
    def integer(name: str) -> int:
        return int((found[name] or "0").replace(",", ""))

    if found["decimal"]:
        return Fraction(found["decimal"].replace(",", "")) * Fraction(10) ** int(found["power"] or 0)
    top, bottom = ("over", "under") if found["under"] else ("top", "bottom")
    if not integer(bottom):
        return None
    return integer("whole") + Fraction(integer(top), integer(bottom))
