"""Instructions on the form of an answer that can be checked without understanding it (as in IFEval, arXiv 2311.07911).

A row's column `constraints` is a list of `{kind, ...}`, or that list as JSON text:

    min_words, max_words, num_sentences, num_bullets      `count`
    contains, not_contains, starts_with, ends_with        `text`, without regard to case
    lowercase, uppercase                                  all letters, and at least one
    json                                                  the whole answer, in a code fence or not
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, Literal

from llmkit.errors import UserError
from llmkit.rewards.rows import Completion, Reward, RowError, column, text_of

COLUMNS: tuple[str, ...] = ("constraints",)
CORRECTNESS: bool = True
MAX_CHARS = 100_000

# Possessive and anchored to the start of a run: linear on a text of nothing but dots or lines.
_SENTENCE = re.compile(r"(?<![.!?])[.!?]++[\"')\]]*+(?=\s|$)")
_BULLET = re.compile(r"^[ \t]*+(?:[-*+•]|\d{1,3}[.)])\s", re.MULTILINE)
_FENCE = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n```\Z", re.DOTALL | re.IGNORECASE)


def make_instructions(*, score: Literal["share", "all"] = "share") -> Reward:
    """The share of a row's constraints that a completion keeps; 1: all of them.

    Args:
        score: `share`, or `all`: 0 unless every constraint is kept.

    Returns:
        instructions(completions, constraints, **columns) -> one score per completion, in [0, 1].

    Raises:
        UserError: `score` is neither. The function raises RowError for a constraint that does not exist.
    """
    if score not in ("share", "all"):
        raise UserError("instructions: score", f"is {score!r}", "give share or all")

    def instructions(
        completions: Sequence[Completion], constraints: Sequence[Any] | None = None, **_: Any
    ) -> list[float]:
        scores = []
        for row, value in enumerate(column("instructions", "constraints", constraints, completions)):
            kept = [keeps(text_of(completions[row])[:MAX_CHARS].strip()) for keeps in _read(value, row)]
            scores.append(sum(kept) / len(kept) if score == "share" else float(all(kept)))
        return scores

    return instructions


def _sentences(text: str) -> int:
    """Runs of text that end with `.`, `!` or `?` before a space; what stands behind the last one is one more."""
    return sum(any(map(str.isalnum, part)) for part in _SENTENCE.split(text))


def _is_json(text: str) -> bool:
    fenced = _FENCE.match(text)
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


_COUNTED: dict[str, Callable[[str, int], bool]] = {
    "min_words": lambda text, count: len(text.split()) >= count,
    "max_words": lambda text, count: len(text.split()) <= count,
    "num_sentences": lambda text, count: _sentences(text) == count,
    "num_bullets": lambda text, count: len(_BULLET.findall(text)) == count,
}
_WORDED: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda text, wanted: wanted.casefold() in text.casefold(),
    "not_contains": lambda text, wanted: wanted.casefold() not in text.casefold(),
    "starts_with": lambda text, wanted: text.casefold().startswith(wanted.casefold()),
    "ends_with": lambda text, wanted: text.casefold().endswith(wanted.casefold()),
}
_ALONE: dict[str, Callable[[str], bool]] = {"lowercase": str.islower, "uppercase": str.isupper, "json": _is_json}
KINDS = (*_COUNTED, *_WORDED, *_ALONE)


def _read(value: Any, row: int) -> list[Callable[[str], bool]]:
    where = f"instructions: row {row}"
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise RowError(row, where, f"its constraints are no JSON ({error})", "give a list of {kind, ...}") from None
    if not isinstance(found, (list, tuple)) or not found:
        raise RowError(row, where, f"its constraints are {str(value)[:80]!r}", "give a list of {kind, ...}, not empty")
    return [_one(constraint, row, f"{where}: constraint {place}") for place, constraint in enumerate(found)]


def _one(constraint: Any, row: int, where: str) -> Callable[[str], bool]:
    if not isinstance(constraint, dict):
        raise RowError(row, where, f"is {str(constraint)[:80]!r}", "give {kind: ..., ...}")
    # a table fills keys that only other rows have with None
    given = {key: value for key, value in constraint.items() if value is not None}
    kind = given.pop("kind", None)
    if kind not in KINDS:
        near = get_close_matches(str(kind), KINDS, n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"have: {', '.join(KINDS)}"
        raise RowError(row, where, f"no kind {kind!r}", cure)
    needs = "count" if kind in _COUNTED else "text" if kind in _WORDED else None
    if set(given) != ({needs} if needs else set()):
        raise RowError(row, where, f"'{kind}' got {sorted(given)}", f"give '{needs}'" if needs else "give 'kind' alone")
    if kind in _COUNTED:
        count = given["count"]
        if isinstance(count, bool) or not isinstance(count, (int, float)) or count < 0 or count != int(count):
            raise RowError(row, where, f"count is {count!r}", "give a whole number")
        return lambda text: _COUNTED[kind](text, int(count))
    if kind in _WORDED:
        wanted = given["text"]
        if not isinstance(wanted, str) or not wanted.strip():
            raise RowError(row, where, f"text is {wanted!r}", "give a text that is not empty")
        return lambda text: _WORDED[kind](text, wanted.strip())
    return _ALONE[kind]
