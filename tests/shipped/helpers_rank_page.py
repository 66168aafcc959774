"""A ranking page to open: its server in a thread or as a process, a window on it, and what else may answer."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvicorn
from data.helpers_rank import rollout_row

from llmkit.preference.page.app import make_app
from llmkit.preference.page.serve import Address
from llmkit.preference.rankings import Decision, Undo
from llmkit.preference.rollouts import item_of
from llmkit.preference.session import Session
from llmkit.preference.store import open_store, read_events
from llmkit.web import server_config

HURRY = "{ const real = setTimeout; window.setTimeout = (act, time) => real(act, time / 100); }"


class Served:
    """A page's address and what was decided on it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    @property
    def decisions(self) -> list[Decision]:
        events = read_events(self.folder / "rankings.jsonl")
        undone = {event.id for event in events if isinstance(event, Undo)}
        return [event for event in events if isinstance(event, Decision) and event.id not in undone]


class Process(Served):
    """`llmkit rank` as a process of its own, which can be killed."""

    def __init__(self, folder: Path, *words: str) -> None:
        argv = [sys.executable, "-m", "llmkit.stages.rank_page", str(folder), "--no-browser", "--rater", "anna", *words]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        found = re.match(r"rank at (\S+)", self.process.stdout.readline())
        assert found, self.process.stdout.read()
        super().__init__(folder, found[1])

    def end(self, how: int = signal.SIGKILL) -> str:
        self.process.send_signal(how)
        return self.process.communicate(timeout=20)[0]


class Local(Served):
    """The same server in a thread: there at once, and gone at once."""

    def __init__(self, folder: Path, rater: str, data: list[dict[str, Any]], repeat: float = 0.0) -> None:
        self._rater, self._items, self._repeat = rater, [item_of(row, "") for row in data], repeat
        self.port = 0
        self.start(folder)
        super().__init__(folder, Address(self.port, "t" * 43).url(rater))

    def start(self, folder: Path | None = None) -> None:
        folder = folder or self.folder
        with ExitStack() as stack:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", self.port)))
            self.port = listening.getsockname()[1]
            store = stack.enter_context(open_store(folder / "rankings.jsonl"))
            session = Session(self._items, store, seed=0, repeat=self._repeat)
            app = make_app(session, "t" * 43, self.port, self._rater, str(folder))
            server = uvicorn.Server(server_config(app))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "force_exit", True)
            stack.callback(setattr, server, "should_exit", True)
            self._running = stack.pop_all()

    def stop(self) -> None:
        self._running.close()

    def add(self, data: list[dict[str, Any]]) -> None:
        """From the next start on."""
        self._items += [item_of(row, "") for row in data]


@contextmanager
def foreign(port: int, status: int, kind: str, body: str) -> Iterator[None]:
    """Another program at the page's address, which answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class Window:
    """A page and all that it should not say."""

    def __init__(self, browser: Any, url: str, width: int = 1280, **options: Any) -> None:
        """A `hurry` is in every wait of the page; a `clock` can be set forward."""
        is_hurry, has_clock = options.pop("hurry", False), options.pop("clock", False)
        self.context = browser.new_context(viewport={"width": width, "height": 800}, reduced_motion="reduce", **options)
        if is_hurry:
            self.context.add_init_script(HURRY)
        if has_clock:
            self.context.clock.install()
        self.said: list[str] = []
        self.page = self.open(url)

    def open(self, url: str) -> Any:
        page = self.context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(dialog.message))
        page.goto(url)
        page.wait_for_selector(".card, #results:not([hidden])")
        return page

    def press(self, keys: str) -> None:
        for key in keys.split():
            self.page.keyboard.press(key)

    def wait(self, done: int) -> None:
        """Until so many are saved."""
        pace = self.page.locator("body[aria-busy='false'] #pace", has_text=re.compile(rf"^{done} of"))
        pace.wait_for(state="attached")

    def come_back(self) -> None:
        """From another window."""
        self.page.evaluate("window.dispatchEvent(new Event('focus'))")

    def alert(self) -> str:
        self.page.wait_for_selector("#alert:not([hidden])")
        return self.page.inner_text("#alert")

    def formula(self) -> str:
        return self.page.inner_text("#formula")

    def answers(self) -> list[str]:
        return self.page.locator(".card .said").all_inner_texts()


def rows(num: int = 4) -> list[dict[str, Any]]:
    return [rollout_row(index) for index in range(num)]
