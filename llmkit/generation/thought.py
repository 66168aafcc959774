"""A limit on reasoning: after so many tokens of it `</think>` is written for the model, which then answers (budget
forcing: Muennighoff et al. 2025, arXiv 2501.19393, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from llmkit.chat.calls import decode, opens_thought
from llmkit.chat.encode import encode_parts
from llmkit.chat.turn import THINK, THOUGHT

_TAIL = 16
"""Tokens over which `<think>` or `</think>` may be spread."""


def thought_limit(tokenizer: PreTrainedTokenizerBase, prompt_ids: list[int], max_tokens: int) -> ThoughtLimit:
    """Of one answer to this prompt."""
    return ThoughtLimit(tokenizer, max_tokens, opened=opens_thought(tokenizer, prompt_ids))


def num_marks(tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that open and end a span of reasoning."""
    return sum(len(_ids(tokenizer, mark)) for mark in (f"{THINK}\n", f"\n{THOUGHT}\n\n"))


class ThoughtLimit:
    """Called before each token of one answer, in their order; says which it must be, or None. A model that does not
    reason is left alone.

    Args:
        max_tokens: of reasoning, without those that open and end it. 0: it is ended at once.
        opened: whether the prompt ends inside of a `<think>`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, *, opened: bool) -> None:
        self._tokenizer, self._max_tokens, self._opened = tokenizer, max_tokens, opened
        self._start: int | None = 0 if opened else None
        self._forced: Iterator[int] | None = None
        self._is_over = False

    def __call__(self, ids: list[int]) -> int | None:
        if self._forced is None and not self._is_over:
            self._look(ids)
        if self._forced is None:
            return None
        token = next(self._forced, None)
        if token is None:
            self._forced, self._is_over = None, True
        return token

    def _look(self, ids: list[int]) -> None:
        if self._start is None:
            text = decode(self._tokenizer, ids[:_TAIL]).lstrip()
            if not text.startswith(THINK):
                self._is_over = len(ids) >= _TAIL or not THINK.startswith(text)
                return
            self._start = len(ids)
        own = ids[self._start :]
        if THOUGHT in decode(self._tokenizer, own[-_TAIL:]):
            self._is_over = True
            return
        is_broken = bool(own) and not decode(self._tokenizer, own[:1]).strip()  # the line break behind `<think>`
        if len(own) - is_broken >= self._max_tokens:
            self._forced = iter(_ids(self._tokenizer, f"{self._breaks(ids)}{THOUGHT}\n\n"))

    def _breaks(self, ids: list[int]) -> str:
        """What puts `</think>` on a line of its own, behind an empty one where nothing was thought."""
        text = decode(self._tokenizer, ids)
        thought = f"\n{text}" if self._opened else text.lstrip().removeprefix(THINK)
        wanted = 1 if thought.strip() else 2
        return "\n" * (wanted - (len(thought) - len(thought.rstrip("\n"))))


def _ids(tokenizer: PreTrainedTokenizerBase, mark: str) -> list[int]:
    """In the middle of a sequence."""
    return encode_parts(tokenizer, [("x", False), (mark, False)])[1]
