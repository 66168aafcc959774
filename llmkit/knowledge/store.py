"""Rows of a stage's steps on disk: what is finished stays finished, and a killed stage goes on at the first gap.

    data/steps/<step>.jsonl            a step that one process writes whole
    data/steps/<step>-00012.jsonl      one chunk of a step whose chunks are shared out over processes
    data/steps/steps.json              what each step was made from: {step: key}

Every file appears whole or not at all, so that its existence means that it is finished. Files that were made from
something else (another key) are deleted before a stage begins.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.artifacts.files import disk_error, read_json, to_line, whole_file, write_json
from llmkit.errors import RunError

KEYS = "steps.json"
Row = dict[str, Any]


@contextmanager
def writing(path: Path) -> Iterator[Callable[[Row], None]]:
    """A function that writes a row; the file appears when the block ends well. Raises RunError on a full disk."""
    with whole_file(path) as file:

        def write(row: Row) -> None:
            file.write(to_line(row))

        yield write


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a file that `writing` wrote. Raises RunError where somebody damaged it."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield _parsed(line, path, number)


def _parsed(line: bytes, path: Path, number: int) -> Row:
    try:
        row: Row = json.loads(line)
    except ValueError as error:
        raise RunError(f"{path}:{number}", f"is damaged ({error})", "delete the file and run the stage again") from None
    return row


class Chunks:
    """A file of rows, read `size` rows at a time by number. Memory: 8 bytes a chunk."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size, self.num_rows = path, size, 0
        self._starts = array("Q")
        with path.open("rb") as file:
            start = 0
            for line in file:
                if self.num_rows % size == 0:
                    self._starts.append(start)
                start += len(line)
                self.num_rows += 1

    def __len__(self) -> int:
        """Number of chunks; the last may be short."""
        return len(self._starts)

    def __getitem__(self, index: int) -> list[Row]:
        first = index * self.size
        rows = []
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            for number in range(first, min(first + self.size, self.num_rows)):
                rows.append(_parsed(file.readline(), self.path, number + 1))
        return rows

    def rows_in(self, index: int) -> int:
        return min(self.size, self.num_rows - index * self.size)


@dataclass(frozen=True)
class Steps:
    """The files of a stage's steps."""

    folder: Path

    def begin(self, keys: dict[str, str]) -> None:
        """Delete every file that was not made from what `keys` says. One process calls this before the others go on.

        Args:
            keys: step -> hash of all that its rows depend on.
        """
        before = self._keys()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob(".*.partial"):
                path.unlink(missing_ok=True)
            for step, key in keys.items():
                if before.get(step) != key:
                    for path in [self.whole(step), *self.folder.glob(f"{step}-*.jsonl")]:
                        path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(self.folder, error) from error
        # after the files are gone: a kill in between leaves the old key with fewer files, which are all its own
        write_json(self.folder / KEYS, keys)

    def _keys(self) -> dict[str, str]:
        try:
            keys = read_json(self.folder / KEYS)
        except (OSError, ValueError):
            return {}
        return keys if isinstance(keys, dict) else {}

    def whole(self, step: str) -> Path:
        return self.folder / f"{step}.jsonl"

    def path(self, step: str, index: int) -> Path:
        return self.folder / f"{step}-{index:05d}.jsonl"

    def have(self, *steps: str) -> bool:
        """Whether steps that one process writes are finished."""
        return all(self.whole(step).is_file() for step in steps)

    def write(self, step: str, index: int, rows: Iterable[Row]) -> None:
        with writing(self.path(step, index)) as write:
            for row in rows:
                write(row)

    def read(self, step: str, index: int) -> list[Row]:
        return list(read_rows(self.path(step, index)))

    def rows(self, step: str, num_chunks: int) -> Iterator[Row]:
        """All rows of a step in the order of its chunks, one at a time."""
        for index in range(num_chunks):
            yield from read_rows(self.path(step, index))

    def missing(self, step: str, num_chunks: int, process: int, num_processes: int) -> list[int]:
        """Chunks of one process that are not there yet: chunk i is process i % num_processes's."""
        return [i for i in range(process, num_chunks, num_processes) if not self.path(step, i).is_file()]
