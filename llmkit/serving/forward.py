"""The page and the gate in front of another server, which writes: requests pass as they came, answers as they come.

Nothing else of that server can be reached, and its key stays here. Who hangs up ends what is written there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from httpx2 import AsyncClient, HTTPError, Limits, Timeout
from httpx2 import Response as Answer
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp

from llmkit.serving.app import has_left, routed, sent
from llmkit.serving.errors import ApiError
from llmkit.serving.gate import Gate
from llmkit.serving.host import Gone


def make_forwarding_app(
    upstream: str, upstream_key: str, name: str, about: dict[str, Any], address: str, port: int, key: str | None
) -> ASGIApp:
    """Args: upstream: the other server's address on this machine, without a path; about: for the page."""
    # an answer may take as long as it likes; proxies of the environment are for other machines
    client = AsyncClient(
        base_url=upstream,
        headers={"authorization": f"Bearer {upstream_key}"},
        timeout=Timeout(None, connect=10.0),
        limits=Limits(max_connections=None, max_keepalive_connections=16),
        trust_env=False,
    )

    async def forward(request: Request) -> Response:
        body = await sent(request)
        answer = await _answer(request, client, body)
        return StreamingResponse(_parts(answer), answer.status_code, media_type=answer.headers.get("content-type"))

    return Gate(routed(name, about, forward, forward), address, port, key)


async def _answer(request: Request, client: AsyncClient, body: bytes) -> Answer:
    """Once it begins, which for a whole answer is its end. Raises Gone where nobody waits for it, ApiError."""
    asked = client.build_request("POST", request.url.path, content=body, headers={"content-type": "application/json"})
    sending = asyncio.ensure_future(client.send(asked, stream=True))
    leaving = asyncio.ensure_future(has_left(request))
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            raise Gone
        return sending.result()
    except HTTPError as error:
        raise ApiError(502, f"The model's server does not answer ({type(error).__name__}).") from None
    finally:
        sending.cancel()
        leaving.cancel()


async def _parts(answer: Answer) -> AsyncIterator[bytes]:
    """A connection that breaks ends the answer short, as it would without us."""
    try:
        async for part in answer.aiter_raw():
            yield part
    except HTTPError:
        return
    finally:
        await answer.aclose()
