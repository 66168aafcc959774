"""The raw rows of one `DataSource`, one at a time, each with the file and line it stands on.

Where a source lies is read off its `path`:

- it exists on this machine, or looks like a file (a suffix of `llmkit.data.files`, with or without `.gz`; one of
  `* ? [`; `.`, `/` or `~` in front): files here, relative to the current folder;
- it begins with `reasoning_gym:`: a task of reasoning-gym (`llmkit.data.reasoning_gym`);
- it holds a `:`: a Python function, called with `args`, that yields rows;
- anything else: a data set on the Hugging Face Hub.
"""

from __future__ import annotations

import glob
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from llmkit.artifacts.imported import function_at
from llmkit.artifacts.rundir import StageDir
from llmkit.data.files import READERS, Raw, kind_of, read_file
from llmkit.data.reasoning_gym import is_reasoning_gym, made_up
from llmkit.errors import DataError
from llmkit.online import LOG_IN, answers, cache_only, refusal
from llmkit.recipe.parts import DataSource
from llmkit.recipe.reads import name_of
from llmkit.recipe.rows import HELDOUT, PROBED

# Rows that a stream is shuffled within: it cannot be shuffled as a whole.
STREAM_BUFFER = 10_000
BOTH_SIDES = next(iter(PROBED))
"""Rows of a probe: also those that it holds out for evaluation, which are not read here."""
DEFAULT_ROWS = ("train", BOTH_SIDES)
"""Of several sets of rows that a stage left, those that `from` alone means."""


def is_local(path: str) -> bool:
    """Whether a path means files on this machine."""
    looks_like_file = kind_of(path) or set("*?[") & set(path) or path.startswith((".", "/", "~"))
    return bool(looks_like_file) or Path(path).exists()


def is_function(path: str) -> bool:
    """Whether a path means a Python function."""
    return ":" in path and not is_local(path)


def read_source(source: DataSource, data_stages: dict[str, Path], seed: int) -> Iterator[Raw]:
    """All rows in their order. A stream of which only `num_rows` are taken is shuffled within a buffer of 10,000 rows,
    since it is not read to its end.

    Args:
        data_stages: folder of each stage that `from` may name.
        seed: of the shuffle of a stream.

    Raises:
        DataError: the source is missing or cannot be read. Bad rows come as `Raw` with `error`.
    """
    if source.from_ is not None:
        files = _stage_files(source.from_, source.name, data_stages)
        rows = _read_files(files)
        return (raw for raw in rows if not _is_held_out(raw)) if files[0].stem == BOTH_SIDES else rows
    assert source.path is not None
    if is_local(source.path):
        return read_local(source.path)
    if is_reasoning_gym(source.path):
        return made_up(source)
    if is_function(source.path):
        return _read_function(source.path, source.args)
    return _read_hub(source, seed)


def read_local(path: str) -> Iterator[Raw]:
    """All rows of a file, or of the files that a glob means. Raises DataError where there are none."""
    return _read_files(_local_files(path))


def _read_files(files: list[Path]) -> Iterator[Raw]:
    for file in files:
        yield from read_file(file)


def _local_files(path: str) -> list[Path]:
    full = Path(path).expanduser().absolute()
    if full.is_dir():
        inside = sorted({kind_of(child) for child in full.iterdir() if child.is_file()} - {""})
        cure = f"name its files: {path.rstrip('/')}/*{inside[0]}" if inside else "it holds no data files"
        raise DataError(str(full), "is a folder", cure)
    found = [str(full)] if full.is_file() else glob.glob(str(full), recursive=True)  # noqa: PTH207 - not hidden files
    files = sorted(file for file in map(Path, found) if file.is_file())
    if not files:
        raise DataError(str(full), "no such file", _nearby(full))
    for file in files:
        if not kind_of(file):
            raise DataError(str(file), "is of no known kind", f"known are {' '.join(READERS)}, each also with .gz")
    return files


def _nearby(path: Path) -> str:
    here = f"the current folder is {Path.cwd()}"
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either; {here}"
    near = get_close_matches(path.name, [child.name for child in path.parent.iterdir()], n=3)
    return f"did you mean {' or '.join(near)}? {here}" if near else here


def _stage_files(name: str, rows: str | None, data_stages: dict[str, Path]) -> list[Path]:
    """The set of rows that is named, else `train` or `probe`, else all that the stage left."""
    if name not in data_stages:
        raise DataError(f"from: {name}", "no such stage has run", f"have: {', '.join(data_stages) or 'none'}")
    folder = StageDir(Path(data_stages[name])).data
    files = sorted(file for file in folder.glob("*") if kind_of(file) in (".jsonl", ".parquet"))
    if not files:
        what = f"stage '{name}' left no rows here (*.jsonl, *.parquet)"
        raise DataError(str(folder), what, "run it, or name another")
    named = [file for file in files if (file.stem == rows if rows else file.stem in DEFAULT_ROWS)]
    if rows is not None and not named:
        have = ", ".join(file.stem for file in files)
        raise DataError(f"from: {name}", f"it left no rows called '{rows}'", f"have: {have}")
    return named or files


def _is_held_out(raw: Raw) -> bool:
    return isinstance(raw.value, dict) and raw.value.get("split") == HELDOUT


def _read_function(path: str, args: dict[str, Any]) -> Iterator[Raw]:
    function = function_at(path, DataError)
    try:
        inspect.signature(function).bind(**args)
    except TypeError as error:
        cure = f"it is {path}{inspect.signature(function)}"
        raise DataError(path, f"does not take these args ({error})", cure) from None
    try:
        for number, row in enumerate(function(**args), start=1):
            yield Raw(row, path, number)
    except (ValueError, OSError) as error:
        raise DataError(path, str(error), "change 'args'") from error


def _read_hub(source: DataSource, seed: int) -> Iterator[Raw]:
    online = _reach_hub(str(source.path), source.revision)
    with _hub_errors(source, online):
        dataset = _load_hub(source, online)
        shuffled = source.streaming and source.num_rows is not None
        rows = dataset.shuffle(seed=seed, buffer_size=STREAM_BUFFER) if shuffled else dataset
        for number, row in enumerate(rows, start=1):
            yield Raw(row, name_of(source), number)


def _load_hub(source: DataSource, online: bool) -> datasets.Dataset | datasets.IterableDataset:
    with cache_only(not online):
        return datasets.load_dataset(
            str(source.path),
            name=source.name,
            revision=source.revision,
            split=source.split,
            streaming=source.streaming,
        )


def _reach_hub(path: str, revision: str | None) -> bool:
    """False where the Hub cannot be reached. Raises DataError where it refuses."""
    try:
        return answers(HfApi().dataset_info, path, revision=revision)
    except (HfHubHTTPError, HFValidationError) as error:
        what = "is neither a file here nor a data set on the Hub"
        cure = f"check the name, {LOG_IN} if it is private; as a file it would be {Path(path).absolute()}"
        raise DataError(path, *(refusal(error, "data set", revision) or (what, cure))) from error


@contextmanager
def _hub_errors(source: DataSource, online: bool) -> Iterator[None]:
    """Whatever goes wrong while a data set is fetched and read: each kind of file has its own errors."""
    try:
        yield
    except Exception as error:
        raise DataError(str(source.path), *_why(source, online, error)) from error


def _why(source: DataSource, online: bool, error: Exception) -> tuple[str, str]:
    if not online:
        what = "is no file here, and the Hub cannot be reached or is too busy, and the local cache holds no copy"
        return what, f"check the name and the network; the current folder is {Path.cwd()}"
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        error = _not_allowed(str(source.path)) or error
    told = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else error
    what = f"the Hub data set cannot be read ({' '.join(str(told).split())[:300]})"
    cure = "check 'name', 'split' and 'revision', and the data set's files"
    return refusal(error, "data set", source.revision) or (what, cure)


def _not_allowed(path: str) -> HfHubHTTPError | None:
    """The refusal of its files, which datasets hides; everyone may read what a gated data set is called."""
    try:
        HfApi().auth_check(path, repo_type="dataset")
    except HfHubHTTPError as error:
        return error
    return None
