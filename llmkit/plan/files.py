"""The files that a recipe names: where they are, and what stands for their content in a fingerprint."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from glob import glob, has_magic
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmkit.artifacts.files import sha256_of
from llmkit.artifacts.shipped import in_package, shipped
from llmkit.plan.columns import missing_columns
from llmkit.recipe.parts import DataSource
from llmkit.recipe.source import Loc

WHOLE = 64 * 2**20
"""Files up to this size are hashed whole; of larger ones the ends, the size and the time of change."""
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".txt", ".md")
_MODEL_FILES = ("*.json", "*.jinja", "*.safetensors", "*.model", "*.txt")
# Package that makes rows up -> the distribution whose version says how.
_GENERATORS = {"reasoning_gym": "reasoning-gym"}
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
Found = tuple[Loc, str, str]


def is_function(path: str) -> bool:
    """`package.module:function`."""
    return ":" in path and not is_local(path)


def is_local(path: str) -> bool:
    """A file, folder or glob on this machine, rather than a Hub id."""
    expanded = Path(path).expanduser()
    bare = path.lower().removesuffix(".gz")
    return expanded.exists() or has_magic(path) or bare.endswith(_SUFFIXES) or path.startswith(("/", ".", "~"))


def local_files(path: str) -> list[Path]:
    """Files that a local data path stands for, sorted; empty if there is none."""
    expanded = str(Path(path).expanduser())
    found = [expanded] if Path(expanded).is_file() else sorted(glob(expanded, recursive=True))  # noqa: PTH207
    return [Path(p) for p in found if Path(p).is_file()]


def problems_of_sources(sources: Iterable[tuple[Loc, DataSource]]) -> Iterator[Found]:
    """Local files that are not there, and columns that are not in them, as (location, what, cure)."""
    for loc, source in sources:
        if source.path and is_local(source.path):
            yield from (((*loc, "path"), *what) for what in _missing(source.path))
            for part, what, cure in missing_columns(source, local_files(source.path)):
                yield (*loc, *(("columns", part) if part in source.columns else ())), what, cure


def _missing(path: str) -> list[tuple[str, str]]:
    if has_magic(path):
        return [] if local_files(path) else [(f"no file matches '{path}'", f"the current folder is {Path.cwd()}")]
    expanded = Path(path).expanduser()
    if expanded.is_dir():
        return [(f"'{path}' is a folder, not a file", f"use a glob: '{path.rstrip('/')}/*.jsonl'")]
    return [] if expanded.exists() else [(f"no such file: '{path}'", f"the current folder is {Path.cwd()}")]


def resolve_model(name_or_path: str) -> str:
    """The absolute folder of a local or packaged model; else the Hub id as it is."""
    folder = in_package(name_or_path) or Path(name_or_path).expanduser()
    return str(folder.absolute()) if folder.exists() else name_or_path


def template_file(name: str) -> Path:
    """A shipped chat template's file for its name, else `name` as a path."""
    inside = shipped("chat_templates") / f"{name}.jinja"
    return inside if inside.is_file() else Path(name).expanduser()


def digest(path: Path) -> str:
    """What stands for a file's content; `missing` if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@cache
def _digest(path: Path, size: int, mtime: int) -> str:
    with path.open("rb") as file:
        if size <= WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        head = file.read(2**20)
        file.seek(-(2**20), 2)
        ends = hashlib.sha256(head + file.read()).hexdigest()
    return f"{size}:{mtime}:{ends}"


def digest_of(files: Iterable[Path]) -> str:
    """One hash over several files, their names included."""
    return sha256_of([(path.name, digest(path)) for path in files])


def digest_of_model(folder: Path) -> str:
    return digest_of(sorted(path for pattern in _MODEL_FILES for path in folder.glob(pattern)))


def digest_of_source(source: DataSource) -> str:
    """Content of a data source: of files, of a function's package and what it reads, or the revision of a Hub id."""
    path = source.path or ""
    if is_function(path) or is_local(path):
        return _content(path) + _read_by(source.args)
    return f"hub:{path}@{source.revision or 'main'}"


def _content(path: str) -> str:
    if not is_function(path):
        return digest_of(local_files(path))
    package = path.partition(":")[0]
    return _release(package) + digest_of_package(package)


def _read_by(args: Any) -> str:
    """Content of the files and functions that the arguments of a function name, at any depth."""
    if isinstance(args, dict):
        args = list(args.values())
    if isinstance(args, list):
        return "".join(_read_by(value) for value in args)
    named = isinstance(args, str) and (_FUNCTION.fullmatch(args) or local_files(args))
    return _content(args) if named else ""


def _release(package: str) -> str:
    """Version of a package that makes rows up: its data files count as well."""
    if package not in _GENERATORS:
        return ""
    try:
        return f"{_GENERATORS[package]}=={version(_GENERATORS[package])}:"
    except PackageNotFoundError:
        return ""


@cache
def digest_of_package(module: str) -> str:
    """Source files of the package that a module lies in. Imports nothing but the top package's finder."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None:
        return "missing"
    if not spec.submodule_search_locations:
        return digest(Path(spec.origin)) if spec.origin else "missing"
    folder = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    folder = folder if folder.is_dir() else folder.parent
    return digest_of_sources(folder)


def digest_of_sources(folder: Path, suffixes: tuple[str, ...] = (".py",)) -> str:
    """All Python files under a folder, or those of other suffixes, with their relative paths."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in suffixes)
    return sha256_of([(str(path.relative_to(folder)), digest(path)) for path in files])
