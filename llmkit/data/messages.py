"""Message lists as people publish them -> role and content, checked."""

from __future__ import annotations

from typing import Any

from llmkit.chat.turn import arguments_of

Message = dict[str, Any]
Row = dict[str, Any]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
}


class BadRow(ValueError):
    """A row that cannot be trained on; the text is the reason."""


def text_of(value: Any, where: str) -> str:
    """A non-empty string that UTF-8 can hold, or BadRow."""
    if not isinstance(value, str):
        raise BadRow(f"{where} is {type(value).__name__}, not text")
    if not value.strip():
        raise BadRow(f"{where} is empty")
    return value


def normalise(value: Any, where: str) -> list[Message]:
    """A list of {role, content} or {from, value} messages, or BadRow. Keys that are None are left out."""
    if not isinstance(value, list) or not value:
        raise BadRow(f"{where} is not a list of messages" if not isinstance(value, list) else f"{where} is empty")
    return [_message(message, f"{where}[{index}]") for index, message in enumerate(value)]


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise BadRow(f"{where} is {type(message).__name__}, not a message")
    role = message.get("role", message.get("from"))
    if role not in ROLES:
        raise BadRow(f"{where} has the role {role!r}; known are {', '.join(ROLES)}")
    if role == "function_call":
        message = {**message, "content": None, "tool_calls": _written_calls(message, where)}
    content = message.get("content", message.get("value"))
    rest = {key: value for key, value in message.items() if value is not None}
    for key in ("role", "from", "content", "value"):
        rest.pop(key, None)
    if rest.get("tool_calls"):
        rest["tool_calls"] = _tool_calls(rest["tool_calls"], f"{where}.tool_calls")
    return {"role": ROLES[role], "content": _content(content, where, bool(rest.get("tool_calls"))), **rest}


def _written_calls(message: Message, where: str) -> list[Any]:
    """ShareGPT's form: the content of a message of its own is a call, or a list of some, as JSON."""
    try:
        calls = arguments_of(message.get("content", message.get("value")))
    except (ValueError, RecursionError):
        raise BadRow(f"{where} is a function_call that is no JSON") from None
    if not calls:
        raise BadRow(f"{where} is a function_call without a call")
    return calls if isinstance(calls, list) else [calls]


def _tool_calls(value: Any, where: str) -> list[Any]:
    """Calls with their arguments as an object; the OpenAI client, and files that cannot mix types, write a text."""
    if not isinstance(value, list):
        raise BadRow(f"{where} is {type(value).__name__}, not a list")
    return [_tool_call(call, f"{where}[{index}]") for index, call in enumerate(value)]


def _tool_call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow(f"{where} is no call with a function and its name")
    arguments = function.get("arguments")
    try:
        arguments = arguments_of(arguments) if isinstance(arguments, str | None) else _without_none(arguments)
    except (ValueError, RecursionError):
        raise BadRow(f"{where} has arguments that are a text and no JSON") from None
    if not isinstance(arguments, dict):
        raise BadRow(f"{where} has arguments that are {type(arguments).__name__}, not an object")
    rest = {key: value for key, value in call.items() if key == "id" and value is not None}
    return {**rest, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _without_none(value: Any) -> Any:
    """A file of columns gives every call the keys of all others, as None."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _content(content: Any, where: str, may_be_empty: bool) -> str:
    if content is None and may_be_empty:
        return ""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise BadRow(f"{where} has a content that is {type(content).__name__}, not text")
    return content


def check_turns(messages: list[Message]) -> list[Message]:
    """All but the system's messages. BadRow unless those stand first, and no question and no answer is empty."""
    talk = [message for message in messages if message["role"] != "system"]
    if any(message["role"] == "system" for message in messages[len(messages) - len(talk) :]):
        raise BadRow("a system message stands behind the first turn")
    for message in talk:
        if not message["content"].strip() and not message.get("tool_calls"):
            raise BadRow(f"the {message['role']}'s message is empty")
    return talk


def check_dialogue(messages: list[Message], alternating: bool = False) -> None:
    """BadRow unless a model could learn an answer from it.

    Besides what `check_turns` asks, at least one message is the assistant's. With `alternating`, the user begins, user
    and assistant take turns, and the assistant has the last word; results of tools, and what the assistant says behind
    them, belong to its turn.
    """
    talk = check_turns(messages)
    if not any(message["role"] == "assistant" for message in talk):
        raise BadRow("no message is the assistant's")
    roles = [message["role"] for message in talk]
    pairs = list(zip(["user", *roles], roles, strict=False))
    if alternating and any(role == "tool" and before == "user" for before, role in pairs):
        raise BadRow("a tool's message stands behind no assistant's")
    spoken = [role for before, role in pairs if role != "tool" and (before, role) != ("tool", "assistant")]
    if alternating and any(role != ("user", "assistant")[index % 2] for index, role in enumerate(spoken)):
        raise BadRow(f"roles do not alternate from the user on: {', '.join(spoken[:6])}")
    if alternating and roles[-1] != "assistant":
        raise BadRow("the last message is not the assistant's")
