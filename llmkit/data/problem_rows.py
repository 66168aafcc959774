"""Raw rows of a source -> problems: {"prompt": a text or messages, and every other column of the row}.

Columns whose value is None (or NaN) count as absent: where rows with different columns were stored as one table, every
row has all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any

from llmkit.data.files import Raw
from llmkit.data.formats import renamed
from llmkit.data.messages import BadRow, Message, Row, check_turns, normalise, text_of
from llmkit.data.pool import Opened, Opener, packed
from llmkit.errors import DataError
from llmkit.recipe.parts import DataSource
from llmkit.recipe.practice import ProblemSource
from llmkit.recipe.reads import name_of

Prompt = str | list[Message]

TEXT_COLUMNS = ("question", "problem", "query", "instruction")
"""Where a prompt stands that no column `prompt` holds. `messages` is looked at after these."""
TAKEN = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""Keyword arguments with which TRL calls reward functions, beside a row's columns."""


def problem_rows(chat: bool) -> Opener:
    """Opens sources of problems. Repeats are rows with the same prompt.

    Args:
        chat: whether prompts become messages. If not, all are texts, and messages are refused.
    """

    def opened(source: DataSource, raws: Iterator[Raw]) -> Opened:
        assert isinstance(source, ProblemSource), source
        _check_settings(source, chat)
        return Opened(raws, partial(_problem, source=source, chat=chat), lambda row, _: packed(row["prompt"]))

    return opened


def _check_settings(source: ProblemSource, chat: bool) -> None:
    where = name_of(source)
    if source.system is not None and not chat:
        what = "has a 'system' message, but prompts are plain texts here"
        raise DataError(where, what, "write it into 'phrasing', or give the model a 'chat_template'")
    if "prompt" in source.set:
        raise DataError(where, "'set' cannot give the prompt", "name its column: columns: {prompt: ...}")
    for name in TAKEN:
        if name in source.set or name in source.columns:
            what = f"'{'set' if name in source.set else 'columns'}' makes a column '{name}'"
            raise DataError(where, f"{what}, which reward functions get from the trainer", "choose another name")


def _problem(raw: Raw, source: ProblemSource, chat: bool) -> Row:
    """Raises BadRow, and DataError with the row's place for what would be the same in every row."""
    if not isinstance(raw.value, dict):
        raise BadRow(f"a row must be an object with columns, this is {type(raw.value).__name__}")
    place = f"{raw.file}:{raw.line}"
    row = {key: value for key, value in renamed(raw.value, source.columns).items() if not _is_absent(value)}
    _check_names(row, place)
    value = _take_prompt(row, place)
    if source.answer_after is not None:
        _take_answer(row, source.answer_after)
    prompt = _prompt(value, source, chat, place)
    return {"prompt": prompt, **{name: _plain(value, name) for name, value in row.items()}, **source.set}


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _check_names(row: Row, place: str) -> None:
    if unnamed := [name for name in row if not isinstance(name, str)]:
        raise BadRow(f"the column {unnamed[0]!r} has no text as its name")
    for name in TAKEN:
        if name in row:
            cure = f"rename it in the file, or here with columns: {{my_{name}: {name}}}"
            raise DataError(place, f"has a column '{name}', which reward functions get from the trainer", cure)


def _take_prompt(row: Row, place: str) -> Any:
    """Takes the prompt out of the row. The last answer of a list of `messages` becomes `solution`."""
    if "prompt" in row:
        return row.pop("prompt")
    found = [name for name in TEXT_COLUMNS if name in row]
    if len(found) > 1:
        cure = f"say which: columns: {{prompt: {found[0]}}}"
        raise DataError(place, f"its prompt could be {' or '.join(found)}", cure)
    if found:
        text = row.pop(found[0])
        # as in Alpaca's rows
        more = row.get("input") if found == ["instruction"] else None
        return f"{text}\n\n{more}" if isinstance(text, str) and isinstance(more, str) and more.strip() else text
    if "messages" in row:
        return _question_of(row)
    names = ", ".join((*TEXT_COLUMNS, "messages"))
    raise BadRow(f"it has no prompt: no column prompt, {names} (has {', '.join(row)})")


def _question_of(row: Row) -> list[Message]:
    messages = normalise(row.pop("messages"), "messages")
    check_turns(messages)
    if messages[-1]["role"] == "assistant":
        row.setdefault("solution", messages.pop()["content"])
    return messages


def _take_answer(row: Row, mark: str) -> None:
    """What stands behind the last mark in `solution` becomes `answer`."""
    if "solution" not in row and "answer" not in row:
        raise BadRow(f"missing column solution (has {', '.join(row)})")
    name = "solution" if "solution" in row else "answer"
    solution = text_of(row[name], name)
    _, found, answer = solution.rpartition(mark)
    if not found:
        raise BadRow(f"{name} does not hold the mark {mark!r}")
    if not answer.strip():
        raise BadRow(f"nothing stands behind the mark {mark!r} in {name}")
    row |= {"solution": solution, "answer": answer.strip()}


def _prompt(value: Any, source: ProblemSource, chat: bool, place: str) -> Prompt:
    if isinstance(value, str):
        text = source.phrasing.replace("{prompt}", text_of(value, "prompt"))
        return _with_system([{"role": "user", "content": text}], source, place) if chat else text
    if not isinstance(value, list):
        raise BadRow(f"prompt is {type(value).__name__}, neither text nor messages")
    if not chat:
        cure = "give the model a 'chat_template', or name a column of texts: columns: {prompt: ...}"
        raise DataError(place, "its prompt is a list of messages, but prompts are plain texts here", cure)
    messages = normalise(value, "prompt")
    check_turns(messages)
    asked = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if not asked:
        raise BadRow("no message of the prompt is the user's")
    if messages[-1]["role"] == "assistant":
        raise BadRow("the prompt ends with a message of the assistant, whose turn it should be")
    last = messages[asked[-1]]
    messages[asked[-1]] = {**last, "content": source.phrasing.replace("{prompt}", last["content"])}
    return _with_system(messages, source, place)


def _with_system(messages: list[Message], source: ProblemSource, place: str) -> list[Message]:
    if source.system is None:
        return messages
    if messages[0]["role"] == "system":
        raise DataError(place, "has a system message of its own, and the source sets 'system'", "leave one of them out")
    return [{"role": "system", "content": source.system}, *messages]


def _plain(value: Any, name: str) -> Any:
    """A column's value as JSON has it; times and decimal numbers as text."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if not isinstance(value, (str, int)):
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadRow(f"the column {name} holds a value that JSON cannot ({error})") from None
    return value
