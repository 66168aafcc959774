"""Serves the page to this machine: a loopback address with a random token, until Ctrl-C.

Address and token are kept beside the rankings, readable for their owner alone, so that a page that is still open goes
on when a killed server is started again. A browser is sent to the page by a file of the same kind: every user of a
machine can read the words with which a program is started.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from html import escape
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import uvicorn

from llmkit.artifacts.files import disk_error
from llmkit.preference.page.app import make_app
from llmkit.preference.session import Session
from llmkit.web import LOOPBACK, listen, server_config


class Address:
    """Where a page is served, and what lets one in."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token

    def url(self, rater: str) -> str:
        return f"http://{LOOPBACK}:{self.port}/?token={self.token}&rater={quote(rater)}"


def address_file(rankings: Path) -> Path:
    return rankings.with_name(f".{rankings.name}.page")


def read_address(rankings: Path) -> Address | None:
    """Of the page that serves or last served this file."""
    try:
        kept = json.loads(address_file(rankings).read_text("utf-8"))
        port, token = kept["port"], kept["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_sound = isinstance(port, int) and 0 < port < 65536 and isinstance(token, str)
    return Address(port, token) if is_sound and re.fullmatch(r"[\w-]{43}", token, re.ASCII) else None


def open_page(rankings: Path, url: str) -> None:
    """In a browser, and in a thread: one on the terminal keeps its caller until it is closed."""
    way = _way_file(rankings)
    to = escape(url)
    refresh = f'<meta http-equiv="refresh" content="0; url={to}">'
    _write_private(way, f'<!doctype html><meta charset="utf-8">{refresh}<a href="{to}">Rank</a>\n')
    Thread(target=webbrowser.open, args=[way.resolve().as_uri()], daemon=True).start()


def _way_file(rankings: Path) -> Path:
    return rankings.with_name(f".{rankings.name}.page.html")


def serve(session: Session, rankings: Path, rater: str, port: int | None, ready: Callable[[str], None]) -> None:
    """Blocks until it is told to stop.

    Args:
        port: None for the last one, at first any that is free; 0 for any.
        ready: called with the full address once it can be opened.

    Raises:
        UserError: the port is taken.
    """
    before = read_address(rankings)
    listening = _listen(port, before.port if before else 0)
    with listening:
        found = listening.getsockname()[1]
        # on another port somebody else may have the last one, and an open page has told him the token
        address = before if before and before.port == found else Address(found, secrets.token_urlsafe(32))
        _keep(rankings, address)
        app = make_app(session, address.token, address.port, rater, str(rankings.resolve()))
        config = server_config(app)
        ready(address.url(rater))
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
        _way_file(rankings).unlink(missing_ok=True)


def _listen(port: int | None, last: int) -> socket.socket:
    """What an open page has not sent yet waits in the browser for its own address: nothing is moved unasked."""
    wanted = last if port is None else port
    whose = "" if port is not None else ", and a page that is still open sends what it has kept to no other"
    return listen(LOOPBACK, wanted, whose)


def _keep(rankings: Path, address: Address) -> None:
    kept = {"port": address.port, "token": address.token}
    _write_private(address_file(rankings), json.dumps(kept))


def _write_private(path: Path, text: str) -> None:
    """Readable for its owner alone from the first byte."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        partial.replace(path)
    except OSError as error:
        raise disk_error(path, error, "--out") from error
