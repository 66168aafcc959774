"""A limit on reasoning: after so many tokens of it `</think>` is written for the model, which then answers."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from llmkit.chat.calls import decode
from llmkit.chat.encode import encode_parts
from llmkit.chat.turn import THINK, THOUGHT

_TAIL = 16
"""Tokens over which `<think>` or `</think>` may be spread."""


class ThoughtLimit:
    """Called before each token of one answer, in their order; says which it must be, or None.

    Args:
        max_tokens: of reasoning, without those that end it.
        opened: whether the prompt ends inside of a `<think>`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, *, opened: bool) -> None:
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._start: int | None = 0 if opened else None
        (end,) = encode_parts(tokenizer, [(f"\n{THOUGHT}\n\n", False)])
        self._left = iter(end)
        self._is_over = self._is_forcing = False

    def __call__(self, ids: list[int]) -> int | None:
        if not self._is_over and not self._is_forcing:
            self._look(ids)
        if not self._is_forcing:
            return None
        token = next(self._left, None)
        self._is_forcing, self._is_over = token is not None, token is None
        return token

    def _look(self, ids: list[int]) -> None:
        if self._start is None:
            text = decode(self._tokenizer, ids[:_TAIL]).lstrip()
            if text.startswith(THINK):
                self._start = len(ids)
            else:
                self._is_over = len(ids) >= _TAIL or not THINK.startswith(text)
                return
        if THOUGHT in decode(self._tokenizer, ids[self._start :][-_TAIL:]):
            self._is_over = True
        else:
            self._is_forcing = len(ids) - self._start >= self._max_tokens
