"""Rows of question files -> questions; what cannot be asked is named, with its place and reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from llmkit.errors import DataError
from llmkit.knowledge.records import Question
from llmkit.knowledge.repeats import Seen, contradiction
from llmkit.knowledge.split import is_unicode
from llmkit.knowledge.templates import TEXT, Bad, Reason, lookup, plain_text, questions_of
from llmkit.recipe.knowledge import QuestionSource, TemplateSpec

Contradictory = Callable[[Sequence[str]], bool]
"""Whether accepted answers cannot all be right, such as two years."""

_REQUIRED = ("question", "answers")
_OF_ROWS = ("group", "document", "language")
"""What a row says of its questions, however these are made."""
_COLUMNS = (*_REQUIRED, "entity", *_OF_ROWS)


class _BadRow(Exception):
    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def from_rows(
    raws: Iterable[tuple[Any, str]],
    source: QuestionSource,
    contradictory: Contradictory,
    seen: Seen | None = None,
) -> Iterator[Question | Bad]:
    """Questions of a source, in the rows' order.

    Args:
        raws: row and where it stands (`file:line`). Every row must be given, in every process: what is a duplicate
            depends on the rows before it.
        source: its `columns` map question, answers, entity, group, document and language to paths in the rows; with
            `templates` group, document, language and text.
        seen: what was read before, to which new questions are added. Give one to several sources whose questions are
            not to repeat. Questions of its `disputed` wordings are passed on: see `repeats.settle`.

    Raises:
        DataError: `columns` names what a question does not have, or a template is malformed.
    """
    check_columns(source)
    return sift(_candidates(raws, source), contradictory, Seen() if seen is None else seen)


def sift(found: Iterable[Question | Bad], contradictory: Contradictory, seen: Seen) -> Iterator[Question | Bad]:
    """Passes on what can be asked. Accepted answers without a letter or digit are taken out, and a question that has
    no other, or whose answers contradict, or that was seen before comes as `Bad`."""
    for each in found:
        yield each if isinstance(each, Bad) else _sifted(each, contradictory, seen)


def _sifted(question: Question, contradictory: Contradictory, seen: Seen) -> Question | Bad:
    answers = tuple(dict.fromkeys(answer for answer in question.answers if _says_something(answer)))
    checked = replace(question, answers=answers)
    if reason := _why_bad(question, checked):
        return Bad(question.source, reason, question.question or " | ".join(question.answers))
    if len(answers) > 1 and contradictory(answers):
        return contradiction(checked)
    return Bad(question.source, "duplicate", question.question) if seen.again(checked) else checked


def _why_bad(question: Question, checked: Question) -> Reason | None:
    if not all(map(is_unicode, (question.question, *question.answers, question.entity, question.document))):
        return "broken text"
    if not _says_something(question.question):
        return "empty question"
    if not checked.answers:
        return "answer without letters or digits" if any(question.answers) else "empty answer"
    return None


def _says_something(text: str) -> bool:
    return any(char.isalnum() for char in text)


def check_columns(source: QuestionSource) -> None:
    """Raises DataError for a column map that a question source has no use for."""
    known = _known_columns(source)
    for key in source.columns:
        if key not in known:
            kind = "questions made by templates have" if source.templates else "questions have"
            near = get_close_matches(key, known, n=1)
            cure = f"did you mean '{near[0]}'?" if near else f"it can name {', '.join(known)}"
            raise DataError(
                source.path or f"from: {source.from_}", f"'columns' names '{key}', no part that {kind}", cure
            )


def _known_columns(source: QuestionSource) -> tuple[str, ...]:
    if not source.templates:
        return _COLUMNS
    return (*_OF_ROWS, *([TEXT] if _looks_at_text(source.templates) else []))


def _looks_at_text(templates: Sequence[TemplateSpec]) -> bool:
    return any(template.match is not None for template in templates)


def _candidates(raws: Iterable[tuple[Any, str]], source: QuestionSource) -> Iterator[Question | Bad]:
    for row, where in raws:
        try:
            if not isinstance(row, dict):
                raise _BadRow("unreadable row", f"a row must be an object with columns, this is {type(row).__name__}")
            if source.templates:
                yield from _from_templates(row, source, where)
            else:
                yield _from_columns(row, source.columns, where)
        except _BadRow as bad:
            yield Bad(where, bad.reason, bad.detail)


def _from_columns(row: dict[str, Any], columns: dict[str, str], where: str) -> Question:
    answers = _column(row, columns, "answers")
    texts = {key: _text(row, columns, key) for key in _COLUMNS if key != "answers"}
    return Question(answers=_answers(answers), source=where, **texts)


def _from_templates(row: dict[str, Any], source: QuestionSource, where: str) -> Iterator[Question | Bad]:
    told: dict[str, Any] = {
        key: text for key in _OF_ROWS if key in source.columns and (text := _text(row, source.columns, key))
    }
    if TEXT in source.columns:
        row = {**row, TEXT: _column(row, source.columns, TEXT)}
    for made in questions_of(row, source.templates, where):
        yield made if isinstance(made, Bad) else replace(made, **told)


def _column(row: dict[str, Any], columns: dict[str, str], key: str) -> Any:
    """The value of a column; None for one that a row need not have. Raises _BadRow where it must."""
    path = columns.get(key, key)
    if path in row:
        return row[path]
    try:
        found = lookup(row, path)
    except ValueError:
        found = []
    if not found and (key in columns or key in _REQUIRED):
        near = get_close_matches(path, [str(name) for name in row], n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise _BadRow("missing column", f"{path} (has {', '.join(map(str, row))}){hint}")
    return found if len(found) > 1 else found[0] if found else None


def _text(row: dict[str, Any], columns: dict[str, str], key: str) -> str:
    value = _column(row, columns, key)
    try:
        # A document keeps its line ends.
        return value.strip() if key == "document" and isinstance(value, str) else plain_text(value)
    except TypeError as error:
        raise _BadRow("unreadable row", f"{key} {error}") from None


def _answers(value: Any) -> tuple[str, ...]:
    """Of a string, a number, a list of them, or a JSON list in a string."""
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _BadRow("unreadable row", f"answers look like a list and are no JSON: {value[:100]}") from None
    try:
        texts = [plain_text(answer) for answer in (value if isinstance(value, (list, tuple)) else [value])]
    except TypeError as error:
        raise _BadRow("unreadable row", f"an accepted answer {error}") from None
    return tuple(text for text in texts if text)
