"""Secrets in a recipe: its values are written to the run's files, so none may be one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmkit.recipe.source import Loc
from llmkit.secrets import HIDDEN, redacted, secrets

_CURE = "take it out: log in with `hf auth login`, or set HF_TOKEN; other services' keys belong in the environment"


def planted(data: Any, loc: Loc = ()) -> Iterator[tuple[Loc, str, str]]:
    """Every value or key of plain data that holds one, as (location, what, cure); the secret itself is not told."""
    if isinstance(data, dict):
        for key, value in data.items():
            if isinstance(key, str) and redacted(key) != key:
                yield loc, f"has a key that holds {_kind(key)}", _CURE
            else:
                yield from planted(value, (*loc, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from planted(value, (*loc, index))
    elif isinstance(data, str) and redacted(data) != data:
        yield loc, f"holds {_kind(data)} ({HIDDEN}), which would be written to the run's files", _CURE


def _kind(text: str) -> str:
    return next(kind for _, kind in secrets(text))
