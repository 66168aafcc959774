"""Search over one's own documents as a tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmkit.chat.schemas import search_schema
from llmkit.recipe.tools import SearchSpec
from llmkit.tools.index import Index, Passage
from llmkit.tools.tool import Tool

NOTHING = "Nothing found."
FOLDER = "index"
"""Of a `search_index` stage, inside of its `data/`."""
_MORE = 20
"""Passages that are looked at for each one that is wanted, where some are to be left out."""


def index_of(spec: SearchSpec, stages: Mapping[str, Path]) -> SearchSpec:
    """The same with the folder of its index, where a stage has made that. Args: stages: folder of each by name."""
    if spec.from_ is None:
        return spec
    return spec.model_copy(update={"index": str(stages[spec.from_] / "data" / FOLDER), "from_": None})


def search_tool(spec: SearchSpec) -> Tool:
    """The tool `search(query)`, or by another name.

    Raises UserError where the index is missing or another one than the recipe means.
    """
    index = open_index(spec)

    def run(arguments: dict[str, Any]) -> str:
        return written(index.search(arguments["query"], spec.num_results), spec.max_chars)

    return Tool(spec.tool_name, search_schema(spec.tool_name), run, spec.max_chars, index.close)


def open_index(spec: SearchSpec) -> Index:
    """Raises as `search_tool`."""
    assert spec.index is not None, spec.from_
    return Index.open(spec.index, spec.digest)


def found(index: Index, spec: SearchSpec, query: str, keep: Callable[[str], bool]) -> tuple[str, list[str]]:
    """What the tool would answer if some passages were not there, and the passages of that answer.

    Args:
        keep: whether a passage is there.
    """
    passages = [each for each in index.search(query, spec.num_results * _MORE) if keep(each.text)][: spec.num_results]
    return written(passages, spec.max_chars), [each.text for each in passages]


def written(found: Sequence[Passage], max_chars: int) -> str:
    """Passages for a model, numbered, each with its title; what does not fit is left out, the first one is cut."""
    text = ""
    for number, passage in enumerate(found, start=1):
        begins = passage.text.lstrip("#= ").startswith(passage.title)  # as a heading of a page, too
        head = "" if begins else f"{passage.title}\n"
        entry = f"[{number}] {head}{passage.text}"
        if len(text) + len(entry) + 2 > max_chars:
            return text or f"{entry[: max_chars - 3].rstrip()}..."
        text += f"\n\n{entry}" if text else entry
    return text or NOTHING
