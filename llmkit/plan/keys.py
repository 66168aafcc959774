"""Keys of endpoints that a recipe will need and the environment does not hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from llmkit.options.serve import LOOPBACKS
from llmkit.recipe.knowledge import EngineSpec
from llmkit.recipe.schema import Recipe


def unset_keys(recipe: Recipe) -> list[str]:
    """Names of environment variables, each once. An endpoint on this machine needs no key."""
    needed = (spec.api_key_env for spec in _endpoints(recipe) if not _is_loopback(spec))
    return [name for name in dict.fromkeys(needed) if not os.environ.get(name, "").strip()]


def _is_loopback(spec: EngineSpec) -> bool:
    return urlsplit(spec.base_url or os.environ.get("OPENAI_BASE_URL") or "").hostname in LOOPBACKS


def _endpoints(part: Any) -> Iterator[EngineSpec]:
    if isinstance(part, EngineSpec) and getattr(part, "by", None) == "openai":
        yield part
    elif isinstance(part, BaseModel):
        for name in type(part).model_fields:
            yield from _endpoints(getattr(part, name))
    elif isinstance(part, (list, dict)):
        for each in part.values() if isinstance(part, dict) else part:
            yield from _endpoints(each)
