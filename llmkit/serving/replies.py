"""What was written -> OpenAI's JSON, whole or in chunks. What OpenAI has no word for stands under `llmkit`."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from llmkit.chat.turn import Call
from llmkit.serving.host import Event, Written
from llmkit.serving.wanted import Wanted


class Reply:
    """Of one request."""

    def __init__(self, wanted: Wanted, model: str) -> None:
        self._wanted, self._model = wanted, model
        self._is_chat = not isinstance(wanted.prompt, str)
        self._id = ("chatcmpl-" if self._is_chat else "cmpl-") + secrets.token_hex(12)
        self._created = int(time.time())

    def whole(self, written: Written, events: Sequence[Event]) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": written.finish_reason, "logprobs": None}
        if not self._is_chat:
            return self._made("text_completion", [choice | {"text": written.content}]) | {"usage": usage_of(written)}
        message: dict[str, Any] = {"role": "assistant", "content": written.content, "refusal": None}
        if written.reasoning:
            message["reasoning_content"] = written.reasoning
        if written.calls:
            message |= {"content": written.content or None, "tool_calls": named_calls(written.calls)}
        made = self._made("chat.completion", [choice | {"message": message}]) | {"usage": usage_of(written)}
        told = [_told(event) for event in events if event.kind == "message"]
        ours = ({"messages": told} if told else {}) | _ended(written)
        return made | ({"llmkit": ours} if ours else {})

    def first(self) -> list[dict[str, Any]]:
        return [self._delta({"role": "assistant", "content": ""})] if self._is_chat else []

    def chunk(self, event: Event) -> dict[str, Any]:
        if event.kind == "message":
            return self._delta({}) | {"llmkit": _told(event)}
        return self._delta({"content" if event.kind == "text" else "reasoning_content": event.text})

    def last(self, written: Written) -> list[dict[str, Any]]:
        calls = [call | {"index": index} for index, call in enumerate(named_calls(written.calls))]
        found = [self._delta({"tool_calls": [call]}) for call in calls]
        ended = _ended(written)
        found.append(self._delta({}, written.finish_reason) | ({"llmkit": ended} if ended else {}))
        if self._wanted.include_usage:
            found = [chunk | {"usage": None} for chunk in found]
            found.append(self._made(self._kind, []) | {"usage": usage_of(written)})
        return found

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self._is_chat else "text_completion"

    def _delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        said = {"delta": delta} if self._is_chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **said, "finish_reason": finish_reason, "logprobs": None}
        return self._made(self._kind, [choice])

    def _made(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        head = {"id": self._id, "object": kind, "created": self._created, "model": self._model}
        return head | {"choices": choices}


def usage_of(written: Written) -> dict[str, Any]:
    return {
        "prompt_tokens": written.prompt_tokens,
        "completion_tokens": written.written_tokens,
        "total_tokens": written.prompt_tokens + written.written_tokens,
        "completion_tokens_details": {"reasoning_tokens": written.thought_tokens},
    }


def named_calls(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """As they stand in an answer: arguments are a text, and each has an id."""
    return [
        {
            "id": f"call_{secrets.token_hex(8)}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for call in calls
    ]


def _ended(written: Written) -> dict[str, Any]:
    return {"ended": "calls"} if written.wants_calls else {}


def _told(event: Event) -> dict[str, Any]:
    return {"message": event.message, **(event.about or {})}
