"""The page's server: one document and four calls, JSON in and out.

GET  /?token=...        the page
GET  /state?rater=...   a rater's next turn and how far he is
POST /decide            a decision -> the next turn
POST /undo              takes the last decision back -> its turn
GET  /results           how far raters agree

Statuses: 400 no such thing, 409 decided already (with the state that counts), 413 too long, 507 not saved.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
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

LONGEST_BODY = 64 * 1024
_HERE = "llmkit.preference.page"


def make_app(session: Session, token: str, port: int, rater: str, name: str) -> ASGIApp:
    """Args: rater: whom the page begins with. name: of the file of rankings; what the browser keeps stands under it."""
    page, policy = _document(rater, name)

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
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _said(415, "send application/json")
        body = await _body(request)
        if body is None:
            return _said(413, f"more than {LONGEST_BODY} bytes")
        return await _answer(lambda: _called(session, body, kind, call))

    get, post = ["GET"], ["POST"]
    routes = [Route("/", show, methods=get), Route("/state", state, methods=get)]
    routes += [Route("/results", results, methods=get)]
    routes += [Route("/decide", decide, methods=post), Route("/undo", undo, methods=post)]
    return Gate(Starlette(routes=routes), token, port)


async def _body(request: Request) -> bytes | None:
    """None: it is too long. No more of it than that is ever held."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            return None
    return body


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


def _document(rater: str, name: str) -> tuple[str, str]:
    """The page, and the policy under which a browser runs its own script and style and nothing else."""
    style = _source("llmkit.report", "templates/palette.css") + _source(_HERE, "rank.css")
    script = "\n".join(_source(_HERE, f"{part}.js") for part in ("order", "drag", "talk", "show", "results", "rank"))
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_source(_HERE, "rank.html.jinja"))
    page = template.render(rater=rater, name=name, style=Markup(style), script=Markup(script))
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
    return page, "; ".join(rules)


def _source(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
