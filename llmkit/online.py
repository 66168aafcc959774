"""Asking the Hub once, and what its refusals mean. Its client alone tries each file six times, which takes a minute
without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import datasets
import huggingface_hub
from httpx2 import HTTPError
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

HUB_TIMEOUT = 5.0
LOG_IN = "log in (`hf auth login`, or HF_TOKEN in the environment)"


def answers(ask: Callable[..., Any], repo_id: str, **options: Any) -> bool:
    """One request, not retried: False where the Hub cannot be reached or is too busy. The Hub's own refusals (no such
    repository, no such revision, a token that it does not know) pass through as huggingface_hub's errors."""
    try:
        ask(repo_id, timeout=HUB_TIMEOUT, **options)
    except HfHubHTTPError as error:
        if _is_busy(error):
            return False
        raise
    except (OSError, HTTPError):
        return False
    return True


def refusal(error: BaseException | None, kind: str, revision: str | None) -> tuple[str, str] | None:
    """What the Hub refused and the cure, as the error or one of its causes tells; None for anything else.

    Args:
        kind: `model` or `data set`, for the words.
        revision: what was asked for.
    """
    while error is not None and not isinstance(error, HTTPError):
        error = error.__cause__ or error.__context__
    if isinstance(error, GatedRepoError):
        return f"this Hub {kind} asks for consent", f"accept its terms on its page on the Hub, then {LOG_IN}"
    if isinstance(error, RevisionNotFoundError):
        cure = "name a branch, a tag or a whole commit id as its revision"
        return f"the Hub {kind} has no revision '{revision}'", cure
    if isinstance(error, HfHubHTTPError):
        return None if isinstance(error, RepositoryNotFoundError) else _by_status(error, kind)
    if error is not None:
        return f"the connection to the Hub broke ({error})", "run it again: files that came whole are kept"
    return None


def _by_status(error: HfHubHTTPError, kind: str) -> tuple[str, str] | None:
    status = error.response.status_code if error.response is not None else None
    if status == 401:
        return "the Hub does not accept your token", "log in again (`hf auth login`), or mend or unset HF_TOKEN"
    if status == 403:
        return f"the Hub does not let your token read this {kind}", "give the token the right to read it"
    if _is_busy(error):
        return f"the Hub is too busy (HTTP {status})", "try again in some minutes: files that came whole are kept"
    return None


def _is_busy(error: HfHubHTTPError) -> bool:
    return error.response is None or error.response.status_code == 429 or error.response.status_code >= 500


@contextmanager
def cache_only(wanted: bool) -> Iterator[None]:
    """Has the libraries look into the local cache without asking the Hub, as HF_HUB_OFFLINE=1 at the start would."""
    if not wanted:
        yield
        return
    hub, data = huggingface_hub.constants, datasets.config
    with patch.object(hub, "HF_HUB_OFFLINE", True), patch.object(data, "HF_HUB_OFFLINE", True):
        yield
