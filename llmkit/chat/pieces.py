"""A turn while it is written: which of its text may be shown already, and which of that is reasoning.

A call is never shown as text: from where one may begin, text is held back until the turn is whole and `turn` reads it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from transformers import PreTrainedTokenizerBase

from llmkit.chat.calls import ARGUMENTS, RESULT, decode, format_of, opens_thought, read_turn
from llmkit.chat.template import source_of
from llmkit.chat.turn import OPEN, THINK, THOUGHT, BadCall, Turn, split_thought

_SPANS = (*RESULT, *(f"<|{name}_start|>" for name in ARGUMENTS), *(f"<|{name}_end|>" for name in ARGUMENTS))


def reasons(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether its template speaks of `<think>`."""
    source = source_of(tokenizer) if tokenizer.chat_template else ""
    return THINK in source or THOUGHT in source


class Thought(str):
    """A piece of text that is reasoning."""


@dataclass(frozen=True)
class Reader:
    """Reads the turns of one model.

    Attributes:
        stops: tokens that end its turns; they are no text.
        plain: all that it writes is text.
    """

    tokenizer: PreTrainedTokenizerBase
    stops: Collection[int]
    plain: bool = False

    @cached_property
    def reasons(self) -> bool:
        """Whether a span of reasoning is told from text."""
        return not self.plain and reasons(self.tokenizer)

    def pieces(self, prompt_ids: list[int], *, calls: bool, ends: tuple[str, ...] = ()) -> Pieces:
        """Of a turn behind this prompt.

        Args:
            ends: stop strings: the content is shown up to the first of them.

        Raises:
            TemplateError: `calls`, and the template has no place for them.
        """
        marks: tuple[str, ...] = ()
        if calls:
            marks = (OPEN,) if format_of(self.tokenizer) == "json" else _SPANS
        thinking = self.reasons and opens_thought(self.tokenizer, prompt_ids)
        state: _State = "thought" if thinking else "start" if self.reasons else "text"
        return Pieces(self, marks, ends, state)

    def turn(self, prompt_ids: list[int], ids: list[int], *, calls: bool) -> Turn:
        """What was written behind this prompt; without `calls` a call in it is text."""
        own = self.own(ids)
        thinking = self.reasons and opens_thought(self.tokenizer, prompt_ids)
        if calls:
            return read_turn(self.tokenizer, own, thinking=thinking)
        if not self.reasons:
            text = str(self.tokenizer.decode(own, skip_special_tokens=True))
            return Turn(text, text)
        text = decode(self.tokenizer, own)
        reasoning, content = split_thought(text, thinking)
        return Turn(text, content, (), reasoning)

    def own(self, ids: list[int]) -> list[int]:
        return ids[:-1] if ids and ids[-1] in self.stops else ids


_State = Literal["start", "thought", "text", "held"]


class Pieces:
    """What may be shown so far, as pieces whose concatenation is reasoning and content.

    Attributes:
        num_thought: tokens of the reasoning, the one that ends it included.
        is_ended: the content holds a stop string.
    """

    def __init__(self, reader: Reader, marks: tuple[str, ...], ends: tuple[str, ...], state: _State) -> None:
        self._reader, self._state, self._ends, self._marks = reader, state, ends, (*marks, *ends)
        self._opened = state == "thought"
        self._text = TextOf(reader.tokenizer, skip_special_tokens=not marks and not reader.reasons)
        self._rest = ""
        self._is_fresh = state == "thought"
        self._shown = ""
        self.is_ended = False
        self.num_thought = 0

    def next(self, ids: list[int], is_last: bool) -> list[str]:
        """New pieces. `ids`: all that was written so far."""
        self._rest += self._text.next(self._reader.own(ids), is_last)
        found = [*self._split(is_last)]
        if self._state == "thought" or any(isinstance(piece, Thought) for piece in found):
            self.num_thought = len(ids)
        self._shown += "".join(piece for piece in found if not isinstance(piece, Thought))
        return found

    @property
    def held(self) -> str:
        """All that was held back: calls as they were written."""
        return "" if self.is_ended else self._rest

    def rest(self, turn: Turn) -> list[str]:
        """What was held back and is content after all: what stands behind a call, or only looked like one."""
        if self.is_ended:
            return []
        content = turn.content
        if any(isinstance(call, BadCall) for call in turn.calls):
            content = split_thought(turn.text, self._opened)[1] if self._reader.reasons else turn.text
        return [content[len(self._shown) :]] if content.startswith(self._shown) and content != self._shown else []

    def _split(self, is_last: bool) -> list[str]:
        if self._state == "start":
            bare = self._rest.lstrip()
            if len(bare) < len(THINK) and THINK.startswith(bare) and not is_last:
                return []
            self._state = "text"
            if bare.startswith(THINK):
                self._state, self._rest, self._is_fresh = "thought", bare.removeprefix(THINK), True
        if self._state == "thought":
            return self._thought(is_last)
        return self._said(is_last) if self._state == "text" else []

    def _thought(self, is_last: bool) -> list[str]:
        thought, ended, rest = self._rest.partition(THOUGHT)
        if not ended:
            text, self._rest = self._begun(_free(self._rest, (THOUGHT,), is_last))
            return [Thought(text)] if text else []
        self._rest = thought
        text, _ = self._begun(thought.removesuffix("\n"))
        self._state, self._rest, self._is_fresh = "text", rest, True
        return [*([Thought(text)] if text else []), *self._said(is_last)]

    def _said(self, is_last: bool) -> list[str]:
        if self._is_fresh:
            self._rest = self._rest.lstrip("\n")
        places = [(place, mark) for mark in self._marks if (place := self._rest.find(mark)) >= 0]
        if places:
            self._state = "held"
            place, mark = min(places)
            self.is_ended = mark in self._ends
            free = self._rest[:place] if self.is_ended else self._rest[:place].rstrip()
        else:
            free = _free(self._rest, self._marks, is_last)
        text, self._rest = self._begun(free)
        return [text] if text else []

    def _begun(self, free: str) -> tuple[str, str]:
        """A free text without line breaks at the very beginning of its part, and what is left behind it."""
        rest = self._rest[len(free) :]
        text = free.lstrip("\n") if self._is_fresh else free
        self._is_fresh = self._is_fresh and not text
        return text, rest


def _free(text: str, marks: tuple[str, ...], is_last: bool) -> str:
    """Without an end that may yet become a mark, and the blanks before that, which belong to neither side yet."""
    if is_last or not marks:
        return text
    longest = max(len(mark) for mark in marks) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-size:]) for mark in marks):
            return text[:-size].rstrip()
    return text.rstrip()


class TextOf:
    """Text that is new since the last look; no piece splits a character.

    Decodes from the piece before, because some tokenizers strip the space of the first token they decode, and holds
    text back while it ends in an unfinished character.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, skip_special_tokens: bool = True) -> None:
        self._tokenizer, self._skips = tokenizer, skip_special_tokens
        self._start = self._read = 0

    def next(self, ids: list[int], is_last: bool) -> str:
        shown = self._decode(ids[self._start : self._read])
        text = self._decode(ids[self._start :])
        if text.endswith("\ufffd") and not is_last:
            return ""
        self._start, self._read = self._read, len(ids)
        return text[len(shown) :]

    def _decode(self, ids: list[int]) -> str:
        return (
            str(self._tokenizer.decode(ids, skip_special_tokens=True)) if self._skips else decode(self._tokenizer, ids)
        )
