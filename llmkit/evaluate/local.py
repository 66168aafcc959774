"""A task's data from a folder of this machine, in place of the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets

from llmkit.errors import DataError
from llmkit.recipe.schema import EvalSpec

FORMATS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@contextmanager
def local_data(spec: EvalSpec) -> Iterator[None]:
    """Has the task that `spec` names read its splits from the folder `spec.data`, if there is one.

    A split is a file of its name (`test.jsonl`, `test-00000-of-00002.parquet`). A data set with several
    configurations, as mmlu has one for each subject, has a folder for each.

    Raises:
        DataError: no such folder, no files of splits in it, or one folder for several configurations.
    """
    if spec.data is None:
        yield
        return
    where, root = f"task {spec.task}", Path(spec.data).expanduser()
    if not root.is_dir():
        raise DataError(where, f"'{spec.data}' is no folder", f"the current folder is {Path.cwd()}")
    load, used = datasets.load_dataset, dict[Path, str | None]()

    def load_local(path: str, name: str | None = None, **_: Any) -> Any:
        folder = _folder(root, name)
        if used.setdefault(folder, name) != name:
            cure = f"put each into a folder of its own: {used[folder]}, {name}, ..."
            raise DataError(where, f"{folder} cannot be the data of '{used[folder]}' and of '{name}'", cure)
        kind, files = _splits(where, folder)
        return _Splits(where, load(kind, data_files=files))

    with patch.object(datasets, "load_dataset", load_local):
        yield
    if not used:
        raise DataError(where, "it reads no data set, so 'data' changes nothing", "remove it")


class _Splits(dict[str, Any]):
    """By name. Raises DataError for one that has no file."""

    def __init__(self, where: str, found: Any) -> None:
        super().__init__(found)
        self._where = where

    def __missing__(self, split: str) -> Any:
        raise DataError(self._where, f"its data has no split '{split}'", f"there are files of: {', '.join(self)}")


def _folder(root: Path, name: str | None) -> Path:
    places = [root / name] if name else []
    return next((place for place in [*places, root / "data"] if place.is_dir()), root)


def _splits(where: str, folder: Path) -> tuple[str, dict[str, list[str]]]:
    """Format of the files, and the files of each split."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted(folder.iterdir()):
        bare = path.name.removesuffix(".gz")
        kind = FORMATS.get(Path(bare).suffix)
        if kind is not None and path.is_file():
            split = re.split(r"[-.]", bare, maxsplit=1)[0]
            found.setdefault(kind, {}).setdefault(split, []).append(str(path))
    if len(found) != 1:
        what = f"{folder} holds files of several formats" if found else f"{folder} holds no data"
        raise DataError(where, what, f"put one file for each split there, such as test.jsonl ({', '.join(FORMATS)})")
    return next(iter(found.items()))
