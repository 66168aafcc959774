"""A turn that an assistant wrote, as text: its reasoning, its content, its calls of tools as JSON.

    <think>reasoning</think>content<tool_call>{"name": ..., "arguments": {...}}</tool_call>

Needs no tokenizer, and imports no model library. A call inside of the reasoning is text. What cannot be read is a
`BadCall`, whose error is for the model: nothing that a model writes raises.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

Message = dict[str, Any]

OPEN, CLOSE = "<tool_call>", "</tool_call>"
THINK, THOUGHT = "<think>", "</think>"
_SHOWN = 200
_DEEPEST = 64
"""Levels of a call's arguments: what copies or writes them goes down level by level."""


@dataclass(frozen=True)
class Call:
    """One call that could be read. Whether there is such a tool is for `llmkit.tools` to say."""

    name: str
    arguments: dict[str, Any]

    def as_message(self) -> dict[str, Any]:
        """As it stands in `tool_calls` of a message."""
        return {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True)
class BadCall:
    """Something that begins as a call and is none."""

    text: str
    error: str


@dataclass(frozen=True)
class Turn:
    """What an assistant wrote between generation prompt and stop token.

    Attributes:
        text: all of it, as it was written.
        content: what stands outside of calls and reasoning.
        calls: in their order.
        reasoning: its think span; None without one.
    """

    text: str
    content: str
    calls: tuple[Call | BadCall, ...] = ()
    reasoning: str | None = None

    def message(self) -> Message:
        """For a history. A turn with a call that cannot be read stays the text that it is."""
        reasoning = {} if self.reasoning is None else {"reasoning_content": self.reasoning}
        calls = [call.as_message() for call in self.calls if isinstance(call, Call)]
        if len(calls) < len(self.calls):
            return {"role": "assistant", "content": self.text}
        return {"role": "assistant", **reasoning, "content": self.content, **({"tool_calls": calls} if calls else {})}


def answer_to(prompt: str | Sequence[Message], said: str | Sequence[Message]) -> str | list[Message]:
    """An answer in its prompt's shape: the text itself, or a conversation's next message. The turns and results of one
    with tools stay as they are."""
    if not isinstance(said, str):
        return list(said)
    return said if isinstance(prompt, str) else [{"role": "assistant", "content": said}]


def last_text(said: str | Sequence[Message]) -> str:
    """A prompt or an answer as text; of messages the last one's content."""
    return said if isinstance(said, str) else str(said[-1].get("content") or "")


def read_text(text: str, *, thinking: bool) -> Turn:
    """The turn that a text is; for one of an endpoint, which gives no ids.

    Args:
        thinking: whether its prompt ended inside of a `<think>`, as the generation prompts of some templates do.
    """
    reasoning, said = split_thought(text, thinking)
    content, calls = json_calls(said)
    return Turn(text, content, calls, reasoning)


def split_thought(text: str, thinking: bool) -> tuple[str | None, str]:
    """Reasoning and the rest. A span that is never closed is reasoning to the end; without `thinking` it begins at the
    turn's beginning or not at all, and a `</think>` is text."""
    if not thinking and not text.lstrip().startswith(THINK):
        return None, text
    thought, _, said = text.partition(THOUGHT)
    thought = thought if thinking else thought.lstrip().removeprefix(THINK)
    return thought.removeprefix("\n").removesuffix("\n"), said.lstrip("\n")


def thought_and_said(text: str, *, thinking: bool = False) -> tuple[str | None, str]:
    """An answer's reasoning, and what it says behind it, whoever opened the span: the answer, or its prompt.

    Args:
        thinking: the prompt is known to have opened it, so that an answer without a `</think>` is reasoning.
    """
    begins = text.lstrip().startswith(THINK)
    reasoning, said = split_thought(text, not begins and (thinking or THOUGHT in text))
    return reasoning, said.strip()


def without_thought(text: str, *, thinking: bool = False) -> str:
    """What an answer says behind its reasoning. Args: thinking: see `thought_and_said`."""
    return thought_and_said(text, thinking=thinking)[1]


# Calls as JSON --------------------------------------------------------------------------------------------------------


def json_calls(text: str) -> tuple[str, tuple[Call | BadCall, ...]]:
    """Content and calls of a text without reasoning. The last call may lack its closing tag, as a stop may cut it."""
    content, found, rest = text.partition(OPEN)
    if not found:
        return text, ()
    calls, outside = [], []
    while found:
        call, rest = _next(rest)
        calls.append(call)
        between, found, rest = rest.partition(OPEN)
        outside.append(between.strip())
    return "\n".join(filter(None, [content.removesuffix("\n"), *outside])), tuple(calls)


def _next(rest: str) -> tuple[Call | BadCall, str]:
    """The call behind an opening tag, and what stands behind its closing tag. JSON is read before the tag is looked
    for, because an argument may spell the tag."""
    start = len(rest) - len(rest.lstrip())
    try:
        value, end = _DECODER.raw_decode(rest, start)
    except (ValueError, RecursionError) as error:
        body, _, after = rest.partition(CLOSE)
        what = "a call inside of a call" if OPEN in body else f"no JSON ({_reason(error)})"
        return _bad(body, what), after
    tail = rest[end:].lstrip()
    if not tail or tail.startswith(CLOSE):
        return _call(value, rest[:end]), tail.removeprefix(CLOSE)
    body, _, after = rest.partition(CLOSE)
    return _bad(body, "something stands behind the JSON object"), after


def _call(value: Any, text: str) -> Call | BadCall:
    """Also as others write it: inside of `function`, with `parameters`, with arguments as a JSON text."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict):
        return _bad(text, "a call is one JSON object")
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return _bad(text, "it has no 'name'")
    try:
        arguments = arguments_of(written_arguments(value))
        json.dumps([name, arguments], ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        return _bad(text, f"its arguments are no JSON ({_reason(error)})")
    if not isinstance(arguments, dict):
        return _bad(text, "its 'arguments' are no JSON object")
    if _depth(arguments) > _DEEPEST:
        return _bad(text, "its arguments are nested too deep")
    return Call(name, arguments)


def _depth(value: Any) -> int:
    """Of lists and objects in one another."""
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def written_arguments(function: dict[str, Any]) -> Any:
    """A call's `arguments`, which some models and files call `parameters`; None: it has neither."""
    value = function.get("arguments")
    return function.get("parameters") if value is None else value


def arguments_of(value: Any) -> Any:
    """What a call's `arguments` are where they may be written as a JSON text; null and "" are none. Raises ValueError
    or RecursionError for a text that is no JSON."""
    if value is None or value == "":
        return {}
    return _DECODER.decode(value) if isinstance(value, str) else value


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)[:80]


def _bad(text: str, what: str) -> BadCall:
    cure = f'write {OPEN}{{"name": ..., "arguments": {{...}}}}{CLOSE}'
    return BadCall(text.strip(), f"the call {excerpt(text)} cannot be read: {what}; {cure}")


def excerpt(text: str) -> str:
    short = " ".join(text.split())
    return repr(short if len(short) <= _SHOWN else f"{short[:_SHOWN]}...")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


# line breaks inside of strings, which code has many of, are let through
_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_number)


def result_message(text: str) -> Message:
    """A tool's result for a conversation: what would end its span in `chatml_tools` gets a blank in between."""
    return {"role": "tool", "content": text.replace("</tool_response>", "</ tool_response>")}
