"""What a dotted path names: `package.module:function` of a recipe."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from llmkit.errors import UserError


def function_at(path: str, error: type[UserError] = UserError) -> Callable[..., Any]:
    """The function. Raises `error` where there is none, or where its module cannot be imported."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        raise error(path, str(missing), "a function is named package.module:function") from None
    except Exception as failed:
        what = f"{module_name} cannot be imported ({type(failed).__name__}: {failed})"
        raise error(path, what, "mend it") from failed
    function = getattr(module, name, None)
    if not callable(function):
        have = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = get_close_matches(name, have, n=1)
        what = f"'{name}' is no function" if name in vars(module) else f"{module_name} has no function '{name}'"
        raise error(path, what, f"did you mean '{near[0]}'?" if near else "")
    found: Callable[..., Any] = function
    return found
