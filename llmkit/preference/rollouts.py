"""K completions per prompt, to be ranked.

rollouts.jsonl    {"id": str, "prompt": text or [messages], "completions": [{"id": str, "text": str, ...}], ...}

Of an answer with tools, a completion has all turns and results as `messages`, of which `text` is the last; the row may
have the schemas of the tools as `tools`. Further columns of an item and of a completion are read past. An empty
completion is one that can be ranked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmkit.artifacts.files import sha256_of
from llmkit.artifacts.rundir import RunDir
from llmkit.chat.results import Misplaced, in_call_order
from llmkit.chat.told import whole_of
from llmkit.chat.turn import Message, answer_to
from llmkit.errors import DataError

FILE = "rollouts.jsonl"
SHAPE = '{"id", "prompt", "completions": [{"id", "text"}, ...]}'
_ITEM, _COMPLETION = {"id", "prompt", "completions"}, {"id", "text"}


@dataclass(frozen=True)
class Completion:
    id: str
    text: str
    messages: tuple[Message, ...] = ()
    """With tools: all turns and results behind the prompt."""


@dataclass(frozen=True)
class Item:
    """A prompt and the completions that are to be ranked."""

    id: str
    prompt: str | list[Message]
    completions: tuple[Completion, ...]
    tools: tuple[dict[str, Any], ...] = ()
    """Schemas of those at hand."""

    @cached_property
    def texts(self) -> dict[str, str]:
        """All of each answer as a text."""
        return {each.id: whole_of(each.text, each.messages) for each in self.completions}

    @cached_property
    def answers(self) -> dict[str, str | list[Message]]:
        """Each answer in the prompt's shape, as rows and reward functions have it."""
        return {each.id: answer_to(self.prompt, each.messages or each.text) for each in self.completions}

    @property
    def schemas(self) -> dict[str, Any]:
        """The column `tools` of a row on this prompt, if it has one."""
        return {"tools": list(self.tools)} if self.tools else {}

    def completion(self, id: str) -> Completion:
        return next(each for each in self.completions if each.id == id)

    @cached_property
    def version(self) -> str:
        """Changes with the prompt and the completions: rankings of other texts are not rankings of these."""
        return sha256_of([self.id, self.prompt, self.texts])[:16]


def find_rollouts(path: Path) -> Path:
    """The file itself, the one in a folder, or of a run the one that its `rank` stage waits for. Where none waits any
    more, the one that people have ranked.

    Raises:
        DataError: there is none, or a run has several.
    """
    kept = sorted(path.glob(f"rankings/*/{FILE}")) if path.is_dir() else []
    finished = {stage.name for stage in RunDir(path).stages() if stage.manifest() is not None} if kept else set()
    waiting = [file for file in kept if file.parent.name not in finished]
    found = waiting or kept
    if len(found) > 1:
        folders = ", ".join(str(file.parent) for file in found)
        what = f"{len(found)} stages {'wait for' if waiting else 'have their'} rankings"
        raise DataError(str(path), what, f"give one of {folders}")
    file = found[0] if found else path / FILE if path.is_dir() else path
    if not file.is_file():
        raise DataError(str(file), "no such file", f"give a {FILE}, a folder with one, or a run that waits for one")
    return file


def read_rollouts(path: Path) -> list[Item]:
    """All items of a file, in its order.

    Raises:
        DataError: the file is missing, empty or holds a row that cannot be ranked, with its line.
    """
    items: dict[str, Item] = {}
    lines: dict[str, int] = {}
    for number, row in _rows(path):
        where = f"{path}:{number}"
        item = item_of(row, where)
        if item.id in items:
            what = f"the id {item.id!r} stands in line {lines[item.id]} already"
            raise DataError(where, what, "give every prompt an id of its own")
        items[item.id], lines[item.id] = item, number
    if not items:
        raise DataError(str(path), "holds no rows", f"write one row a prompt: {SHAPE}")
    return list(items.values())


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _row(line, f"{path}:{number}")
    except OSError as error:
        raise DataError(
            str(path), f"cannot be read ({error.strerror})", "check that it is there and readable"
        ) from None


def _row(line: bytes, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(where, f"broken JSON ({error})", f"write one row a line: {SHAPE}") from None


def item_of(row: Any, where: str) -> Item:
    """Raises DataError for a row that cannot be ranked."""
    if not isinstance(row, dict):
        raise DataError(where, f"is {type(row).__name__}, not a row", f"write {SHAPE}")
    if missing := sorted(_ITEM - set(row)):
        raise DataError(where, f"has no {', '.join(missing)}", f"write {SHAPE}")
    prompt, answers = _prompt(row["prompt"], where), row["completions"]
    if not isinstance(answers, list) or not answers:
        raise DataError(where, "has no completions", "give every prompt at least two")
    completions = tuple(_completion(each, f"{where}: completions[{index}]") for index, each in enumerate(answers))
    _check_distinct(completions, where)
    if isinstance(prompt, str) and any(each.messages for each in completions):
        raise DataError(where, "has answers with messages to a prompt that is a text", "write the prompt as messages")
    return Item(_id(row["id"], f"{where}: id"), prompt, completions, _tools(row.get("tools"), where))


def _completion(row: Any, where: str) -> Completion:
    if not isinstance(row, dict) or not set(row) >= _COMPLETION:
        raise DataError(where, "is no object with id and text", f"write {SHAPE}")
    if not isinstance(row["text"], str):
        raise DataError(where, f"text is {type(row['text']).__name__}, not text", 'an empty completion is ""')
    return Completion(_id(row["id"], f"{where}: id"), row["text"], _turns(row.get("messages"), f"{where}: messages"))


def _turns(value: Any, where: str) -> tuple[Message, ...]:
    """Raises DataError unless they are the assistant's turns with the results of their calls, an answer last."""
    if value is None:
        return ()
    cure = "write the assistant's turns and the results of their calls, an answer last"
    if not isinstance(value, list) or not all(_is_turn(message) for message in value):
        raise DataError(where, "are no messages of assistant and tool with text", cure)
    try:
        in_order = in_call_order(value) == value
    except Misplaced as error:
        raise DataError(f"{where}[{error.index}]", str(error), cure) from None
    if not in_order or not value or value[-1]["role"] != "assistant":
        raise DataError(where, "do not end with an answer, or have results in another order than their calls", cure)
    return tuple(value)


def _is_turn(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("role") not in ("assistant", "tool"):
        return False
    calls = message.get("tool_calls") or ()
    return isinstance(message.get("content"), str) and isinstance(calls, list | tuple) and all(map(_is_call, calls))


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str) and "arguments" in function


def _tools(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise DataError(f"{where}: tools", "is no list of schemas", "write them as a chat template takes them")
    return tuple(value)


def _check_distinct(completions: tuple[Completion, ...], where: str) -> None:
    doubled = [id for id, count in Counter(each.id for each in completions).items() if count > 1]
    if doubled:
        what = f"several completions have the id {doubled[0]!r}"
        raise DataError(where, what, "give every completion of a prompt an id of its own")
    if len({whole_of(each.text, each.messages).strip() for each in completions}) < 2:
        raise DataError(where, "has fewer than two distinct completions", "leave the prompt out: nothing can be ranked")


def _prompt(prompt: Any, where: str) -> str | list[Message]:
    if isinstance(prompt, str):
        return _text(prompt, f"{where}: prompt")
    if not isinstance(prompt, list) or not prompt:
        raise DataError(where, "prompt is neither text nor a list of messages", f"write {SHAPE}")
    for index, message in enumerate(prompt):
        here = f"{where}: prompt[{index}]"
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise DataError(here, "is no message with text", 'write {"role": "user", "content": "..."}')
        _text(message.get("role"), f"{here}: role")
    return prompt


def _id(value: Any, where: str) -> str:
    if any("\ud800" <= char <= "\udfff" for char in _text(value, where)):
        raise DataError(where, "holds half a character, which no file can", "use letters and digits")
    return str(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        what = "is empty" if isinstance(value, str) else f"is {type(value).__name__}, not text"
        raise DataError(where, what, f"write {SHAPE}")
    return value
