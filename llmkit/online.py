"""Asking the Hub once. Its client alone tries each file six times, which takes a minute without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import datasets
import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

HUB_TIMEOUT = 5.0


def answers(ask: Callable[..., Any], repo_id: str, **options: Any) -> bool:
    """One request, not retried: False where the Hub cannot be reached. The Hub's own refusals (no such repository,
    gated, no such revision) pass through as huggingface_hub's errors."""
    try:
        ask(repo_id, timeout=HUB_TIMEOUT, **options)
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code >= 500:
            return False
        raise
    except (OSError, HTTPError):
        return False
    return True


@contextmanager
def cache_only(wanted: bool) -> Iterator[None]:
    """Has the libraries look into the local cache without asking the Hub, as HF_HUB_OFFLINE=1 at the start would."""
    if not wanted:
        yield
        return
    hub, data = huggingface_hub.constants, datasets.config
    with patch.object(hub, "HF_HUB_OFFLINE", True), patch.object(data, "HF_HUB_OFFLINE", True):
        yield
