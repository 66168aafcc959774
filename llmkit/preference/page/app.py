"""The page's server: one document and four calls, JSON in and out.

GET  /?token=...        the page
GET  /state?rater=...   a rater's next turn and how far he is
POST /decide            a decision -> the next turn
POST /undo              takes the last decision back -> its turn
GET  /results           how far raters agree

Statuses: 400 no such thing, 409 decided already (with the state that counts), 413 too long, 507 not saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from llmkit.errors import RunError, UserError
from llmkit.preference.page.gate import Gate
from llmkit.preference.rankings import clean_name
from llmkit.preference.session import DecisionRequest, Session, Stale, UndoRequest
from llmkit.web import PALETTE, body_of, document, is_json

LONGEST_BODY = 64 * 1024
_HERE = "llmkit.preference.page"


def make_app(session: Session, token: str, port: int, rater: str, name: str) -> ASGIApp:
    """Args: rater: whom the page begins with. name: of the file of rankings; what the browser keeps stands under it."""
    scripts = [(_HERE, f"{part}.js") for part in ("order", "drag", "talk", "show", "results", "rank")]
    styles = [PALETTE, (_HERE, "rank.css")]
    page, policy = document((_HERE, "rank.html.jinja"), styles, scripts, rater=rater, name=name)

    async def show(_: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": policy})

    async def state(request: Request) -> Response:
        return await _answer(lambda: session.state(clean_name(request.query_params.get("rater", ""))))

    async def results(_: Request) -> Response:
        return await _answer(session.results)

    async def decide(request: Request) -> Response:
        return await _post(request, DecisionRequest, session.decide)

    async def undo(request: Request) -> Response:
        return await _post(request, UndoRequest, session.undo)

    async def _post(request: Request, kind: type[Any], call: Callable[[Any], Any]) -> Response:
        if not is_json(request):
            return _said(415, "send application/json")
        body = await body_of(request, LONGEST_BODY)
        if body is None:
            return _said(413, f"more than {LONGEST_BODY} bytes")
        return await _answer(lambda: _called(session, body, kind, call))

    get, post = ["GET"], ["POST"]
    routes = [Route("/", show, methods=get), Route("/state", state, methods=get)]
    routes += [Route("/results", results, methods=get)]
    routes += [Route("/decide", decide, methods=post), Route("/undo", undo, methods=post)]
    return Gate(Starlette(routes=routes), token, port)


def _called(session: Session, body: bytes, kind: type[BaseModel], call: Callable[[Any], Any]) -> Any:
    asked: Any = kind.model_validate_json(body)
    asked.rater = clean_name(asked.rater)
    try:
        return call(asked)
    except Stale as error:
        raise _Conflict(str(error), session.state(asked.rater)) from None


class _Conflict(Exception):
    """A `Stale` request, with what the page should show instead."""

    def __init__(self, message: str, state: dict[str, Any]) -> None:
        self.message, self.state = message, state


async def _answer(call: Callable[[], Any]) -> Response:
    """In a thread: saving waits for the disk."""
    try:
        return _json(200, await run_in_threadpool(call))
    except _Conflict as error:
        return _json(409, {"message": error.message, "state": error.state})
    except RunError as error:
        return _said(507, str(error))
    except ValidationError as error:
        return _said(400, "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()))
    except (UserError, ValueError) as error:
        return _said(400, str(error))


def _said(status: int, message: str) -> Response:
    return _json(status, {"message": message})


def _json(status: int, data: Any) -> Response:
    # a name may hold a lone surrogate, which UTF-8 cannot write
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return Response(text, status, media_type="application/json")
