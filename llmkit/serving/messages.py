"""Messages and tools as OpenAI's client sends them -> as chat templates take them.

Contents are texts, arguments of calls are objects, results stand in the order of their calls, which templates know by
nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from llmkit.chat.results import Misplaced, in_call_order
from llmkit.chat.turn import Message, arguments_of, result_message, written_arguments
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
    if not isinstance(given, dict) or not isinstance(given.get("role"), str) or given["role"] not in _ROLES:
        raise ApiError(400, f"'{where}' needs a role: {', '.join(_ROLES)}.", param=where)
    role, content = _ROLES[given["role"]], _text(given.get("content"), where)
    if role == "tool":
        return {**result_message(content), "tool_call_id": given.get("tool_call_id")}
    message: Message = {"role": role, "content": content}
    if role != "assistant":
        return message
    if calls := given.get("tool_calls"):
        message["tool_calls"] = [
            _call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(_listed(calls, where))
        ]
    if given.get("function_call") is not None:
        raise ApiError(400, f"'{where}.function_call' is not read here; send 'tool_calls'.", param=where)
    if reasoning := given.get("reasoning_content") or given.get("reasoning"):  # the second is newer vLLM's
        message["reasoning_content"] = _text(reasoning, where)
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
        arguments = arguments_of(written_arguments(function))
        json.dumps(arguments, ensure_ascii=False).encode()  # their own JSON may escape half a character
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ApiError(400, f"The arguments of '{where}' are no JSON object.", param=where)
    called = {"name": function["name"], "arguments": arguments}
    return {"type": "function", "function": called, "id": given.get("id")}


def _in_order(messages: list[Message]) -> list[Message]:
    """Results behind a turn, in the order of its calls; ids are left out."""
    try:
        found = in_call_order(messages, unread=True)
    except Misplaced as error:
        where = f"messages[{error.index}]"
        raise ApiError(400, f"'{where}' {error}.", param=where) from None
    for message in found:
        message.pop("tool_call_id", None)
        for call in message.get("tool_calls", ()):
            call.pop("id")
    return found


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
