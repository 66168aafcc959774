"""Whom the endpoint lets in.

On a loopback address `Host` must be one of its names, so that a foreign name which is made to point here (DNS
rebinding) gets nothing; other addresses need a key instead. `Origin`, where a browser sends it, must be the page's own:
no other page can have this model write. With a key, all but the page and `/health` asks for it.
"""

from __future__ import annotations

from hmac import compare_digest

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from llmkit.options.serve import LOOPBACKS
from llmkit.serving.errors import ApiError
from llmkit.web import headers_of, values_of, with_headers

_OPEN = {("GET", "/"), ("HEAD", "/"), ("GET", "/health"), ("HEAD", "/health")}


class Gate:
    """Around the application: nothing of it runs for a request that is refused."""

    def __init__(self, app: ASGIApp, host: str, port: int, key: str | None) -> None:
        self._app, self._key = app, key.encode() if key else None
        names = ("127.0.0.1", "localhost", "[::1]") if host in LOOPBACKS else ()
        self._hosts = {f"{name}{end}" for name in names for end in ((f":{port}", "") if port == 80 else (f":{port}",))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        error = self._refused(scope)
        app = self._app if error is None else _said(error)
        await app(scope, receive, with_headers(send))

    def _refused(self, scope: Scope) -> ApiError | None:
        headers = headers_of(scope)
        host, origin, given = (values_of(headers, name) for name in ("host", "origin", "authorization"))
        if len(host) != 1 or (self._hosts and host[0] not in self._hosts):
            return ApiError(403, "This address serves requests to its own name only.", code="wrong_host")
        if any(each not in (f"http://{host[0]}", f"https://{host[0]}") for each in origin):
            return ApiError(403, "Pages of other origins may not ask here.", code="wrong_origin")
        if self._key is None or (scope["method"], scope["path"]) in _OPEN:
            return None
        kind, _, key = (given[0] if len(given) == 1 else "").partition(" ")
        if kind.lower() == "bearer" and compare_digest(key.strip().encode("latin-1"), self._key):
            return None
        return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")


def _said(error: ApiError) -> Response:
    return JSONResponse(error.body(), error.status)
