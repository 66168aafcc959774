"""A converted recipe as YAML, headed by the account of every key of the file that it comes from."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarfloat import ScalarFloat
from ruamel.yaml.scalarstring import SingleQuotedScalarString

from llmkit.artifacts.files import write_text
from llmkit.errors import Problem, RecipeError
from llmkit.importing.convert import Imported
from llmkit.importing.draft import Entry
from llmkit.visible import visible

WIDTH = 112
_QUOTED = re.compile(r"\A(?:no|yes|on|off)\Z|[?{}\\#&*!|>'\"%@`]", re.IGNORECASE)
"""Texts that readers of YAML 1.1 would take for something else."""


def write(imported: Imported, source: Path, target: Path) -> list[Path]:
    """The recipe at `target`, and files beside it. Nothing that is there is written over. Returns what was written."""
    texts = {target: to_yaml(imported, source)}
    texts |= {target.parent / name: text for name, text in imported.files.items()}
    there = [Problem(str(path), "is there already", "give another --out") for path in texts if path.exists()]
    if there:
        raise RecipeError(there)
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def to_yaml(imported: Imported, source: Path) -> str:
    """Comments, then the recipe."""
    yaml = YAML()
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(_node(imported.recipe, ()), out)
    return "".join(f"{line}\n" for line in _comments(imported, source)) + out.getvalue()


def _node(value: Any, loc: tuple[Any, ...]) -> Any:
    """Mappings that fit a line are written on one, as in the recipes that llmkit ships."""
    if isinstance(value, dict):
        node = CommentedMap({key: _node(inner, (*loc, key)) for key, inner in value.items()})
        if loc and _is_plain(value) and len(str(value)) < 90 and loc[-1] != "trainer":
            node.fa.set_flow_style()
        return node
    if isinstance(value, list):
        nodes = CommentedSeq([_node(item, (*loc, index)) for index, item in enumerate(value)])
        if not any(isinstance(item, (dict, list)) for item in value):
            nodes.fa.set_flow_style()
        return nodes
    if isinstance(value, str) and _QUOTED.search(value) and "\n" not in value:
        return SingleQuotedScalarString(value)
    return _float(value) if isinstance(value, float) else value


def _is_plain(value: dict[str, Any]) -> bool:
    return not any(isinstance(inner, (dict, list)) or "\n" in str(inner) for inner in value.values())


def _float(value: float) -> Any:
    """`2.0e-5` rather than `2e-05`, which readers of YAML 1.1 take for a text."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        digits = f"{value:.15e}".partition("e")[0].rstrip("0")
        places = len(digits.rstrip(".").partition(".")[2]) or 1
        return ScalarFloat(value, width=places + 2, prec=1, m_sign=False, exp="e", e_width=2, e_sign=None)
    return value


def _comments(imported: Imported, source: Path) -> Iterator[str]:
    yield f"# Made by `llmkit import` from {_line(source.name)} ({imported.system}). What became of each of its keys:"
    yield "#"
    mapped = [entry for entry in imported.entries if entry.fate == "mapped"]
    yield from _wrapped("the same here: ", ", ".join(_line(entry.key) for entry in mapped))
    for fate, title in (("renamed", "has another name here:"), ("listed", "is not in this recipe:")):
        entries = [entry for entry in imported.entries if entry.fate == fate]
        yield from ["#", f"# {title}"] if entries else []
        for entry in entries:
            yield from _wrapped(f"  {_line(entry.key)}: ", said(entry))
    if imported.added:
        yield from ["#", "# not in that file, but so by its program's defaults:"]
        yield from _wrapped("  ", ", ".join(f"{_line(entry.to)}: {_line(entry.key)}" for entry in imported.added))
    yield from ["#", "# to check before it runs:"] if imported.notes else []
    for entry in imported.notes:
        yield from _wrapped("  ", said(entry))


def said(entry: Entry) -> str:
    """What became of one key, in words."""
    text = f"{entry.to} ({entry.why})" if entry.to and entry.why else entry.to or entry.why
    return _line(text)


def _line(text: str) -> str:
    """One line without control characters: a key cannot end the comment that it stands in."""
    return " ".join(visible(text).replace("\n", "␊").replace("\u2028", "␊").replace("\u2029", "␊").split())


def _wrapped(first: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"# {first}", subsequent_indent="#     ", break_on_hyphens=False)
