"""The tools of a recipe, ready to be called by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any

from llmkit.chat.turn import BadCall, Call
from llmkit.errors import UserError
from llmkit.recipe.tools import CalculatorSpec, FunctionSpec, McpSpec, PythonSpec, SearchSpec, ToolSpec
from llmkit.tools.failures import Failures
from llmkit.tools.tool import NUM_THREADS, Keep, Result, Tool


class Toolbox:
    """Tools by name. As a context manager it ends what they keep running.

    Args:
        num_threads: calls of one `run` that are made at the same time.

    Attributes:
        failures: what failed, and of how many calls; one line each is in the log.
    """

    def __init__(self, tools: Sequence[Tool], *, num_threads: int = NUM_THREADS) -> None:
        self.tools: dict[str, Tool] = {}
        self.failures = Failures()
        for tool in tools:
            if tool.name in self.tools:
                raise UserError(f"tools: {tool.name}", "two tools have this name", "leave one of them out")
            self.tools[tool.name] = tool
        self._num_threads = num_threads

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """For `tools=` of a chat template, of `render` and of TRL."""
        return [tool.schema for tool in self.tools.values()]

    def run(self, calls: Sequence[Call | BadCall], keeps: Sequence[Keep | None] = ()) -> list[Result]:
        """Makes many calls, perhaps of many conversations, at the same time; results in the order of the calls.

        Args:
            keeps: of each call which passages are there, if it is a search.
        """
        keeps = keeps or [None] * len(calls)
        if len(calls) == 1:
            return [self._one(calls[0], keeps[0])]
        # threads of this run alone: those of a process do not live on in its forks
        with ThreadPoolExecutor(self._num_threads, thread_name_prefix="tool") as threads:
            return list(threads.map(self._one, calls, keeps))

    def close(self) -> None:
        """Ends what the tools keep running. One that does not end keeps no other from it."""
        for tool in self.tools.values():
            with contextlib.suppress(Exception):
                tool.close()

    def __enter__(self) -> Toolbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _one(self, call: Call | BadCall, keep: Keep | None) -> Result:
        result = self._made(call, keep)
        name = call.name if isinstance(call, Call) and call.name in self.tools else "(none)"
        self.failures.note(name, result.text if result.failed else None)
        return result

    def _made(self, call: Call | BadCall, keep: Keep | None) -> Result:
        if isinstance(call, BadCall):
            return Result(call.error, failed=True)
        tool = self.tools.get(call.name)
        if tool is not None:
            return tool.result(call.arguments, keep)
        near = get_close_matches(call.name, self.tools, n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(self.tools) or 'none'}"
        return Result(f"there is no tool '{call.name[:80]}'; {cure}", failed=True)


def open_tools(specs: Sequence[ToolSpec], stages: Mapping[str, Path] = {}) -> Toolbox:
    """The tools that a recipe names. Raises UserError for what cannot be opened; nothing is left running then.

    Args:
        stages: folder of each stage that a search's `from` may name.
    """
    opened: list[Tool] = []
    try:
        for spec in specs:
            opened += _open(spec, stages)
        return Toolbox(opened)
    except BaseException:
        for tool in opened:
            with contextlib.suppress(Exception):
                tool.close()
        raise


def _open(spec: ToolSpec, stages: Mapping[str, Path]) -> Iterator[Tool]:
    """The tools that one entry stands for. Each is imported when it is named: some are extras."""
    if isinstance(spec, SearchSpec):
        from llmkit.tools.search import index_of, search_tool

        yield search_tool(index_of(spec, stages))
    elif isinstance(spec, PythonSpec):
        from llmkit.tools.python import python_tool

        yield python_tool(spec)
    elif isinstance(spec, CalculatorSpec):
        from llmkit.tools.calculator import calculator_tool

        yield calculator_tool()
    elif isinstance(spec, FunctionSpec):
        from llmkit.tools.function import function_tool

        yield function_tool(spec)
    elif isinstance(spec, McpSpec):
        from llmkit.tools.mcp import mcp_tools

        yield from mcp_tools(spec)
