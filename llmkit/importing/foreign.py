"""A foreign YAML file as plain data, read as its own program reads it, with the line of every key.

Those programs read YAML 1.1: `no`, `off`, `yes` and `on` without quotes are booleans there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import ScalarString

from llmkit.errors import Problem, RecipeError
from llmkit.visible import visible

Loc = tuple[str | int, ...]
MAX_BYTES, MAX_DEPTH, MAX_LEAVES = 1_000_000, 20, 5_000
_BOOLEANS = {word: value for value, words in ((True, "yes on"), (False, "no off")) for word in words.split()}
# With an exponent but without a point or a sign, PyYAML reads a text, which its programs then make a number of.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_VARIABLE = re.compile(r"\$\{[^}]*\}")
_CURE = "give the YAML file that the other program is started with"
_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


@dataclass(frozen=True)
class Foreign:
    """One file: plain data and the line of each key."""

    path: Path
    data: dict[str, Any]
    lines: dict[Loc, int]

    def where(self, loc: Loc) -> str:
        """`file:line` of a key, or of the nearest one above it."""
        for end in range(len(loc), 0, -1):
            if loc[:end] in self.lines:
                return f"{self.path}:{self.lines[loc[:end]]}"
        return str(self.path)


def read_foreign(path: Path) -> Foreign:
    """Raises RecipeError for what is no YAML mapping of plain values: other files, repeated keys, tags, templates."""
    text = _text(path)
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    try:
        node = yaml.load(text)
    except DuplicateKeyError as error:
        what = visible((error.problem or "a repeated key").splitlines()[0])
        raise RecipeError([Problem(_line(path, error), what, "keep one of the two")]) from None
    except (YAMLError, ValueError, RecursionError, TypeError) as error:
        if _JINJA.search(text):
            raise RecipeError([_unrendered(str(path))]) from None
        what = visible(str(getattr(error, "problem", None) or "it cannot be read").splitlines()[0])
        raise RecipeError([Problem(_line(path, error), f"not valid YAML: {what}")]) from None
    if not isinstance(node, CommentedMap):
        raise RecipeError([Problem(str(path), "is no mapping of keys to values", _CURE)])
    reader = _Reader(path, {})
    data = reader.plain(node, ())
    return Foreign(path, data, reader.lines)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError([Problem(str(path), f"is larger than {MAX_BYTES:,} bytes: no recipe")])
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        cure = f"the current folder is {Path.cwd()}"
        raise RecipeError([Problem(str(path), "no such file", cure)]) from None
    except IsADirectoryError:
        raise RecipeError([Problem(str(path), "is a folder", _CURE)]) from None
    except UnicodeDecodeError:
        raise RecipeError([Problem(str(path), "is no text in UTF-8", _CURE)]) from None
    except OSError as error:
        raise RecipeError([Problem(str(path), f"cannot be read ({error.strerror or error})")]) from None


def _line(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{path}:{mark.line + 1}" if mark else str(path)


def _unrendered(where: str) -> Problem:
    return Problem(where, "is a template, not YAML with values", "fill in its variables first, and import the result")


class _Reader:
    """ruamel's nodes to plain data."""

    def __init__(self, path: Path, lines: dict[Loc, int]) -> None:
        self.path, self.lines, self.num_leaves = path, lines, 0

    def plain(self, node: Any, loc: Loc) -> Any:
        if len(loc) > MAX_DEPTH:
            self.refuse(loc, f"is nested deeper than {MAX_DEPTH} levels")
        if getattr(getattr(node, "tag", None), "value", None) or isinstance(node, TaggedScalar):
            self.refuse(loc, f"has the YAML tag {node.tag.value}", "write a plain value")
        if isinstance(node, CommentedMap):
            return {self.key(node, key, loc): self.plain(value, (*loc, str(key))) for key, value in node.items()}
        if isinstance(node, CommentedSeq):
            return [self.plain(value, (*loc, index)) for index, value in enumerate(node)]
        self.num_leaves += 1
        if self.num_leaves > MAX_LEAVES:
            self.refuse(loc, f"is one of more than {MAX_LEAVES:,} values: no recipe")
        return self.scalar(node, loc)

    def key(self, node: CommentedMap, key: Any, loc: Loc) -> str:
        if not isinstance(key, (str, int, float, bool)):
            raise RecipeError([_unrendered(f"{self.path}: {visible(repr(key))[:60]}")])
        if key in node.lc.data:
            self.lines[(*loc, str(key))] = node.lc.key(key)[0] + 1
        return str(key)

    def scalar(self, node: Any, loc: Loc) -> Any:
        if isinstance(node, str):
            text = str(node)
            if not isinstance(node, ScalarString) and text.lower() in _BOOLEANS:
                return _BOOLEANS[text.lower()]
            self.check_template(text, loc)
            return text
        for kind in (bool, int, float):
            if isinstance(node, kind):
                return kind(node)
        return node if node is None else str(node)

    def check_template(self, text: str, loc: Loc) -> None:
        """llmkit reads `${NAME}` in a recipe as a variable of the environment; here it is none."""
        if any("template" in str(key) for key in loc):
            return
        if _VARIABLE.search(text) or _JINJA.fullmatch(text.strip()):
            raise RecipeError([_unrendered(f"{Foreign(self.path, {}, self.lines).where(loc)}: {dotted(loc)}")])

    def refuse(self, loc: Loc, what: str, cure: str = "") -> None:
        raise RecipeError([Problem(f"{Foreign(self.path, {}, self.lines).where(loc)}: {dotted(loc)}", what, cure)])


def as_number(value: Any) -> Any:
    """A text that is a number as one."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
        return int(number) if number.is_integer() and not set(".eE") & set(value) else number
    return value


def leaves(value: Any, loc: Loc = ()) -> Iterator[Loc]:
    """Places of all values. A list of plain values is one value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*loc, key))
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for index, item in enumerate(value):
            yield from leaves(item, (*loc, index))
    else:
        yield loc


def dotted(loc: Loc) -> str:
    """`datasets[0].path`, without control characters."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")
    return visible(text).replace("\n", "␊").replace("\t", "␉")
