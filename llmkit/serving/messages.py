"""Messages and tools as OpenAI's client sends them -> as chat templates take them.

Contents are texts, arguments of calls are objects, results stand in the order of their calls, which templates know by
nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from llmkit.chat.turn import Message, arguments_of, result_message
from llmkit.serving.errors import ApiError

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def messages_of(given: Sequence[Any]) -> list[Message]:
    """Raises ApiError with the place of what cannot be read."""
    found = [_message(each, f"messages[{index}]") for index, each in enumerate(given)]
    return _in_order(found)


def tools_of(given: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """Schemas. Raises ApiError."""
    return tuple(_tool(each, f"tools[{index}]") for index, each in enumerate(given))


def _message(given: Any, where: str) -> Message:
    if not isinstance(given, dict) or given.get("role") not in _ROLES:
        raise ApiError(400, f"'{where}' needs a role: {', '.join(_ROLES)}.", param=where)
    role, content = _ROLES[given["role"]], _text(given.get("content"), where)
    if role == "tool":
        return {**result_message(content), "_id": given.get("tool_call_id")}
    message: Message = {"role": role, "content": content}
    if role != "assistant":
        return message
    if calls := given.get("tool_calls"):
        message["tool_calls"] = [
            _call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(_listed(calls, where))
        ]
    if given.get("reasoning_content"):
        message["reasoning_content"] = _text(given["reasoning_content"], where)
    return message


def _text(content: Any, where: str) -> str:
    """Of a text, of parts that are texts, of nothing."""
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if all(isinstance(part, str) for part in parts):
            content = "".join(map(str, parts))
    if content is not None and not isinstance(content, str):
        raise ApiError(400, f"The content of '{where}' is not text; this model takes nothing else.", param=where)
    return content or ""


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ApiError(400, f"'{where}.tool_calls' is a list.", param=where)
    return value


def _call(given: Any, where: str) -> dict[str, Any]:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ApiError(400, f"'{where}' needs a function with a name.", param=where)
    try:
        arguments = arguments_of(function.get("arguments"))
        json.dumps(arguments, ensure_ascii=False).encode()  # their own JSON may escape half a character
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ApiError(400, f"The arguments of '{where}' are no JSON object.", param=where)
    called = {"name": function["name"], "arguments": arguments}
    return {"type": "function", "function": called, "_id": given.get("id")}


def _in_order(messages: list[Message]) -> list[Message]:
    """Results behind a turn, in the order of its calls; ids are left out."""
    found: list[Message] = []
    ids: list[Any] = []
    results: list[tuple[int, Message]] = []
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            id = message.pop("_id")
            if id is not None and id not in ids:
                what = f"'messages[{index}]' is the result of a call '{id}' that the turn before it does not make."
                raise ApiError(400, what, param=f"messages[{index}]")
            results.append((len(results) if id is None else ids.index(id), message))
            continue
        found += _sorted(results)
        results, ids = [], [call.pop("_id") for call in message.get("tool_calls", ())]
        found.append(message)
    return found + _sorted(results)


def _sorted(results: list[tuple[int, Message]]) -> list[Message]:
    return [message for _, message in sorted(results, key=lambda each: each[0])]


def _tool(given: Any, where: str) -> dict[str, Any]:
    function = given.get("function") if isinstance(given, dict) and given.get("type") == "function" else None
    if not isinstance(function, dict) or not _NAME.fullmatch(str(function.get("name", ""))):
        raise ApiError(400, f"'{where}' is no function with a name of letters, digits, '_', '-' and '.'.", param=where)
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    description = function.get("description") or ""
    if not isinstance(parameters, dict) or not isinstance(description, str):
        raise ApiError(400, f"'{where}' has parameters or a description that cannot be read.", param=where)
    known = {"name": function["name"], "description": description, "parameters": parameters}
    return {"type": "function", "function": known}
