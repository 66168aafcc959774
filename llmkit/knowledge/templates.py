"""Questions from structured facts: the fields of a row, or the named groups of a pattern, filled into a template.

The language of templates is in `llmkit.recipe.templates`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

from llmkit.errors import DataError
from llmkit.knowledge.records import Question
from llmkit.recipe.knowledge import TemplateSpec
from llmkit.recipe.templates import answers, parse_path, parts, problems, wordings

Reason = Literal[
    "unreadable row",
    "missing column",
    "broken text",
    "empty question",
    "empty answer",
    "answer without letters or digits",
    "answers that contradict",
    "duplicate",
    "template does not apply",
]
TEXT = "text"
"""Field of a row that `match` looks at."""


@dataclass(frozen=True)
class Bad:
    """A row, or one template on one row, that gives no question."""

    where: str
    reason: Reason
    detail: str = ""


class _DoesNotApply(Exception):
    """The row has no value for a field of a template, or none that can be written as one text."""


def questions_of(row: Any, templates: Sequence[TemplateSpec], where: str) -> Iterator[Question | Bad]:
    """What the templates ask of one row: a question per template, with `match` one per match in the row's `text`.

    A template whose fields the row lacks, or leaves empty, comes as `Bad` with "template does not apply".

    Raises:
        DataError: a template is malformed (see `check_templates`).
    """
    if not isinstance(row, dict):
        yield Bad(where, "unreadable row", f"a row must be an object with fields, this is {type(row).__name__}")
        return
    for number, template in enumerate(templates):
        name = f"templates[{number}]"
        if problem := next(problems(template), None):
            raise DataError(where, f"{name}.{problem[0]}: {problem[1]}", "mend the template")
        document = row.get(TEXT) if template.match is not None else ""
        for fields in [row] if template.match is None else _matches(template.match, document):
            try:
                yield _question(fields, template, document, where)
            except _DoesNotApply as why:
                yield Bad(where, "template does not apply", f"{name}: {why}")


def lookup(row: Any, path: str) -> list[Any]:
    """The values at a path, none where it leads nowhere. Raises ValueError for a malformed path."""
    found = [row]
    for step in parse_path(path):
        found = [inner for value in found for inner in _step(value, step)]
    return found


def _step(value: Any, step: str | int | None) -> Sequence[Any]:
    if isinstance(value, dict):
        if step is None:
            return list(value.values())
        return [value[step]] if isinstance(step, str) and step in value else []
    if isinstance(value, list):
        if step is None:
            return value
        return [value[step]] if isinstance(step, int) and step < len(value) else []
    return []


def plain_text(value: Any) -> str:
    """A string or a number as text with single spaces; "" for None, NaN and infinity. Raises TypeError for others."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError(f"is {type(value).__name__}, not text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return " ".join(str(value).split())


def _matches(pattern: str, text: Any) -> list[dict[str, Any]]:
    """The named groups of each match; one empty set where there is none, to which no template applies."""
    found = re.finditer(pattern, text) if isinstance(text, str) else ()
    return [match.groupdict() for match in found] or [{}]


def _question(fields: dict[str, Any], template: TemplateSpec, document: Any, where: str) -> Question:
    if not fields:
        raise _DoesNotApply(f"'match' finds nothing in the field '{TEXT}'")
    accepted = [answer for text in answers(template) for answer in _fill(text, fields)]
    return Question(
        question=_worded(template, fields),
        answers=tuple(dict.fromkeys(accepted)),
        entity=_one(template.entity, fields) if template.entity else "",
        document=document or "",
        source=where,
    )


def _worded(template: TemplateSpec, fields: dict[str, Any]) -> str:
    """The question in one of its wordings, drawn by its own text: the same on every machine."""
    filled = [_one(text, fields) for text in wordings(template)]
    return filled[crc32("\n".join(filled).encode("utf-8", "replace")) % len(filled)]


def _one(text: str, fields: dict[str, Any]) -> str:
    filled = _fill(text, fields)
    if len(filled) > 1:
        raise _DoesNotApply(f"'{text}' has {len(filled)} values here; name one of them, as in {{name[0]}}")
    return filled[0]


def _fill(text: str, fields: dict[str, Any]) -> list[str]:
    """The text once per value of the one field that has several."""
    filled = [""]
    for part, path in parts(text):
        values = [part] if path is None else _values(fields, path)
        if len(filled) > 1 and len(values) > 1:
            raise _DoesNotApply(f"'{text}' has two fields with several values")
        filled = [before + value for before in filled for value in values]
    return filled


def _values(fields: dict[str, Any], path: str) -> list[str]:
    values: list[str] = []
    for found in lookup(fields, path):
        each = found if isinstance(found, list) else list(found.values()) if isinstance(found, dict) else [found]
        try:
            values += [text for text in map(plain_text, each) if text]
        except TypeError as error:
            raise _DoesNotApply(f"{{{path}}} {error}") from None
    if not values:
        raise _DoesNotApply(f"{{{path}}} is missing or empty")
    return values
