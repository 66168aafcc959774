"""Search over one's own documents as a tool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmkit.chat.schemas import search_schema
from llmkit.recipe.tools import SearchSpec
from llmkit.tools.index import Index, Passage
from llmkit.tools.tool import Tool

NOTHING = "Nothing found."


def search_tool(spec: SearchSpec) -> Tool:
    """The tool `search(query)`, or by another name.

    Raises UserError where the index is missing or another one than the recipe means.
    """
    index = Index.open(spec.index, spec.digest)

    def run(arguments: dict[str, Any]) -> str:
        return written(index.search(arguments["query"], spec.num_results), spec.max_chars)

    return Tool(spec.tool_name, search_schema(spec.tool_name), run, spec.max_chars, index.close)


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
