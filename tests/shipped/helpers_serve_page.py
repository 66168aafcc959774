"""The chat page over a model that is a script: no model library, and answers as slow as a test wants them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import uvicorn

from llmkit.serving.app import make_app
from llmkit.serving.errors import ApiError
from llmkit.serving.host import Event, Gone, Written
from llmkit.serving.wanted import Wanted
from llmkit.web import listen, server_config

Reply = Callable[[Wanted], list[Event | float]]
"""What is told, in order; a number is a wait in seconds."""


def text(*words: str) -> list[Event | float]:
    return [Event("text", text=word) for word in words]


def thought(*words: str) -> list[Event | float]:
    return [Event("thought", text=word) for word in words]


def called(name: str, arguments: str, result: str, failed: bool = False) -> list[Event | float]:
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    given = {"role": "tool", "tool_call_id": "call_1", "content": result}
    return [Event("message", message=turn), Event("message", message=given, about={"seconds": 0.02, "failed": failed})]


def unreadable(said: str, error: str) -> list[Event | float]:
    """A call that nobody could read."""
    given = {"role": "tool", "content": error}
    told = Event("message", message={"role": "assistant", "content": said})
    return [told, Event("message", message=given, about={"seconds": 0.0, "failed": True})]


class ScriptedHost:
    """`llmkit.serving.host.Host`."""

    name = "tiny-assistant"

    def __init__(self) -> None:
        self.reply: Reply = lambda wanted: text("Hello.")
        self.asked: list[Wanted] = []
        self.left = threading.Event()
        self.wants_calls = False

    @property
    def about(self) -> dict[str, Any]:
        return {"context": 2048, "tools": ["search", "python"], "reasons": True, "temperature": 0.0, "top_p": 1.0}

    def prepare(self, wanted: Wanted) -> _Prepared:
        self.asked.append(wanted)
        if "too long" in str(wanted.prompt[-1]):
            raise ApiError(400, "This model's context holds 2048 tokens, and your prompt has 3000. Shorten it.")
        return _Prepared(self, wanted)

    def written(self, said: str) -> Written:
        return Written(said, "", (), "length" if self.wants_calls else "stop", 40, 12, 0, self.wants_calls)


class _Prepared:
    def __init__(self, host: ScriptedHost, wanted: Wanted) -> None:
        self._host, self._wanted, self._is_left = host, wanted, False

    def leave(self) -> None:
        self._is_left = True

    def answer(self, tell: Callable[[Event], None]) -> Written:
        said = ""
        for each in self._host.reply(self._wanted):
            if self._is_left:
                self._host.left.set()
                raise Gone
            if isinstance(each, Event):
                said += each.text if each.kind == "text" else ""
                tell(each)
            else:
                time.sleep(each)
        return self._host.written(said)


@contextmanager
def page_of(host: ScriptedHost, key: str | None = None) -> Iterator[str]:
    """Its address."""
    with listen("127.0.0.1", 0) as listening, ThreadPoolExecutor(8) as threads:
        port = listening.getsockname()[1]
        app = make_app(host, "127.0.0.1", port, key, threads)
        server = uvicorn.Server(server_config(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
