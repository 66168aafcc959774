"""K completions per prompt, to be ranked.

rollouts.jsonl    {"id": str, "prompt": text or [messages], "completions": [{"id": str, "text": str, ...}], ...}

Further columns of an item and of a completion are read past. An empty completion is one that can be ranked.
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
from llmkit.errors import DataError

FILE = "rollouts.jsonl"
SHAPE = '{"id", "prompt", "completions": [{"id", "text"}, ...]}'
_ITEM, _COMPLETION = {"id", "prompt", "completions"}, {"id", "text"}
Message = dict[str, Any]


@dataclass(frozen=True)
class Completion:
    id: str
    text: str


@dataclass(frozen=True)
class Item:
    """A prompt and the completions that are to be ranked."""

    id: str
    prompt: str | list[Message]
    completions: tuple[Completion, ...]

    @cached_property
    def texts(self) -> dict[str, str]:
        return {each.id: each.text for each in self.completions}

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
    return Item(_id(row["id"], f"{where}: id"), prompt, completions)


def _completion(row: Any, where: str) -> Completion:
    if not isinstance(row, dict) or not set(row) >= _COMPLETION:
        raise DataError(where, "is no object with id and text", f"write {SHAPE}")
    if not isinstance(row["text"], str):
        raise DataError(where, f"text is {type(row['text']).__name__}, not text", 'an empty completion is ""')
    return Completion(_id(row["id"], f"{where}: id"), row["text"])


def _check_distinct(completions: tuple[Completion, ...], where: str) -> None:
    doubled = [id for id, count in Counter(each.id for each in completions).items() if count > 1]
    if doubled:
        what = f"several completions have the id {doubled[0]!r}"
        raise DataError(where, what, "give every completion of a prompt an id of its own")
    if len({each.text.strip() for each in completions}) < 2:
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
