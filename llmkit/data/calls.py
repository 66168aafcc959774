"""Calls of tools and their results as published conversations write them.

    OpenAI        tool_calls: [{"id": ..., "function": {"name": ..., "arguments": "<JSON>"}}]
    OpenAI 2023   function_call: {"name": ..., "arguments": "<JSON>"}, results of the role `function`
    ShareGPT      {"from": "function_call", "value": "<JSON>"}, {"from": "observation", ...}
    Hermes        <tool_call>{...}</tool_call> in the assistant's text, <tool_response>...</tool_response> in results,
                  <tools>[...]</tools> in the system message; each JSON, or a Python dict

Reasons for which a call cannot be read are ValueErrors, to be read behind the place of the message.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from llmkit.chat.turn import BadCall, Call, Turn, arguments_of, json_calls, split_thought, written_arguments

_SPELLED = re.compile(r"^[ \t]*<tool_call>", re.MULTILINE)
"""A call begins a line: what stands within one speaks of calls."""
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_RESULT = re.compile(r"\s*<tool_response>\n?(.*?)\n?</tool_response>\s*", re.DOTALL)
_LISTING = re.compile(r"<tools>\s*([\[{].*?[\]}])\s*</tools>", re.DOTALL)
_ABOUT_CALLS = re.compile(r"</?tools?>|</?tool_call>", re.IGNORECASE)
_BESIDE = {"name", "description", "id", "index", "type", "strict"}
"""Keys of a call that say nothing of its arguments."""


def value_of(text: str) -> Any:
    """JSON, or what Python writes for it. Raises ValueError or RecursionError."""
    try:
        return arguments_of(text)
    except ValueError:
        pass
    try:
        value = ast.literal_eval(text.strip())
        json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, MemoryError) as error:
        raise ValueError("it is no JSON") from error
    return value


def tool_calls(value: Any, where: str = ".tool_calls") -> list[dict[str, Any]]:
    """Calls with their arguments as an object; OpenAI's client, and files that cannot mix types, write a text."""
    if not isinstance(value, list):
        raise ValueError(f"{where} is {type(value).__name__}, not a list")
    return [_tool_call(call, f"{where}[{index}]") for index, call in enumerate(value)]


def _tool_call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"{where} is no call with a function and its name")
    written = written_arguments(function)
    others = [key for key, value in function.items() if value is not None and key not in _BESIDE]
    if written is None and others:
        raise ValueError(f"{where} has no 'arguments', but {', '.join(map(str, others))}")
    try:
        arguments = arguments_of(written) if isinstance(written, str | None) else without_none(written)
    except (ValueError, RecursionError):
        raise ValueError(f"{where} has arguments that are a text and no JSON") from None
    if not isinstance(arguments, dict):
        raise ValueError(f"{where} has arguments that are {type(arguments).__name__}, not an object")
    rest = {key: value for key, value in call.items() if key == "id" and value is not None}
    return {**rest, **Call(function["name"], arguments).as_message()}


def without_none(value: Any) -> Any:
    """A file of columns gives every object the keys of all others, as None."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value


def written_calls(text: Any) -> list[dict[str, Any]]:
    """Of a message that is nothing but a call, or a list of some, as JSON."""
    try:
        calls = value_of(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        raise ValueError(" is a function_call that is no JSON") from None
    if not calls:
        raise ValueError(" is a function_call without a call")
    return tool_calls(calls if isinstance(calls, list) else [calls], ".function_call")


def spelled_turn(text: str) -> Turn | None:
    """What an assistant's text is that spells its calls; None: it spells none."""
    reasoning, said = split_thought(text, thinking=False)
    if not _SPELLED.search(said):
        return None
    content, calls = json_calls(_CALL.sub(_as_json, said))
    if bad := next((call for call in calls if isinstance(call, BadCall)), None):
        raise ValueError(f" holds a <tool_call> that cannot be read: {bad.error}")
    return Turn(text, content.strip(), calls, reasoning)


def _as_json(found: re.Match[str]) -> str:
    try:
        return f"<tool_call>{json.dumps(value_of(found[1]), ensure_ascii=False)}</tool_call>"
    except (ValueError, RecursionError):
        return found[0]


def spelled_results(text: str) -> list[str]:
    """Of a tool's message: what stands in each of its spans, or the text itself."""
    spans = list(_RESULT.finditer(text))
    return [span[1] for span in spans] if spans and "".join(span[0] for span in spans) == text else [text]


def spelled_tools(system: str) -> tuple[str, list[Any]] | None:
    """A system message that lists tools: what else it says, and the tools. None: it lists none that can be read.

    How calls are written, which stands around the listing, goes with it: the chat template says that of its own.
    """
    found = _LISTING.search(system)
    if found is None:
        return None
    try:
        tools = value_of(found[1])
    except (ValueError, RecursionError):
        return None
    before, behind = system[: found.start()], system[found.end() :]
    kept = [each for each in re.split(r"(?<=[.!?:])\s+", before) if each and not _ABOUT_CALLS.search(each)]
    kept += [] if _ABOUT_CALLS.search(behind) else [behind]
    return " ".join(each.strip() for each in kept).strip(), tools if isinstance(tools, list) else [tools]
