"""What the Hub and the network say, in words that a user can act on, and without any token."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import huggingface_hub
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from llmkit.errors import LlmkitError, RunError
from llmkit.secrets import redacted

AGAIN = "run the same command again: what was sent is not sent twice"
_SECRET_NAME = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|SECRET\w*KEY)$")
_SHORTEST = 12
"""Characters of a value of the environment: a shorter one may be an ordinary word."""
_STATUS = {
    401: ("does not accept the token", "log in with `hf auth login`, or set HF_TOKEN to a token that is valid"),
    403: (
        "does not let this token write there",
        "use a token of the role 'write' of someone who may, or another repo_id",
    ),
    404: ("has no such repository that this token may see", "check the name, and the token's access to it"),
    409: ("was changed by someone else at the same time", AGAIN),
    412: ("was changed by someone else at the same time", AGAIN),
    413: ("finds it too large", "leave out the report or the data sets, or ask for a larger quota"),
    429: ("asks for fewer requests", f"wait a few minutes, then {AGAIN}"),
}


def known_secrets() -> list[str]:
    """Values that must appear nowhere: the Hub's own token, and what the environment keeps under such names."""
    own = [token] if (token := huggingface_hub.get_token()) else []
    named = [value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST]
    return sorted({*own, *(value for value in named if not value.startswith("/"))}, key=len, reverse=True)


@contextmanager
def told(repo_id: str) -> Iterator[None]:
    """Turns whatever the client raises into a RunError."""
    try:
        yield
    except LlmkitError:
        raise
    except Exception as error:
        what, cure = _words(error)
        raise RunError(repo_id, redacted(what, known_secrets()), cure) from None


def _words(error: Exception) -> tuple[str, str]:
    if isinstance(error, LocalTokenNotFoundError):
        return "nobody is logged in", "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, OfflineModeIsEnabled):
        return "the client is told to stay offline", "unset HF_HUB_OFFLINE"
    if isinstance(error, GatedRepoError):
        return "the Hub keeps it behind a gate", "ask for access on its page"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if status in _STATUS:
        what, cure = _STATUS[status]
        return f"the Hub {what} (status {status}{_said(error)})", cure
    if status is not None and status >= 500:
        return f"the Hub failed (status {status}{_said(error)})", AGAIN
    if isinstance(error, BadRequestError) or status is not None:
        return f"the Hub refuses (status {status}{_said(error)})", "see what it says"
    if isinstance(error, (OSError, HTTPError)):
        return f"the Hub cannot be reached ({_first(error)})", f"check the network, then {AGAIN}"
    return f"publishing failed ({type(error).__name__}: {_first(error)})", AGAIN


def _said(error: Exception) -> str:
    message = " ".join((getattr(error, "server_message", None) or "").split())[:200]
    return f": {message}" if message else ""


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
