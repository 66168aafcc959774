"""Message lists as people publish them -> role and content, checked."""

from __future__ import annotations

import json
from typing import Any

from llmkit.chat.results import Misplaced, in_call_order
from llmkit.chat.turn import Turn, result_message
from llmkit.data.calls import spelled_results, spelled_turn, tool_calls, without_none, written_calls

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
    "function": "tool",
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
    """A list of {role, content} or {from, value} messages, or BadRow. Keys that are None are left out.

    Results of tools stand in the order of their calls.
    """
    if not isinstance(value, list) or not value:
        raise BadRow(f"{where} is not a list of messages" if not isinstance(value, list) else f"{where} is empty")
    read = [(f"{where}[{index}]", message) for index, message in enumerate(value)]
    found = [(place, message) for place, given in read for message in _read(given, place)]
    try:
        return in_call_order([message for _, message in found], begun=True)
    except Misplaced as error:
        raise BadRow(f"{found[error.index][0]} {error}") from None


def _read(message: Any, where: str) -> list[Message]:
    """The message; several where results of tools share one."""
    if not isinstance(message, dict):
        raise BadRow(f"{where} is {type(message).__name__}, not a message")
    role = message.get("role", message.get("from"))
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow(f"{where} has the role {role!r}; known are {', '.join(ROLES)}")
    content = message.get("content", message.get("value"))
    left_out = ("role", "from", "content", "value", "tool_calls", "function_call")
    rest = {key: item for key, item in message.items() if item is not None and key not in left_out}
    if ROLES[role] == "tool":
        return [{**result_message(text), **rest} for text in spelled_results(_result(content))]
    try:
        said, calls = _calls(message, role, content)
    except ValueError as error:
        raise BadRow(f"{where}{error}") from None
    if calls:
        rest["tool_calls"] = calls
    if isinstance(said, Turn):
        return [{**said.message(), **rest}]
    return [{"role": ROLES[role], "content": _content(said, where, bool(calls)), **rest}]


def _calls(message: Message, role: str, content: Any) -> tuple[Any, list[dict[str, Any]]]:
    """What a message says beside its calls, and these, wherever they stand. Raises ValueError with the reason."""
    if role == "function_call":
        return None, written_calls(content)
    if message.get("tool_calls"):
        return content, tool_calls(message["tool_calls"])
    if message.get("function_call"):
        return content, written_calls(message["function_call"])
    turn = spelled_turn(content) if ROLES[role] == "assistant" and isinstance(content, str) else None
    return (content, []) if turn is None else (turn, turn.message()["tool_calls"])


def _result(content: Any) -> str:
    """What a tool gave, as text; it may be nothing."""
    if content is None or isinstance(content, str):
        return content or ""
    text = _joined(content) if content else None
    return json.dumps(without_none(content), ensure_ascii=False, default=str) if text is None else text


def _content(content: Any, where: str, may_be_empty: bool) -> str:
    if content is None and may_be_empty:
        return ""
    text = content if isinstance(content, str) else _joined(content)
    if text is None:
        raise BadRow(f"{where} has a content that is {type(content).__name__}, not text")
    return text


def _joined(content: Any) -> str | None:
    """Parts that are texts, as one; None: it is something else."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return None


def check_turns(messages: list[Message]) -> list[Message]:
    """All but the system's messages. BadRow unless those stand first, no question and no answer is empty, and tools'
    results stand behind their calls."""
    talk = [message for message in messages if message["role"] != "system"]
    if any(message["role"] == "system" for message in messages[len(messages) - len(talk) :]):
        raise BadRow("a system message stands behind the first turn")
    for message in talk:
        if not message["content"].strip() and not message.get("tool_calls") and message["role"] != "tool":
            raise BadRow(f"the {message['role']}'s message is empty")
    try:
        in_order = in_call_order(talk) == talk
    except Misplaced as error:
        raise BadRow(f"turn {error.index + 1} {error}") from None
    if not in_order:
        raise BadRow("the results of a turn of the prompt stand in another order than its calls")
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
    spoken = [role for before, role in pairs if role != "tool" and (before, role) != ("tool", "assistant")]
    if alternating and any(role != ("user", "assistant")[index % 2] for index, role in enumerate(spoken)):
        raise BadRow(f"roles do not alternate from the user on: {', '.join(spoken[:6])}")
    if alternating and roles[-1] != "assistant":
        raise BadRow("the last message is not the assistant's")
