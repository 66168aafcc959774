"""Reading a file while another process appends to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Follower:
    """Whole lines that were added since the last call. The file may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self.rest = b""
        self.skip()

    def skip(self) -> None:
        """Start at the present end."""
        self.position = self.path.stat().st_size if self.path.exists() else 0

    def lines(self) -> Iterator[str]:
        try:
            with self.path.open("rb") as file:
                file.seek(self.position)
                added = file.read()
        except FileNotFoundError:
            return
        self.position += len(added)
        *whole, self.rest = (self.rest + added).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", errors="replace")

    def records(self) -> Iterator[dict[str, Any]]:
        """The lines as JSON objects; a line cut off by a kill is passed over."""
        for line in self.lines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict):
                yield record
