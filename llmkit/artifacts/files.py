"""Writing so that a kill at any moment leaves the old file or the new one, never a half."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from llmkit.errors import RunError

OUTPUT = "run.output_dir"
NO_SPACE = 64 * 1024
"""Free bytes below which a disk is as good as full."""


@contextmanager
def whole_file(path: Path, setting: str = OUTPUT) -> Iterator[BinaryIO]:
    """A file that appears at `path` when the block ends well: a temporary one in the same folder, flushed to disk, then
    renamed. Raises RunError on a full disk. Args: setting: what says where the file is to lie."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("wb")
    except OSError as error:
        raise disk_error(path, error, setting) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise disk_error(path, error, setting) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, setting: str = OUTPUT) -> None:
    """All of it or nothing, as `whole_file` does."""
    with whole_file(path, setting) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def to_line(row: dict[str, Any]) -> bytes:
    """JSON and a line's end. A lone surrogate, which UTF-8 cannot write, becomes a question mark."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace") + b"\n"


def disk_error(path: Path, error: OSError, setting: str = OUTPUT) -> RunError:
    """The cause of a failed write, and its cure: `setting` says where the file is to lie."""
    cures = {
        errno.ENOSPC: ("the disk is full", f"free some space or set '{setting}' to another disk"),
        errno.EDQUOT: ("the disk quota is used up", f"free some space or set '{setting}' to another disk"),
        errno.EROFS: ("the file system is read-only", f"set '{setting}' to a folder that can be written"),
        errno.EACCES: ("no permission to write", f"set '{setting}' to a folder that can be written"),
    }
    what, cure = cures.get(
        error.errno or 0, (f"cannot be written ({error.strerror or error})", f"set another '{setting}'")
    )
    return RunError(str(path), what, cure)


def is_disk_full(path: Path, error: BaseException | None = None) -> bool:
    """Whether writing under `path` fails for want of space. Libraries wrap the cause, so words and free space count."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left" in str(error or "") or shutil.disk_usage(path).free < NO_SPACE


def sha256_of(data: Any) -> str:
    """Hash of plain data, independent of the order of its keys."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
