"""Serves the page to this machine: a loopback address with a random token, until Ctrl-C.

Address and token are kept beside the rankings, readable for their owner alone, so that a page that is still open goes
on when a killed server is started again.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import uvicorn

from llmkit.artifacts.files import disk_error
from llmkit.errors import UserError
from llmkit.preference.page.app import make_app
from llmkit.preference.session import Session

_LOOPBACK = "127.0.0.1"


class Address:
    """Where a page is served, and what lets one in."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token

    def url(self, rater: str) -> str:
        return f"http://{_LOOPBACK}:{self.port}/?token={self.token}&rater={quote(rater)}"


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


def serve(session: Session, rankings: Path, rater: str, port: int, ready: Callable[[str], None]) -> None:
    """Blocks until it is told to stop.

    Args:
        port: 0 for the last one, or any that is free.
        ready: called with the full address once it can be opened.

    Raises:
        UserError: the port is taken.
    """
    before = read_address(rankings)
    listening = _listen(port, before.port if before else 0)
    with listening:
        found = listening.getsockname()[1]
        # where somebody else has taken the port, an open page may have told him the token
        address = before if before and before.port == found else Address(found, secrets.token_urlsafe(32))
        _keep(rankings, address)
        app = make_app(session, address.token, address.port, rater, str(rankings.resolve()))
        # addresses hold the token: nothing writes them into a log
        config = uvicorn.Config(
            app,
            access_log=False,
            log_level="error",
            ws="none",
            lifespan="off",
            server_header=False,
            timeout_keep_alive=5,
        )
        ready(address.url(rater))
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _listen(port: int, wish: int) -> socket.socket:
    for wanted in (port,) if port else (wish, 0):
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((_LOOPBACK, wanted))
        except OSError as error:
            found.close()
            if wanted in (port, 0):
                cure = "give another, or none to take any that is free"
                raise UserError(f"--port {port}", f"cannot be used ({error.strerror})", cure) from None
        else:
            found.listen(128)
            return found
    raise AssertionError("port 0 is bound or refused")


def _keep(rankings: Path, address: Address) -> None:
    path = address_file(rankings)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump({"port": address.port, "token": address.token}, file)
        partial.replace(path)
    except OSError as error:
        raise disk_error(path, error, "--out") from error
