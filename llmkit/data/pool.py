"""The good rows of one source, on disk, in reading order; the bad ones, counted and written down.

Rows lie in a temporary file as JSON; memory holds 24 bytes a row, and about 100 more while repeats are looked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from llmkit.artifacts.files import disk_error
from llmkit.data.files import Raw
from llmkit.data.messages import BadRow, Row
from llmkit.data.sources import read_source
from llmkit.errors import DataError
from llmkit.recipe.parts import DataSource
from llmkit.recipe.reads import name_of

# A source whose first so many rows are all bad is not read on.
HOPELESS = 1000
# Characters of a bad row that are written down.
EXCERPT = 500


class Placed(NamedTuple):
    """A canonical row and where it was read."""

    row: Row
    source: str
    file: str
    line: int

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


def whole(row: Row, data: bytes) -> bytes:
    """A row is a repeat where all of it is the same."""
    return data


class Opened(NamedTuple):
    """A source whose rows are about to be converted.

    Attributes:
        raws: its rows, from the first on.
        convert: a raw row without `error` -> its row, of JSON values. Raises BadRow for a row that cannot be used, and
            DataError where the source as a whole does not fit.
        same: (row, row as JSON) -> what repeats have in common.
    """

    raws: Iterable[Raw]
    convert: Callable[[Raw], Row]
    same: Callable[[Row, bytes], bytes] = whole


Opener = Callable[[DataSource, Iterator[Raw]], Opened]
"""Says how the rows of a source are converted. Raises DataError where its settings do not fit."""


@dataclass
class Rejects:
    """Bad rows of a stage. They are written to `path` as {"source", "file", "line", "reason", "row"}."""

    path: Path | None
    first: list[str] = field(default_factory=list)
    _file: Any = None

    def add(self, source: str, raw: Raw, reason: str) -> None:
        if len(self.first) < 3:
            self.first.append(f"{raw.file}:{raw.line}: {reason}")
        if self.path is None:
            return
        line = {"source": source, "file": raw.file, "line": raw.line, "reason": reason, "row": _excerpt(raw.value)}
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("w", encoding="utf-8", errors="replace")
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise disk_error(self.path, error) from error

    def close(self) -> str | None:
        """The file's path if anything was rejected."""
        if self._file is None:
            return None
        self._file.close()
        return str(self.path)


def _excerpt(value: Any) -> str:
    """The beginning of a bad row; nothing of one that cannot be written down at all."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return ""
    return text[:EXCERPT]


class Pool:
    """Rows of one source, read back by number.

    Attributes:
        num_read: rows that the source held; for OpenAssistant trees, trees.
        num_rejected: bad ones.
        num_duplicates: exact repeats that were left out.
        num_unknown, num_heldout: rows that `llmkit.data.gate` kept out because the model does not know their facts, or
            because a probe holds them out for evaluation.
        num_not_probed: rows that it let pass because the probe did not ask about them.
    """

    def __init__(self, source: DataSource, folder: Path) -> None:
        self.source, self.name = source, name_of(source)
        self.num_read = self.num_rejected = self.num_duplicates = 0
        self.num_unknown = self.num_heldout = self.num_not_probed = 0
        self._folder = folder
        self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as the pool
        self._ends, self._lines, self._file_of = array("Q"), array("Q"), array("I")
        self._files: dict[str, int] = {}
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def num_gated(self) -> int:
        return self.num_unknown + self.num_heldout

    def add(self, data: bytes, raw: Raw) -> None:
        try:
            self._spool.write(data)
        except OSError as error:
            raise disk_error(self._folder, error) from error
        self._ends.append((self._ends[-1] if self._ends else 0) + len(data))
        self._lines.append(raw.line)
        if raw.file not in self._files:
            self._files[raw.file] = len(self._names)
            self._names.append(raw.file)
        self._file_of.append(self._files[raw.file])

    def data(self, index: int) -> bytes:
        """The row as JSON."""
        start = self._ends[index - 1] if index else 0
        return os.pread(self._spool.fileno(), self._ends[index] - start, start)

    def __getitem__(self, index: int) -> Placed:
        return Placed(json.loads(self.data(index)), self.name, self._names[self._file_of[index]], self._lines[index])

    def flush(self) -> None:
        self._spool.flush()


def fill(pool: Pool, raws: Iterable[Raw], reject: Callable[[Raw], None]) -> None:
    """Puts rows into the pool as they are, in JSON; of a stream no more than `num_rows` asks for."""
    for raw in raws:
        pool.num_read += 1
        if raw.error:
            reject(raw)
            continue
        pool.add(json.dumps(raw.value, default=str).encode("ascii"), raw)
        if pool.source.streaming and len(pool) == pool.source.num_rows:
            break
    pool.flush()


def read_pool(
    source: DataSource,
    *,
    opener: Opener,
    data_stages: dict[str, Path],
    seed: int,
    dedup: bool,
    max_rejected: float,
    rejects: Rejects,
    folder: Path,
) -> Pool:
    """Read, convert, deduplicate.

    Args:
        opener: how raw rows become rows.
        max_rejected: share of this source's rows that may be bad.

    Raises:
        DataError: the source is missing or empty, it does not fit, or too many rows are bad.
    """
    pool, seen = Pool(source, folder), set[bytes]()
    mine = Rejects(None)
    opened = opener(source, read_source(source, data_stages, seed))
    for raw in opened.raws:
        pool.num_read += 1
        try:
            row = _converted(raw, opened)
            data = packed(row)
        except BadRow as bad:
            pool.num_rejected += 1
            mine.add(pool.name, raw, str(bad))
            rejects.add(pool.name, raw, str(bad))
            if pool.num_rejected == pool.num_read == HOPELESS:
                break
            continue
        digest = hashlib.blake2b(opened.same(row, data), digest_size=16).digest() if dedup else b""
        if dedup and digest in seen:
            pool.num_duplicates += 1
            continue
        seen.add(digest)
        pool.add(data, raw)
        if source.streaming and len(pool) == source.num_rows:
            break
    pool.flush()
    _check_share(pool, mine, max_rejected, rejects.path)
    return pool


def _converted(raw: Raw, opened: Opened) -> Row:
    if raw.error:
        raise BadRow(raw.error)
    return opened.convert(raw)


def packed(row: Any) -> bytes:
    """As JSON. Raises BadRow for what JSON or UTF-8 cannot hold."""
    try:
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow("it holds a lone surrogate, which is no character (invalid UTF-16 in a JSON escape)") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRow(f"it holds a value that JSON cannot ({error})") from None


def _check_share(pool: Pool, mine: Rejects, max_rejected: float, path: Path | None) -> None:
    if not pool.num_read:
        raise DataError(_place(pool), "holds no rows", "remove it from 'data', or fill it")
    share = pool.num_rejected / pool.num_read
    if share > max_rejected or not len(pool):
        what = f"{pool.num_rejected} of {pool.num_read} rows are bad ({share:.1%}, allowed {max_rejected:.1%}): "
        listed = f", all in {path}" if path else ""
        cure = f"mend or remove them{listed}, or raise 'max_rejected'" if len(pool) else f"mend them{listed}"
        raise DataError(_place(pool), what + "; ".join(mine.first), cure)


def _place(pool: Pool) -> str:
    path = pool.source.path
    return str(Path(path).expanduser().absolute()) if path and Path(path).expanduser().exists() else pool.name
