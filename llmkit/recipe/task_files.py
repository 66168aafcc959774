"""What a task of lm-eval needs of this machine, read from its files: importing them takes seconds, or downloads.

Only tasks and tags that lie in a folder of their own name, or of its beginning, are looked into; groups are not.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_INCLUDE = re.compile(r"^include:\s*(\S+)", re.MULTILINE)
_FUNCTION = re.compile(r"!function\s+([\w.]+)\.\w+")
_NAME = re.compile(
    rb"""^\s*(?:-\s+)?["']?(?:task|tag|group)["']?:[ \t]*["']?([^\s"'#,]+)|^\s*-\s+["']?([\w.:/-]+)["']?\s*$""",
    re.MULTILINE,
)
_UNSAFE = re.compile(r"^unsafe_code:\s*true", re.MULTILINE | re.IGNORECASE)
_OURS = "lm_eval"


@dataclass(frozen=True)
class Needs:
    packages: frozenset[str] = frozenset()
    """Imported by the functions that the task names."""
    nltk_data: frozenset[str] = frozenset()
    """As `nltk.data.find` takes them."""
    runs_code: bool = False
    """Whether it runs programs that the model wrote."""

    @property
    def missing(self) -> list[str]:
        return sorted(name for name in self.packages if find_spec(name) is None)


@cache
def needs(task: str) -> Needs:
    """Of a task that lm-eval ships."""
    files = _task_files(task)
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    named = {file.parent / f"{name}.py" for file, text in texts.items() for name in _FUNCTION.findall(text)}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in _modules(named)]
    return Needs(
        packages=frozenset(name for tree in trees for name in _packages(tree)),
        nltk_data=frozenset(name for tree in trees for name in _nltk_data(tree)),
        runs_code=any(_UNSAFE.search(text) for text in texts.values()),
    )


def is_known(task: str) -> bool:
    """Whether lm-eval may have it: a name in no file of its is not there. True, too, where lm-eval is not installed."""
    return _root() is None or bool(_task_files(task)) or task in named()


@cache
def named() -> frozenset[str]:
    """What files of lm-eval call a task, a tag or a group, and some words more. Reads 14,000 files: a second."""
    root = _root()
    files = root.rglob("*") if root else ()
    texts = (file.read_bytes() for file in files if file.suffix in ("", ".yaml", ".yml") and file.is_file())
    return frozenset(
        (task or listed).decode(errors="replace") for text in texts for task, listed in _NAME.findall(text)
    )


@cache
def _root() -> Path | None:
    spec = find_spec(_OURS)
    return Path(spec.origin).parent / "tasks" if spec and spec.origin else None


def _task_files(task: str) -> list[Path]:
    """The files that define a task or bear a tag, with those that they include."""
    root, parts = _root(), task.split("_")
    if root is None:
        return []
    names = re.compile(rf"^(?:task|tag):\s*{re.escape(task)}\s*$|^\s*-\s*{re.escape(task)}\s*$", re.MULTILINE)
    for length in range(len(parts), 0, -1):
        folder = root / "_".join(parts[:length])
        found = [file for file in sorted(folder.rglob("*.yaml")) if names.search(file.read_text(encoding="utf-8"))]
        if found:
            return list(_with_included(found))
    return []


def _with_included(files: list[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    while files:
        file = files.pop()
        if file not in seen and file.is_file():
            seen.add(file)
            yield file
            files += [(file.parent / name).resolve() for name in _INCLUDE.findall(file.read_text(encoding="utf-8"))]


def _modules(named: set[Path]) -> Iterator[Path]:
    """These and what they import of lm-eval's tasks."""
    waiting, seen = list(named), set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in seen and path.is_file():
            seen.add(path)
            yield path
            waiting += list(_neighbours(ast.parse(path.read_text(encoding="utf-8"))))


def _neighbours(tree: ast.Module) -> Iterator[Path]:
    root = _root()
    assert root is not None
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{_OURS}.tasks"):
            folder = root.joinpath(*str(node.module).split(".")[2:])
            yield from (folder / f"{alias.name}.py" for alias in node.names)
            yield folder.with_suffix(".py")


def _packages(tree: ast.Module) -> Iterator[str]:
    """Of the imports that stand for themselves: those in a `try` may fail."""
    for node in tree.body:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        tops = {module.partition(".")[0] for module in modules}
        yield from tops - sys.stdlib_module_names - {_OURS}


def _nltk_data(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "nltk.data.find":
            yield from (str(each.value) for each in node.args if isinstance(each, ast.Constant))
