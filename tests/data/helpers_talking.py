"""A model whose turns are a function of the conversation, and a tokenizer that knows calls of tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from helpers_data import byte_tokenizer

from llmkit.chat.ask import Answer, Ask
from llmkit.chat.template import apply_template, load_template

Reply = Callable[[Ask], str]


def tool_tokenizer(template: str = "chatml_tools") -> Any:
    made = byte_tokenizer()
    apply_template(made, load_template(template))
    made.eos_token = "<|im_end|>"
    return made


class Scripted:
    """Answers each ask by a function of it, and notes how many came at a time."""

    def __init__(self, tokenizer: Any, reply: Reply) -> None:
        self.tokenizer, self.reply, self.sizes = tokenizer, reply, list[int]()
        self.asks: list[Ask] = []

    def answer(self, asks: Sequence[Ask], *, max_new_tokens: int, **_: Any) -> Iterator[list[Answer]]:
        self.sizes.append(len(asks))
        for ask in asks:
            self.asks.append(ask)
            text = self.reply(ask)
            ids = [*self.tokenizer(text, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id]
            done = len(ids) <= max_new_tokens
            yield [Answer(text, "stop" if done else "length", ids=tuple(ids[:max_new_tokens]))]


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def results(ask: Ask) -> list[str]:
    return [str(message["content"]) for message in ask.prompt if message["role"] == "tool"]  # type: ignore[index]
