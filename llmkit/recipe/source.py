"""YAML files and `key=value` words to plain data that remembers where each value was written."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError

from llmkit.errors import Problem, RecipeError
from llmkit.secrets import redacted

Loc = tuple[str | int, ...]
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass
class Source:
    """Plain data (dict, list, scalars) with `marks`: the `file:line` of every path in it."""

    data: Any
    marks: dict[Loc, str] = field(default_factory=dict)

    def where(self, loc: Loc) -> str:
        """The `file:line` of `loc`, or of the nearest place above it."""
        for end in range(len(loc), -1, -1):
            if loc[:end] in self.marks:
                return self.marks[loc[:end]]
        return ""


def read_yaml(path: Path) -> Source:
    """One YAML 1.2 file. Raises RecipeError for a missing file, broken YAML, a repeated key, an unset variable."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError([Problem(str(path), "no such recipe file", _nearby(path))]) from None
    except IsADirectoryError:
        raise RecipeError([Problem(str(path), "is a folder, not a recipe file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError([Problem(str(path), f"cannot be read ({error})")]) from None
    try:
        node = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        what = (error.problem or "repeated key").splitlines()[0]
        raise RecipeError([Problem(f"{path}:{line}", what, "keep one of the two")]) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError([Problem(f"{path}:{line}", f"not valid YAML: {error.problem}")]) from None
    if not isinstance(node, CommentedMap):
        raise RecipeError([Problem(str(path), "a recipe is a mapping with 'run' and 'stages'")])
    source = Source(None, {(): f"{path}:1"})
    problems: list[Problem] = []
    source.data = _plain(node, (), str(path), source.marks, problems)
    if problems:
        raise RecipeError(problems)
    return source


def _nearby(path: Path) -> str:
    found = sorted(str(p) for p in path.parent.glob("*.y*ml"))[:5] if path.parent.is_dir() else []
    return f"files there: {', '.join(found)}" if found else f"the current folder is {Path.cwd()}"


def _plain(node: Any, loc: Loc, file: str, marks: dict[Loc, str], problems: list[Problem]) -> Any:
    if isinstance(node, CommentedMap):
        for key in node:
            # a key that comes in by a merge (<<) stands where the merge does
            marks[(*loc, key)] = f"{file}:{node.lc.key(key)[0] + 1}" if key in node.lc.data else marks.get(loc, file)
        return {key: _plain(value, (*loc, key), file, marks, problems) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            marks[(*loc, index)] = f"{file}:{node.lc.item(index)[0] + 1}"
        return [_plain(value, (*loc, index), file, marks, problems) for index, value in enumerate(node)]
    if isinstance(node, str):
        return _expand(str(node), marks.get(loc, file), problems)
    # ruamel's ScalarFloat and the like are subclasses of the plain types
    for kind in (bool, int, float):
        if isinstance(node, kind):
            return kind(node)
    return node


def _expand(text: str, where: str, problems: list[Problem]) -> str:
    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            problems.append(Problem(where, f"environment variable {name} is not set", f"export {name}=..."))
            return match.group(0)
        return os.environ[name]

    return _VARIABLE.sub(value_of, text)


def merge(base: Source, over: Source) -> Source:
    """`over` laid on `base`: mappings merge key by key, `stages` by their names; other values and lists are replaced.

    A stage that `base` does not have follows those that it has.
    """
    marks = dict(base.marks)

    def replace(loc: Loc, value: Any, written: Loc) -> Any:
        for old in [m for m in marks if m[: len(loc)] == loc]:
            del marks[old]
        marks.update({loc + m[len(written) :]: w for m, w in over.marks.items() if m[: len(written)] == written})
        return value

    def lay(low: Any, high: Any, loc: Loc, written: Loc) -> Any:
        if isinstance(low, dict) and isinstance(high, dict):
            laid = dict(low)
            for key, value in high.items():
                here, there = (*loc, key), (*written, key)
                laid[key] = lay(low[key], value, here, there) if key in low else replace(here, value, there)
            return laid
        if loc == ("stages",) and isinstance(low, list) and isinstance(high, list):
            laid_stages = list(low)
            for place, stage in enumerate(high):
                same = _index(laid_stages, name) if (name := _name_of(stage)) else None
                index, there = len(laid_stages) if same is None else same, (*written, place)
                if same is None:
                    laid_stages.append(replace((*loc, index), stage, there))
                else:
                    laid_stages[index] = lay(laid_stages[index], stage, (*loc, index), there)
            return laid_stages
        return replace(loc, high, written)

    return Source(lay(base.data, over.data, (), ()), marks)


def set_value(source: Source, word: str) -> Source:
    """One `key=value` of the command line. `stages.sft.trainer.learning_rate=1e-4` names a stage or gives its index."""
    key, equals, text = word.partition("=")
    where = redacted(f"command line: {word}")
    if not equals or not key:
        raise RecipeError([Problem(where, "expected key=value")])
    try:
        value = YAML(typ="safe").load(text) if text else None
    except MarkedYAMLError as error:
        raise RecipeError([Problem(where, f"the value is not valid YAML: {error.problem}")]) from None
    loc: Loc = ()
    node = source.data
    parts = key.split(".")
    for position, part in enumerate(parts):
        if isinstance(node, list):
            index = _index(node, part)
            if index is None:
                names = ", ".join(str(i.get("name", i.get("kind"))) for i in node if isinstance(i, dict))
                raise RecipeError(
                    [Problem(where, f"no item '{part}' in {'.'.join(parts[:position])}", f"have: {names}")]
                )
            loc, node = (*loc, index), node[index]
        else:
            loc, node = (*loc, part), node.get(part) if isinstance(node, dict) else None
    return Source(_put(source.data, loc, value), {**source.marks, loc: where})


def _name_of(item: Any) -> str | None:
    """A stage without a name is called after its kind."""
    return item.get("name", item.get("kind")) if isinstance(item, dict) else None


def _index(items: list[Any], part: str) -> int | None:
    for index, item in enumerate(items):
        if _name_of(item) == part:
            return index
    return int(part) if part.isdigit() and int(part) < len(items) else None


def _put(node: Any, loc: Loc, value: Any) -> Any:
    if not loc:
        return value
    if isinstance(node, list):
        return [_put(item, loc[1:], value) if index == loc[0] else item for index, item in enumerate(node)]
    base = node if isinstance(node, dict) else {}
    return {**base, loc[0]: _put(base.get(loc[0]), loc[1:], value)}
