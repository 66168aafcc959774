"""Search over one's own documents as a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmkit.chat.schemas import search_schema
from llmkit.errors import UserError
from llmkit.recipe.tools import SearchSpec
from llmkit.tools.index import Index, Passage
from llmkit.tools.tool import Keep, Tool

NOTHING = "Nothing found."
FOLDER = "index"
"""Of a `search_index` stage, inside of its `data/`."""
_MORE = 20
"""Passages that are looked at for each one that is wanted, where some are to be left out."""


def index_of(spec: SearchSpec, stages: Mapping[str, Path]) -> SearchSpec:
    """The same with the folder of its index, where a stage has made that.

    Args:
        stages: folder of each by name.

    Raises:
        UserError: none of them has this name.
    """
    if spec.from_ is None:
        return spec
    if spec.from_ not in stages:
        what = f"'from: {spec.from_}' names a stage, and here is none of that name"
        cure = "give 'index: FOLDER', such as RUN/NN-library/data/index, or the run that has the stage as the model"
        raise UserError(f"tools: {spec.tool_name}", what, cure)
    return spec.model_copy(update={"index": str(stages[spec.from_] / "data" / FOLDER), "from_": None})


def search_tool(spec: SearchSpec) -> Tool:
    """The tool `search(query)`, or by another name.

    Raises UserError where the index is missing or another one than the recipe means.
    """
    index = open_index(spec)

    def run(arguments: dict[str, Any]) -> str:
        return written(index.search(arguments["query"], spec.num_results, spec.match), spec.max_chars)

    def run_without(arguments: dict[str, Any], keep: Keep) -> str:
        return found(index, spec, arguments["query"], keep)[0]

    return Tool(spec.tool_name, search_schema(spec.tool_name), run, spec.max_chars, index.close, run_without)


def open_index(spec: SearchSpec) -> Index:
    """Raises as `search_tool`."""
    assert spec.index is not None, spec.from_
    return Index.open(spec.index, spec.digest)


def found(index: Index, spec: SearchSpec, query: str, keep: Keep) -> tuple[str, list[str]]:
    """What the tool would answer if some passages were not there, and the passages as they stand in that answer."""
    some = index.search(query, spec.num_results * _MORE, spec.match)
    passages = [each for each in some if keep(f"{each.title}\n{each.text}")][: spec.num_results]
    shown = fitting(passages, spec.max_chars)
    return "\n\n".join(shown) or NOTHING, shown


def written(found: Sequence[Passage], max_chars: int) -> str:
    """Passages for a model, numbered, each with its title; what does not fit is left out, the first one is cut."""
    return "\n\n".join(fitting(found, max_chars)) or NOTHING


def fitting(found: Sequence[Passage], max_chars: int) -> list[str]:
    """As `written`, one text a passage."""
    shown: list[str] = []
    size = 0
    for number, passage in enumerate(found, start=1):
        begins = passage.text.lstrip("#= ").startswith(passage.title)  # as a heading of a page, too
        head = "" if begins else f"{passage.title}\n"
        entry = f"[{number}] {head}{passage.text}"
        if size + len(entry) + 2 > max_chars:
            return shown or [f"{entry[: max_chars - 3].rstrip()}..."]
        size += len(entry) + (2 if shown else 0)
        shown.append(entry)
    return shown
