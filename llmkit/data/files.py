"""Rows of local files, one at a time, with the line each stands on. Constant memory but for `.json` arrays.

    .jsonl .ndjson   one JSON object a line
    .json            an array of objects, an object that holds one array of objects, or lines as in .jsonl
    .csv             a header and one row a record
    .parquet         its rows
    .txt .md         running text, cut into documents (see `documents`)

All but parquet may be compressed: `.jsonl.gz`. A line that cannot be read is a `Raw` with `error`, never an exception.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from llmkit.errors import DataError

LONG_DOCUMENT = 16_384
_HEADING = re.compile(r" = [^=\n]+ = \n?\Z|# \S.*\n?\Z")


class Raw(NamedTuple):
    """One row as it was read.

    Attributes:
        value: usually a dict; for a row with `error`, what could be read of it.
        file: path or name of the source.
        line: line of a jsonl, csv or txt file, else the number of the row; from 1.
        error: why the row cannot be used; empty for a good one.
    """

    value: Any
    file: str
    line: int
    error: str = ""


def kind_of(path: str | Path) -> str:
    """The suffix that says how a file is read, without `.gz`; "" for one that is not known."""
    name = Path(path).name.lower().removesuffix(".gz")
    suffix = Path(name).suffix
    return suffix if suffix in READERS else ""


def read_file(path: Path) -> Iterator[Raw]:
    """All rows of a file.

    Raises:
        DataError: the file cannot be opened or its container is damaged.
    """
    try:
        for value, line, error in READERS[kind_of(path)](path):
            yield Raw(value, str(path), line, error)
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException, csv.Error) as error:
        what = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise DataError(str(path), what, "check that the file is whole and readable") from error
    except (ValueError, RecursionError) as error:
        cure = "write one JSON object a line and name it .jsonl"
        raise DataError(str(path), f"is not valid JSON ({error})", cure) from error


_Row = tuple[Any, int, str]


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[_Row]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield _json_line(line, number)


def _json_line(line: bytes, number: int) -> _Row:
    try:
        return json.loads(line.decode("utf-8")), number, ""
    except UnicodeDecodeError as error:
        return _readable(line), number, f"invalid UTF-8 at byte {error.start + 1} of the line"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        where = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        return _readable(line), number, f"broken JSON{where}: {getattr(error, 'msg', error)}"


def _readable(line: bytes) -> str:
    return line[:1000].decode("utf-8", errors="replace").rstrip("\r\n")


def _json(path: Path) -> Iterator[_Row]:
    with _open(path) as file:
        first = file.readline()
        while first and not first.strip():
            first = file.readline()
        if not first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") and not _json_line(first, 1)[2]:
            rows = None
        else:
            rows = json.loads((first + file.read()).decode("utf-8-sig"))
    if rows is None:
        yield from _lines(path)
        return
    if isinstance(rows, dict):
        (only,) = rows.values() if len(rows) == 1 else (None,)
        rows = only if isinstance(only, list) and all(isinstance(row, dict) for row in only) else [rows]
    for number, row in enumerate(rows, start=1):
        yield row, number, ""


def _csv(path: Path) -> Iterator[_Row]:
    csv.field_size_limit(2**31 - 1)
    with _open(path) as file:
        lines = (_decoded(line, number) for number, line in enumerate(file))
        reader = csv.DictReader(lines, strict=True)
        for row in reader:
            yield row, reader.line_num, _csv_error(row, reader.fieldnames or ())


def _decoded(line: bytes, index: int) -> str:
    """Bytes that are no UTF-8 become lone surrogates, which `_is_broken` finds."""
    return line.decode("utf-8-sig" if index == 0 else "utf-8", errors="surrogateescape")


def _is_broken(text: str) -> bool:
    return not text.isascii() and any("\udc80" <= char <= "\udcff" for char in text)


def _csv_error(row: dict[str | Any, Any], header: Any) -> str:
    if None in row or None in row.values():
        found = sum(value is not None for key, value in row.items() if key is not None) + len(row.pop(None, ()))
        return f"{found} fields where the header has {len(header)}"
    if any(_is_broken(value) for value in row.values()):
        return "invalid UTF-8"
    return ""


def _parquet(path: Path) -> Iterator[_Row]:
    number = 0
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield row, number, ""


def _text(path: Path) -> Iterator[_Row]:
    with _open(path) as file:
        for text, line in documents(file):
            if _is_broken(text):
                yield text[:1000].encode("utf-8", "replace").decode(), line, "invalid UTF-8"
            else:
                yield {"text": text}, line, ""


def documents(file: IO[bytes]) -> Iterator[tuple[str, int]]:
    """Running text -> documents with the line each begins on.

    A document begins at a top heading (` = Title = ` as in WikiText, or `# Title`). One that grows past 16,384
    characters ends at the next blank line, past twice that at the end of the line, past four times that anywhere.
    So a file without headings that is no longer is one document. No character is lost but blank ones at the ends.
    """
    parts: list[str] = []
    size, start, number = 0, 1, 0
    while line := file.readline(4 * LONG_DOCUMENT):
        number += 1
        text = _decoded(line, number - 1)
        blank = not text.strip()
        full = (size >= LONG_DOCUMENT and blank) or size >= 2 * LONG_DOCUMENT
        if parts and (full or _HEADING.match(text)):
            yield from _document(parts, start)
            parts, size = [], 0
        if not parts:
            start = number
        if parts or not blank:
            parts.append(text)
            size += len(text)
    yield from _document(parts, start)


def _document(parts: list[str], start: int) -> Iterator[tuple[str, int]]:
    text = "".join(parts).strip()
    if text:
        yield text, start


READERS: dict[str, Callable[[Path], Iterator[_Row]]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
    ".md": _text,
}
