"""What the page's server lets in: requests that know its token, ask for its own name and come from its own page.

The token keeps other users and programs of this machine out. `Host` must be the loopback name that was printed, so that
a foreign name which is made to point here (DNS rebinding) gets nothing. `Origin`, where a browser sends it, must be the
page's own, so that no other page can post here. The answer to everything else is 403 and one line.
"""

from __future__ import annotations

from hmac import compare_digest
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from llmkit.web import headers_of, values_of, with_headers

TOKEN_HEADER = "x-llmkit-token"
_REFUSED = "refused: open the address that `llmkit rank` printed"


class Gate:
    """Around the application: nothing of it runs for a request that is refused."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = headers_of(scope)
        app = self._app if self._is_ours(headers, scope) else _refused()
        await app(scope, receive, with_headers(send))

    def _is_ours(self, headers: list[tuple[str, str]], scope: Scope) -> bool:
        host, origin, token = (values_of(headers, name) for name in ("host", "origin", TOKEN_HEADER))
        if len(host) != 1 or host[0] not in self._hosts:
            return False
        if any(each != f"http://{host[0]}" for each in origin):
            return False
        # the first request is a person's click and has no header; it reads the page and changes nothing
        if scope["path"] == "/" and scope["method"] == "GET" and not token:
            token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return len(token) == 1 and compare_digest(token[0].encode(), self._token)


def _refused() -> Response:
    return PlainTextResponse(_REFUSED + "\n", status_code=403)
