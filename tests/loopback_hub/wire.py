"""HTTP as the client sees it: bodies in and out, and connections that break on purpose."""

from __future__ import annotations

import json
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loopback_hub.faults import Fault, corrupted
from loopback_hub.state import Refusal


@dataclass
class Request:
    host: str
    """`hub` or `storage`."""
    method: str
    path: str
    """Still quoted, without the query."""
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = True
    """False where the body ended before its announced length."""
    status: int | None = None
    """What was answered; None where nothing was."""
    fault: Fault | None = None

    @property
    def token(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme == "Bearer" else None

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body.decode())


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Answer:
        found = {"Content-Type": "application/json; charset=utf-8"} | headers
        return cls(status, json.dumps(value).encode(), found)

    @classmethod
    def refusal(cls, refusal: Refusal) -> Answer:
        headers = {"X-Error-Message": refusal.message, **refusal.headers}
        if refusal.code:
            headers["X-Error-Code"] = refusal.code
        return cls.json({"error": refusal.message}, refusal.status, **headers)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_any(self) -> None:
        hub = self.server.hub
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.server.role, self.command, split.path, query, headers)
        request.fault = hub.plan.next(request.method, request.path)
        hub.requests.append(request)
        what = request.fault.what if request.fault else None
        self._read(request, half=what == "cut request")
        if what in ("cut request", "drop before") or not request.whole:
            return self._hang_up()
        if what == "slow":
            time.sleep(request.fault.seconds)
        if what == "corrupt request":
            request.body = corrupted(request.body)
        answer = self._injected(request.fault) if isinstance(what, int) else hub.answer(request)
        if what == "drop after":
            return self._hang_up()
        request.status = answer.status
        self._send(answer, str(what))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_any

    def _injected(self, fault: Fault) -> Answer:
        return Answer.json({"error": fault.message}, int(fault.what), **fault.headers())

    def _read(self, request: Request, half: bool) -> None:
        if "chunked" in request.headers.get("transfer-encoding", ""):
            return self._read_chunks(request, half)
        length = int(request.headers.get("content-length", 0))
        request.body = self.rfile.read(length // 2 if half else length)
        request.whole = len(request.body) == length

    def _read_chunks(self, request: Request, half: bool) -> None:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
            if half:
                request.whole = False
                break
        else:
            self.rfile.readline()
        request.body = b"".join(parts)

    def _send(self, answer: Answer, fault: str) -> None:
        body = corrupted(answer.body) if fault == "corrupt answer" else answer.body
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if fault == "cut answer" else body)
        if fault == "cut answer":
            self._hang_up()

    def _hang_up(self) -> None:
        """Closes as a machine that went away: what was sent before arrives, then the connection is reset."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_WR)

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, hub: Any, role: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub, self.role = hub, role
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is no error here; what a route raises is answered by `LoopbackHub.answer`."""
