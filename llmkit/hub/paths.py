"""Paths of this machine: they say who you are and mean nothing elsewhere, so `local/<name>` stands in their place."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_ROOTS = (
    "home|Users|root|tmp|private|var|mnt|media|data|work|workspace|scratch|srv|opt|usr|content|kaggle|gpfs|lustre|nfs"
)
_REST = r"[^\s\"'`<>|,;:)\]}\\]*"
_ALONE = r"(?<![\w.~-])"
"""In front of a folder's name: `web/app` is not the folder `/app`."""
_ROOTED = re.compile(rf"(?<![\w.:/~-])(?:~/|/(?:{_ROOTS})/|[A-Za-z]:\\){_REST}(?:\\{_REST})*")


class Paths:
    """Args: own: folders of this machine, besides the home, the working and the temporary folder."""

    def __init__(self, own: Iterable[Path] = ()) -> None:
        folders = {*own, Path.home(), Path.cwd(), Path(tempfile.gettempdir())}
        roots = {str(form) for folder in folders for form in (folder.absolute(), folder.resolve())} - {"/"}
        self.roots = sorted(roots, key=len, reverse=True)
        named = "|".join(re.escape(root) for root in self.roots)
        self._own = re.compile(rf"{_ALONE}(?:{named})(?![\w.-]){_REST}")

    def hide(self, text: str) -> str:
        """Text with every path of this machine replaced."""
        return self._own.sub(_named, _ROOTED.sub(_named, text))

    def hidden(self, data: Any, place: str = "") -> Any:
        """Plain data, in whose keys and values every path is replaced."""
        if isinstance(data, dict):
            return {self.hide(key) if isinstance(key, str) else key: self.hidden(each) for key, each in data.items()}
        if isinstance(data, list):
            return [self.hidden(each) for each in data]
        if isinstance(data, str):
            return _named(data) if is_absolute(data) else self.hide(data)
        return data

    def left(self, text: str) -> str | None:
        """A folder of this machine that a text still names."""
        return next((root for root in self.roots if re.search(rf"{_ALONE}{re.escape(root)}(?![\w.-])", text)), None)


def is_absolute(text: str) -> bool:
    """Whether a whole text is an absolute path (or one of the home folder) and nothing else."""
    return bool(re.fullmatch(r"(?:/|~/|[A-Za-z]:\\)[^\s<>\"']+", text)) and "</" not in text


def _named(path: re.Match[str] | str) -> str:
    text = path if isinstance(path, str) else path[0]
    name = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return f"local/{name}" if name and name != "~" else "local"
