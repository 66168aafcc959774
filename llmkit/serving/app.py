"""The routes. A request is read and checked, then written in a thread; who hangs up ends what is written.

GET  /                        the page
GET  /health                  {"status": "ok"}
GET  /about                   for the page: the model, its tools
GET  /v1/models               the one model
GET  /v1/models/NAME          the same alone
POST /v1/chat/completions     also as a stream of events
POST /v1/completions          likewise
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from llmkit.serving.errors import ApiError, check_model
from llmkit.serving.gate import Gate
from llmkit.serving.host import Event, Gone, Host, Prepared, Written
from llmkit.serving.replies import Reply
from llmkit.serving.wanted import Wanted, chat_wanted, text_wanted
from llmkit.web import PALETTE, body_of, document, is_json

LONGEST_BODY = 4 * 2**20
_HERE = "llmkit.serving.page"
_SCRIPTS = ("stream", "show", "chat")
_Answer = Callable[[Request], Awaitable[Response]]


def make_app(host: Host, address: str, port: int, key: str | None, threads: ThreadPoolExecutor) -> ASGIApp:
    """Args: threads: that wait for answers; as many as there may be requests."""

    async def chat(request: Request) -> Response:
        return await write(request, chat_wanted)

    async def text(request: Request) -> Response:
        return await write(request, text_wanted)

    async def write(request: Request, read: Callable[[Any, str], Wanted]) -> Response:
        wanted = read(await _json_of(request), host.name)
        prepared = await run_in_threadpool(host.prepare, wanted)
        running = _Running(prepared, threads, asyncio.ensure_future(_hung_up(request, prepared)))
        reply = Reply(wanted, host.name)
        if wanted.stream:
            return StreamingResponse(_chunks(running, reply), media_type="text/event-stream")
        try:
            events = [event async for event in running.events()]
            return JSONResponse(reply.whole(await running.written(), events))
        finally:
            running.leave()

    return Gate(routed(host.name, host.about, chat, text), address, port, key)


def routed(name: str, about: dict[str, Any], chat: _Answer, text: _Answer) -> ASGIApp:
    """The page and its addresses. Args: chat, text: what answers the two kinds of requests."""
    page, policy = document(
        (_HERE, "chat.html.jinja"),
        [PALETTE, (_HERE, "chat.css")],
        [(_HERE, f"{n}.js") for n in _SCRIPTS],
        name=name,
    )
    started = int(time.time())

    async def show(_: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": policy})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def told(_: Request) -> Response:
        return JSONResponse(about | {"model": name})

    model = {"id": name, "object": "model", "created": started, "owned_by": "llmkit"}

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model]})

    async def one_model(request: Request) -> Response:
        check_model(request.path_params["asked"], name)
        return JSONResponse(model)

    routes = [Route("/", show), Route("/health", health), Route("/about", told)]
    routes += [Route("/v1/models", models), Route("/v1/models/{asked:path}", one_model)]
    routes += [Route("/v1/chat/completions", chat, methods=["POST"])]
    routes += [Route("/v1/completions", text, methods=["POST"])]
    handlers: Any = {ApiError: _refused, HTTPException: _unknown, Gone: _left, Exception: _failed}
    return Starlette(routes=routes, exception_handlers=handlers)


async def sent(request: Request) -> bytes:
    """A body of JSON that is not too long. Raises ApiError."""
    if not is_json(request):
        raise ApiError(415, "Send application/json.")
    body = await body_of(request, LONGEST_BODY)
    if body is None:
        raise ApiError(413, f"The body has more than {LONGEST_BODY} bytes.")
    return body


async def _json_of(request: Request) -> Any:
    body = await sent(request)
    try:
        read = json.loads(body)
        json.dumps(read, ensure_ascii=False).encode()  # no tokenizer takes half a character
        return read
    except UnicodeEncodeError:
        raise ApiError(400, "The body holds half a character (a lone surrogate).") from None
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON.") from None


async def _hung_up(request: Request, prepared: Prepared) -> None:
    await has_left(request)
    prepared.leave()


async def has_left(request: Request) -> None:
    """Behind the body nothing comes but that the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Running:
    """An answer that is written in a thread, as events in this loop."""

    def __init__(self, prepared: Prepared, threads: ThreadPoolExecutor, watch: asyncio.Future[None]) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._prepared, self._watch = prepared, watch
        loop = asyncio.get_running_loop()
        put = self._queue.put_nowait

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(put, event)

        def end(future: Any) -> None:
            _log(future)
            put(None)

        self._future = loop.run_in_executor(threads, prepared.answer, tell)
        self._future.add_done_callback(end)

    async def events(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event

    async def written(self) -> Written:
        """Raises what the thread raised."""
        return await self._future

    def leave(self) -> None:
        self._watch.cancel()
        self._prepared.leave()


def _log(future: asyncio.Future[Written]) -> None:
    """Also where nobody waits for it any more."""
    error = None if future.cancelled() else future.exception()
    if error is not None and not isinstance(error, (Gone, ApiError)):
        logging.getLogger(__name__).error("an answer failed", exc_info=error)


async def _chunks(running: _Running, reply: Reply) -> AsyncIterator[bytes]:
    try:
        for chunk in reply.first():
            yield _line(chunk)
        async for event in running.events():
            yield _line(reply.chunk(event))
        for chunk in reply.last(await running.written()):
            yield _line(chunk)
        yield b"data: [DONE]\n\n"
    except Gone:
        return
    except ApiError as error:
        yield _line(error.body())
    except Exception:
        yield _line(ApiError(500, "The server failed; its log says how.").body())
    finally:
        running.leave()


def _line(data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(ApiError(error.status_code, what).body(), error.status_code, error.headers)


async def _left(_: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse(ApiError(500, "The server failed; its log says how.").body(), 500)
