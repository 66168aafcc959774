"""Tools of an MCP server, through the official client (extra `llmkit[mcp]`).

The client is asynchronous and lives in a thread of its own; calls from any thread go there and wait. What a server
says, descriptions and results, is data: it is shown to the model and never obeyed by llmkit.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from llmkit.errors import UserError
from llmkit.recipe.tools import McpSpec
from llmkit.tools.tool import CallFailed, Tool

try:
    import mcp
    from httpx2 import AsyncClient, Timeout
    from mcp import types
    from mcp.client.stdio import StdioServerParameters
    from mcp.client.streamable_http import streamable_http_client
except ModuleNotFoundError as missing:
    raise UserError("tools: mcp", f"needs the package '{missing.name}'", "pip install 'llmkit[mcp]'") from None

_PAGES = 20
AGAIN_SECONDS = 10.0
"""Between two starts of a server that dies."""
START_SECONDS = 60.0
"""That a server may take to start and to say what it has."""


def mcp_tools(spec: McpSpec) -> list[Tool]:
    """The server's tools. It ends when one of them is closed. Raises UserError where it cannot be reached."""
    connection = _Connection(spec)
    try:
        listed = {tool.name: tool for tool in _listed(connection)}
        unknown = [name for name in spec.tools if name not in listed]
        if unknown:
            raise UserError(connection.name, f"has no tool '{unknown[0]}'", f"it has {', '.join(listed) or 'none'}")
        return [_tool(connection, listed[name], spec) for name in spec.tools or listed]
    except BaseException:
        connection.close()
        raise


def _listed(connection: _Connection) -> list[types.Tool]:
    try:
        found: list[types.Tool] = connection.wait(connection.list(), START_SECONDS)
    except UserError:
        raise
    except Exception as error:  # whatever the server answers, or does not
        what = f"does not list its tools ({_cause(error)})"
        raise UserError(connection.name, what, "see what the server logs; it must answer tools/list") from None
    return found


def _tool(connection: _Connection, tool: types.Tool, spec: McpSpec) -> Tool:
    function = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
    run = partial(connection.call, tool.name)
    return Tool(tool.name, {"type": "function", "function": function}, run, spec.max_chars, connection.close)


class _Connection:
    """One server, its client, and the thread that the client lives in."""

    def __init__(self, spec: McpSpec) -> None:
        self.name = f"mcp: {spec.mcp if isinstance(spec.mcp, str) else ' '.join(spec.mcp)}"
        self._spec = spec
        self._is_closed = False
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        self._opened = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._client: concurrent.futures.Future[mcp.Client] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._live, name=self.name[:60], daemon=True)
        self._thread.start()

    def _open_again(self, lost: asyncio.AbstractEventLoop) -> None:
        """A server that has died is started again for the calls that come, and not twice within `AGAIN_SECONDS`."""
        with self._lock:
            if self._is_closed or self._loop is not lost or time.monotonic() - self._opened < AGAIN_SECONDS:
                return
            self._leave()
            self._open()

    async def list(self) -> list[types.Tool]:
        """All tools of the server."""
        client, found, cursor = self._client.result(), [], None
        for _ in range(_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise UserError(self.name, f"lists its tools on more than {_PAGES} pages", "use a server with fewer tools")

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """What a tool answers. Raises CallFailed where the server says that it failed, or says nothing in time."""
        loop = self._loop
        try:
            result = self.wait(self._client.result(START_SECONDS).call_tool(name, arguments), self._spec.timeout)
        except mcp.MCPError as error:
            if error.code != types.CONNECTION_CLOSED:
                raise
            self._open_again(loop)
            raise CallFailed(f"{name} has ended without an answer") from None
        except (TimeoutError, concurrent.futures.CancelledError):
            raise CallFailed(f"{name} has not answered after {self._spec.timeout:g} seconds") from None
        except UserError:  # which names the command or address, and is for people alone
            raise CallFailed(f"{name} cannot be reached any more") from None
        text = "\n".join(_text(block) for block in result.content)
        if result.is_error:
            raise CallFailed(text or f"{name} failed")
        return text

    def wait(self, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
        """What work in the client's thread gives. Raises UserError without a server, TimeoutError where it is late."""
        try:
            self._client.result(START_SECONDS)
        except Exception as error:
            work.close()
            what = f"cannot be started or reached ({_cause(error)})"
            raise UserError(self.name, what, "check the command or the address") from None
        if not self._thread.is_alive():
            work.close()
            raise UserError(self.name, "has ended", "start it again")
        done = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), self._loop)
        return done.result(seconds + 5)

    def close(self) -> None:
        """Ends the client and a server that was started, also one that never answered. Waits for it once."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._leave()

    def _leave(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._end)
        self._thread.join(10)

    def _end(self) -> None:
        if self._client.done():
            self._ended.set()
        else:
            self._task.cancel()

    def _live(self) -> None:
        self._task = self._loop.create_task(self._serve())
        try:
            self._loop.run_until_complete(self._task)
        except BaseException as error:
            if not self._client.done():
                self._client.set_exception(error if isinstance(error, Exception) else ConnectionError("it was closed"))
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        """The client is opened and closed by one task, as its libraries want it."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(mcp.Client(await _server(self._spec, stack)))
            self._client.set_result(client)
            await self._ended.wait()


async def _server(spec: McpSpec, stack: AsyncExitStack) -> Any:
    """What the client takes: a command, or an address, perhaps with headers. Raises UserError."""
    if isinstance(spec.mcp, str):
        if not spec.headers_env:
            return spec.mcp
        headers = {header: _header(name) for header, name in spec.headers_env.items()}
        http = AsyncClient(headers=headers, timeout=Timeout(spec.timeout, connect=START_SECONDS))
        return streamable_http_client(spec.mcp, http_client=await stack.enter_async_context(http))
    command, *args = spec.mcp
    given = {name: _given(name, "env") for name in spec.env}
    return StdioServerParameters(command=command, args=args, env=given)


def _given(name: str, key: str) -> str:
    if name not in os.environ:
        raise UserError(f"tools: mcp.{key}", f"the environment has no {name}", "set it, or leave it out")
    return os.environ[name]


def _header(name: str) -> str:
    value = _given(name, "headers_env")
    if not (value.isascii() and value.isprintable() and value.strip() == value and value):
        raise UserError("tools: mcp.headers_env", f"{name} holds what no header can", "check its value")
    return value


def _cause(error: BaseException) -> str:
    """The first error of a group, such as tasks leave."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {str(error)[:200]}"


def _text(block: types.ContentBlock) -> str:
    return block.text if isinstance(block, types.TextContent) else f"[{block.type}, which cannot be shown]"
