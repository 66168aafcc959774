"""Decisions on disk: appended, flushed one by one, never rewritten. A kill at any byte costs nothing that was saved.

A line is saved when `append` returns. What a kill or a full disk leaves of a line that was not saved is cut off before
the next one is written. One process at a time: the system lets the lock go when the holder dies.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from llmkit.artifacts.files import disk_error, to_line
from llmkit.errors import RunError
from llmkit.preference.rankings import EVENT, Decision, Standing, Undo, standing
from llmkit.preference.rollouts import Item

FILE = "rankings.jsonl"
_SETTING = "--out"
_BEGINS = b'{"id":"'
"""Of every line."""


def read_events(path: Path) -> list[Decision | Undo]:
    """All that was saved, also while a page writes to it: a line without its end is not saved yet.

    Raises:
        RunError: the file is missing or damaged, or two decisions in it have one id.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise RunError(str(path), what, "rank some items first: `llmkit rank PATH`") from None
    return _parsed(data[: _saved(data)], path)


def standing_in(path: Path, items: Mapping[str, Item]) -> Standing:
    """What counts of a file. Raises RunError as `read_events`, and DataError as `standing`, with the line."""
    return standing(read_events(path), items, partial(place_in, path))


def place_in(path: Path, decision: Decision) -> str:
    """`rankings.jsonl:7`: where a decision stands in a file."""
    lines = enumerate(path.read_bytes().split(b"\n"), start=1)
    return next((f"{path}:{number}" for number, line in lines if line.strip() and _is(line, decision)), str(path))


def _is(line: bytes, decision: Decision) -> bool:
    try:
        return EVENT.validate_json(line) == decision
    except ValidationError:
        return False


def _saved(data: bytes) -> int:
    """Length of what was saved: up to the last line's end, or all where what follows is whole all the same."""
    end = data.rfind(b"\n") + 1
    try:
        EVENT.validate_json(data[end:])
    except ValidationError:
        return end
    return len(data)


def _is_torn(data: bytes) -> bool:
    """Whether a file without a whole line is what a kill leaves of the first: its beginning, or a disk's zeros."""
    rest = data.rstrip(b"\0")
    return _BEGINS.startswith(rest) or rest.startswith(_BEGINS)


def _parsed(data: bytes, path: Path) -> list[Decision | Undo]:
    events, made = list[Decision | Undo](), dict[str, tuple[int, Decision]]()
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            event = _event(line, f"{path}:{number}")
            events.append(event)
            if isinstance(event, Decision):
                first, same = made.setdefault(event.id, (number, event))
                if same != event:
                    what = f"the id {event.id!r} is that of another decision, in line {first}"
                    raise RunError(f"{path}:{number}", what, "give one of the two another id: neither is dropped")
    return events


def _event(line: bytes, where: str) -> Decision | Undo:
    try:
        return EVENT.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"][1:]))
        what = f"is no decision ({f'{place}: ' if place else ''}{first['msg'].removeprefix('Value error, ')})"
        raise RunError(where, what, "mend or remove that line; the others stay as they are") from None


class Store:
    """An open file of decisions, held by this process. Made by `open_store`."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self._handle, self._writing = path, handle, threading.Lock()
        data = _read(handle)
        self._size, self._is_torn = _saved(data), True
        if not self._size and not _is_torn(data):
            raise RunError(str(path), "is no file of rankings", f"give another {_SETTING}; nothing was changed")
        self.events = _parsed(data[: self._size], path)
        self.num_cut = len(data) - self._size
        """Bytes of a half-written line that an earlier process left."""
        try:
            self._mend()
            if self._size and not data[: self._size].endswith(b"\n"):
                self._write(b"\n")
        except OSError as error:
            raise disk_error(path, error, _SETTING) from error

    def append(self, event: Decision | Undo) -> None:
        """Saves one event. Raises RunError where it cannot; the file then holds what it held before."""
        line = to_line(event.model_dump(mode="json"))
        with self._writing:
            try:
                if self._is_torn:
                    self._mend()
                self._check_unchanged()
                self._write(line)
            except OSError as error:
                # where even this fails, the next append does it first
                with suppress(OSError):
                    self._mend()
                raise disk_error(self.path, error, _SETTING) from error
            self.events.append(event)

    def _write(self, data: bytes) -> None:
        """All of it, flushed to the disk; only then does it count."""
        done, self._is_torn = 0, True
        while done < len(data):
            done += os.write(self._handle, data[done:])
        os.fsync(self._handle)
        self._size, self._is_torn = self._size + len(data), False

    def _mend(self) -> None:
        if os.fstat(self._handle).st_size > self._size:
            os.ftruncate(self._handle, self._size)
        self._is_torn = False

    def _check_unchanged(self) -> None:
        """An editor saves under the same name, a script may append: neither must be overwritten or written past."""
        found = os.fstat(self._handle)
        try:
            is_same = os.path.samestat(found, self.path.stat())
        except OSError:
            is_same = False
        if not is_same or found.st_size != self._size:
            raise RunError(str(self.path), "was changed by another program", "stop and start `llmkit rank` again")


def _read(handle: int) -> bytes:
    parts = []
    os.lseek(handle, 0, os.SEEK_SET)
    while part := os.read(handle, 1 << 20):
        parts.append(part)
    return b"".join(parts)


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Opens or creates the file and mends its last line.

    Raises:
        RunError: another process holds it, it cannot be read (see `read_events`), or the disk does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise disk_error(path, error, _SETTING) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another `llmkit rank` is writing to it"
            raise RunError(str(path), what, "use the page that it serves; several raters share one page") from None
        _sync_folder(path.parent)
        yield Store(path, handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
