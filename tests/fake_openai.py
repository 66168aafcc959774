"""An OpenAI-compatible endpoint on this machine whose behaviour tests write down."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What one request gets."""

    status: int = 200
    body: Any = None
    """A dict becomes JSON; str is sent as it is; None: the texts as a proper completion."""
    texts: tuple[str, ...] | None = None
    """One choice each. None: what `answer` says, as often as was asked."""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before it begins."""
    drip: float = 0.0
    """Seconds between single bytes of the body."""
    drop: bool = False
    """The connection breaks off without a reply."""


NO_CHOICES = Reply(body={"choices": []})
NULL_CONTENT = Reply(body={"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}]})
REFUSAL = Reply(body={"choices": [{"message": {"content": "", "refusal": "I cannot help."}, "finish_reason": "stop"}]})
RUBBISH = Reply(body="<html>Bad gateway</html>")
BROKEN_JSON = Reply(body='{"choices": [{"mess', headers={"Content-Type": "application/json"})
DROPPED = Reply(drop=True)


def refused(status: int, message: str = "no", **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"message": message}}, headers=names)


class FakeOpenAI:
    """Serves /v1/chat/completions and /v1/completions on a free port of the loopback, as a context manager.

    Args:
        answer: from the request's body to the text. Default: the last message's content, or the prompt, in capitals.
        script: replies to the first requests, in their order; later ones are answered properly.
        always: in place of a script, the reply to every request.
    """

    def __init__(
        self,
        answer: Callable[[dict[str, Any]], str] | None = None,
        script: Iterable[Reply] = (),
        always: Reply | None = None,
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        """Bodies, in the order in which they came."""
        self.paths: list[str] = []
        self.keys: list[str] = []
        """`Authorization` headers."""
        self.times: list[float] = []
        self.most_at_once = 0
        self._answer = answer or _shout
        self._script = list(script)
        self._always = always
        self._lock = threading.Lock()
        self._open = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> FakeOpenAI:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake._lock:
                    fake._open += 1
                    fake.most_at_once = max(fake.most_at_once, fake._open)
                    fake.requests.append(body)
                    fake.paths.append(self.path)
                    fake.keys.append(self.headers.get("Authorization", ""))
                    fake.times.append(time.monotonic())
                    reply = fake._always or (fake._script.pop(0) if fake._script else Reply())
                time.sleep(reply.delay)
                content = fake._content(reply, body, self.path).encode()
                # before it is sent: the client may come back before this thread goes on
                with fake._lock:
                    fake._open -= 1
                self.close_connection = True
                if not reply.drop:
                    with suppress(BrokenPipeError, ConnectionResetError):
                        self._send(reply, content)

            def _send(self, reply: Reply, content: bytes) -> None:
                kind = "text/html" if isinstance(reply.body, str) else "application/json"
                self.send_response(reply.status)
                for name, value in {"Content-Type": kind, **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if not reply.drip:
                    self.wfile.write(content)
                    return
                for byte in content:
                    time.sleep(reply.drip)
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _content(self, reply: Reply, body: dict[str, Any], path: str) -> str:
        if reply.body is not None:
            return reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        texts = reply.texts if reply.texts is not None else (self._answer(body),) * (body.get("n") or 1)
        is_chat = path.endswith("/chat/completions")
        choices = [
            {
                "index": index,
                "finish_reason": "stop",
                **({"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}),
            }
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        return json.dumps({"id": "x", "object": "completion", "choices": choices, "usage": usage})


def _shout(body: dict[str, Any]) -> str:
    said = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return str(said).upper()
