"""A function of the user's as a tool: its schema is made from type hints and docstring."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from transformers.utils import get_json_schema
from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

from llmkit.artifacts.imported import function_at
from llmkit.errors import UserError
from llmkit.recipe.tools import FunctionSpec
from llmkit.sandbox.limited import OutOfThreads, OutOfTime, finished, in_time
from llmkit.tools.tool import CallFailed, Tool


def function_tool(spec: FunctionSpec) -> Tool:
    """Raises UserError where there is no such function, or no schema can be made from it."""
    function = function_at(spec.path)
    schema = _schema(spec.path, function)
    name = schema["function"]["name"]

    def run(arguments: dict[str, Any]) -> str:
        try:
            return _text(in_time(lambda: finished(function(**arguments)), spec.timeout, f"tool {name}"))
        except OutOfThreads:
            raise CallFailed(f"{name} is not called any more: too many calls have not returned") from None
        except OutOfTime:
            raise CallFailed(f"{name} has not answered after {spec.timeout:g} seconds") from None

    return Tool(name, schema, run, spec.max_chars)


def _schema(path: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        schema: dict[str, Any] = get_json_schema(function)
    except (DocstringParsingException, TypeHintParsingException) as error:
        cure = "give every argument a type hint, and a Google docstring that describes each under 'Args:'"
        raise UserError(path, f"no schema can be made of it ({error})", cure) from None
    schema["function"]["parameters"]["additionalProperties"] = False
    return schema


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
