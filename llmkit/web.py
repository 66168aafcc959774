"""What llmkit's pages share: one document that runs nothing but its own script and style, headers, a port."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any

import uvicorn
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.types import Message, Scope, Send

from llmkit.errors import UserError

LOOPBACK = "127.0.0.1"
PALETTE = ("llmkit.report", "templates/palette.css")
_HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
File = tuple[str, str]
"""Package, and a file's path in it."""


def document(page: File, styles: Sequence[File], scripts: Sequence[File], **values: str) -> tuple[str, str]:
    """The page, and the policy under which a browser runs its own script and style and nothing else."""
    style, script = "".join(map(_source, styles)), "\n".join(map(_source, scripts))
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_source(page))
    text = template.render(**values, style=Markup(style), script=Markup(script))
    rules = [
        "default-src 'none'",
        f"script-src '{_hash(script)}'",
        f"style-src '{_hash(style)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return text, "; ".join(rules)


async def body_of(request: Request, longest: int) -> bytes | None:
    """None: it is too long. No more of it than that is ever held."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > longest:
            return None
    return body


def is_json(request: Request) -> bool:
    """Whether a body says that it is JSON, which no page of another origin can say unasked."""
    return request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"


def with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            found = [*message["headers"], *((name.encode(), value.encode()) for name, value in _HEADERS.items())]
            message = {**message, "headers": found}
        await send(message)

    return sending


def headers_of(scope: Scope) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]


def values_of(headers: Iterable[tuple[str, str]], wanted: str) -> list[str]:
    return [value for name, value in headers if name == wanted]


def server_config(app: Any, **options: Any) -> uvicorn.Config:
    """A server that says nothing: addresses may hold a token, and nothing writes them into a log. Args: options: more
    of uvicorn's."""
    # uvicorn's own `log_config` would close the handlers of everybody else
    quiet = {"access_log": False, "log_level": "error", "log_config": None, "ws": "none", "lifespan": "off"}
    return uvicorn.Config(app, **quiet, server_header=False, timeout_keep_alive=5, **options)  # type: ignore[arg-type]


def server_of(app: Any, stop: Callable[[], None]) -> uvicorn.Server:
    """Runs until a signal; then `stop` is called, and what is open has two seconds."""
    server = uvicorn.Server(server_config(app, timeout_graceful_shutdown=2))
    leave = server.handle_exit

    def end(*signal: Any) -> None:
        stop()
        leave(*signal)

    server.handle_exit = end  # type: ignore[method-assign,assignment]
    return server


def listen(host: str, port: int, more: str = "") -> socket.socket:
    """Raises UserError where the port cannot be had; with `more` that is to be said then."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        cure = "end what uses it, or give `--port 0` for any that is free"
        raise UserError(f"--port {port}", f"cannot be used ({error.strerror or error}){more}", cure) from None
    found.listen(128)
    return found


def _source(file: File) -> str:
    return files(file[0]).joinpath(file[1]).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
