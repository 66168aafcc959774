"""Answers with tools as people and judges read them: what was called and what came of it, as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Literal

from llmkit.chat.turn import Message

SHOWN = 300
"""Characters of a call or a result that people are shown."""
Kind = Literal["thought", "call", "result", "said"]


def steps(messages: Sequence[Message]) -> Iterator[tuple[Kind, str]]:
    """The turns and results behind a question, one thing after another. A call is its name and arguments, as JSON."""
    for message in messages:
        text = str(message.get("content") or "")
        if message["role"] == "tool":
            yield "result", text
            continue
        if thought := message.get("reasoning_content"):
            yield "thought", str(thought)
        if text:
            yield "said", text
        for call in message.get("tool_calls") or ():
            function = call["function"]
            yield "call", f"{function['name']} {json.dumps(function['arguments'], ensure_ascii=False)}"


def transcript(messages: Sequence[Message], shown: int | None = SHOWN) -> str:
    """The same as one text, without reasoning: one line a call, one a result, and what is said.

    Args:
        shown: characters of a call or result; None: all.
    """
    return "\n".join(_line(kind, text, shown) for kind, text in steps(messages) if kind != "thought")


def whole_of(text: str, messages: Sequence[Message]) -> str:
    """All of an answer as one text: what it says, with tools also what it called and what came of it."""
    return transcript(messages, None) if messages else text


def num_calls(messages: Sequence[Message]) -> int:
    """Calls that were made: each has its result."""
    return sum(message["role"] == "tool" for message in messages)


def _line(kind: Kind, text: str, shown: int | None) -> str:
    return text if kind == "said" else f"[{kind}] {text[:shown]}"
