"""Multiple choice: right where the answer names the one right choice, and no other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Literal

from llmkit.rewards.answer import MARKS, MAX_CHARS, check_options, fold, found_in, plain, say
from llmkit.rewards.rows import Completion, LogMetric, Reward, RowError, Said, Samples, column, ignore, share, text_of

COLUMNS: tuple[str, ...] = ("answer",)
CORRECTNESS: bool = True

# `B`, `(B)`, `B)`, `**B.**`, `option B`, `choice (B)`, each alone or before the text of the choice.
_LETTER = re.compile(r"(?:(?:option|choice|answer|letter)\s{1,9})?\(?([A-Z])(?:\)|(?![\w']))[).:,;*]*(?:\s+|$)", re.I)
# A letter that stands alone; an A before a word is an article, an I without brackets a pronoun.
_ALONE = r"(?<![\w'-])(?:([B-HJ-Z])(?![\w'])|([A-Z])\)|(A)(?![\w'])(?!\s+(?!or\b|and\b)[a-z]))"
_STANDING = re.compile(rf"\(([A-Z])\)|{_ALONE}")
_HEDGE = re.compile(r"(?:or|and|nor)\b", re.IGNORECASE)


def make_choice(
    *,
    parse: Literal["strict", "lenient"] = "strict",
    marks: Sequence[Literal["answer_is", "hash", "boxed", "tag"]] = ("answer_is", "hash", "boxed", "tag"),
) -> Reward:
    """1 where the answer is the right letter or the text of the right choice, and names no other; else 0.

    Args:
        parse: `strict` wants the answer behind a mark; `lenient` takes the letter of the last sentence that holds one
            where no mark stands.
        marks: that count; of several in a text the last one does. See `llmkit.rewards.answer`.

    Returns:
        choice(completions, answer, choices=None, **columns) -> one 0 or 1 per completion. `answer`: a letter, or a
        number that counts `choices` from 0; `choices`: the texts of the row's choices. Logs `choice/strict` and
        `choice/lenient`, shares that are right as each reads them, and `choice/found`, the share with an answer behind
        a mark.

    Raises:
        UserError: an option is out of range. The function raises RowError for a row without a right choice.
    """
    allowed = check_options("choice", parse, marks)

    def choice(
        completions: Sequence[Completion],
        answer: Sequence[Any] | None = None,
        choices: Sequence[Any] | None = None,
        log_metric: LogMetric | None = None,
        **_: Any,
    ) -> list[float]:
        values = column("choice", "answer", answer, completions)
        texts = [_texts(each) for each in choices] if choices is not None else [()] * len(values)
        wanted = [_wanted(value, each, row) for row, (value, each) in enumerate(zip(values, texts, strict=True))]
        said = [text_of(completion) for completion in completions]
        stated = [found_in(text, allowed).strict for text in said]
        rows = list(zip(stated, said, texts, wanted, strict=True))
        strict = [text is not None and named(text, each) == want for text, _, each, want in rows]
        loose = [_loose(text, each) == want for _, text, each, want in rows]
        lenient = [a if text is not None else b for text, a, b in zip(stated, strict, loose, strict=True)]
        log = log_metric or ignore
        log("choice/strict", share(strict))
        log("choice/lenient", share(lenient))
        log("choice/found", share([text is not None for text in stated]))
        return [float(right) for right in (strict if parse == "strict" else lenient)]

    return choice


def named(text: str, choices: Sequence[str] = ()) -> str | None:
    """The letter that a stated answer names; None for none, for several, for one beyond the choices."""
    text = plain(text).strip("*_`$\"'").strip()
    letters = ascii_uppercase[: len(choices)] if choices else ascii_uppercase
    if (letter := _by_text(text, choices)) is not None:
        return letter
    found = _LETTER.match(text)
    if found is None or found[1].upper() not in letters:
        return None
    letter, rest = found[1].upper(), text[found.end() :]
    if choices and fold(rest) == fold(choices[letters.index(letter)]):
        return letter
    others = _letters(rest) - {letter}
    is_article = found[1] == "a" and rest[:1].islower()
    return None if others & set(letters) or _HEDGE.match(rest) or is_article else letter


def samples(
    row: Mapping[str, Any], *, parse: str = "strict", marks: Sequence[str] = ("answer_is", "hash", "boxed", "tag")
) -> Samples:
    """The right letter behind a mark, and another letter."""
    if row.get("answer") is None:
        return Samples()
    texts = _texts(row.get("choices"))
    right = _wanted(row["answer"], texts, 0)
    other = ascii_uppercase[(ascii_uppercase.index(right) + 1) % (len(texts) or 4)]
    return Samples(say(right, marks or MARKS), say("B" if other == right else other, marks or MARKS))


def said(
    text: str,
    row: Mapping[str, Any],
    *,
    parse: str = "strict",
    marks: Sequence[str] = ("answer_is", "hash", "boxed", "tag"),
) -> Said:
    """The letter of the choice that is named."""
    choices, stated = _texts(row.get("choices")), found_in(text, marks).strict
    if stated is not None:
        return Said(named(stated, choices), True)
    return Said(_loose(text, choices) if parse == "lenient" else None, False)


def _loose(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the last sentence that holds one, if it holds no other."""
    said = text[-MAX_CHARS:].strip()
    letters = set(ascii_uppercase[: len(choices)] if choices else ascii_uppercase)
    alone = _LETTER.fullmatch(said)
    if alone is not None and alone[1].upper() in letters:
        return alone[1].upper()
    if (letter := _by_text(said, choices)) is not None:
        return letter
    for sentence in reversed(re.split(r"[.!?]\s|\n", said)):
        given = _letters(sentence) & letters
        if given:
            return given.pop() if len(given) == 1 else None
    return None


def _letters(text: str) -> set[str]:
    return {letter for found in _STANDING.findall(text) for letter in found if letter}


def _by_text(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the one choice whose text this is."""
    said = fold(text)
    if len(said) < 2 and said.isalpha():  # a letter is the name of a choice, also where another choice reads so
        return None
    same = [letter for letter, choice in zip(ascii_uppercase, choices, strict=False) if said and fold(choice) == said]
    return same[0] if len(same) == 1 else None


def _texts(choices: Any) -> tuple[str, ...]:
    return tuple(map(str, choices)) if isinstance(choices, (list, tuple)) else ()


def _wanted(value: Any, choices: Sequence[str], row: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < min(len(choices), len(ascii_uppercase)):
        return ascii_uppercase[value]
    if isinstance(value, str) and (found := re.fullmatch(r"\(?([A-Za-z])\)?", value.strip())):
        letter = found[1].upper()
        if not choices or letter in ascii_uppercase[: len(choices)]:
            return letter
    what = f"its answer is {value!r}" + (f" of {len(choices)} choices" if choices else "")
    cure = "give a letter, or a number that counts the column 'choices' from 0"
    raise RowError(row, f"choice: row {row}", what, cure)
