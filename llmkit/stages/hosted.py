"""The turns of one request: an `Engine` for its conversation, which tells every piece as it is written."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from llmkit.chat.ask import Answer, Ask
from llmkit.chat.pieces import Reader, Thought
from llmkit.chat.turn import Call, Message, Turn
from llmkit.generation.choose import uniforms_of
from llmkit.generation.conversation import Settings
from llmkit.generation.decode import Row
from llmkit.generation.engine import ids_of, unanswered
from llmkit.generation.pool import Job, Pool
from llmkit.generation.thought import thought_limit
from llmkit.serving.host import Event, Gone, Written
from llmkit.serving.wanted import Wanted

_KINDS: dict[str, Callable[[Any], Any]] = {"temperature": float, "top_p": float, "top_k": int, "min_p": float}


class Writer:
    """Writes turns in a pool, and keeps count of them.

    Args:
        settings: where the request says nothing.
        max_tokens: of all turns together.
    """

    def __init__(
        self, pool: Pool, reader: Reader, context: int, settings: Settings, wanted: Wanted, max_tokens: int
    ) -> None:
        self._pool, self._context, self._wanted, self._left = pool, context, wanted, max_tokens
        self._reader = replace(reader, plain=True) if isinstance(wanted.prompt, str) else reader
        given = {name: kind(wanted.sampling[name]) for name, kind in _KINDS.items() if name in wanted.sampling}
        self._sampling = replace(settings, **given).sampling()
        self._seed = secrets.randbits(31) if wanted.seed is None else wanted.seed & (2**64 - 1)
        self._job: Job | None = None
        self._is_left = False
        self._said: dict[str, list[str]] = {"text": [], "thought": []}
        self._num_prompt = self._num_written = self._num_thought = 0
        self._apart: set[str] = set()
        self.tell: Callable[[Event], None] = lambda event: None

    @property
    def temperature(self) -> float:
        return self._sampling.temperature

    def leave(self) -> None:
        """From any thread: the next token is the last, and `Gone` is raised."""
        self._is_left = True
        if self._job is not None:
            self._job.leave()

    def answer(self, asks: Sequence[Ask], **_: Any) -> Iterator[list[Answer]]:
        """The next turn. Raises Gone where nobody waits."""
        (ask,) = asks
        num_prompt = len(ids_of(self._reader.tokenizer, ask))
        if num_prompt >= self._context:
            yield unanswered(ask, f"{num_prompt} tokens do not fit the model's context of {self._context}")
        elif self._left < 1:
            yield [Answer("", "length")]
        else:
            turn, finish = self.write(ask)
            self.say_held(turn)
            yield [Answer("", finish, num_tokens=len(self._ids), ids=self._ids)]

    def write(self, ask: Ask) -> tuple[Turn, Literal["stop", "length"]]:
        """One turn, told as it comes. Raises Gone, PoolFailed."""
        ids, calls = ids_of(self._reader.tokenizer, ask), bool(ask.tools)
        self._pieces = self._reader.pieces(ids, calls=calls, ends=self._wanted.stop)
        self._job = job = Job(self._row(ids, ask.key), self._sampling)
        if self._is_left:
            raise Gone
        self._pool.add(job)
        written: list[int] = []
        finish: Literal["stop", "length"] | None = None
        for written, finish in job.tokens():
            if self._is_left:
                raise Gone
            for piece in self._pieces.next(written, is_last=finish is not None):
                self._say("thought" if isinstance(piece, Thought) else "text", piece)
            if self._pieces.is_ended:  # by a stop string, which counts in the content alone
                job.leave()
                finish = "stop"
                break
        assert finish is not None
        self._count(len(ids), len(written))
        self._ids = tuple(written)
        return self._reader.turn(ids, written, calls=calls), finish

    def say_held(self, turn: Turn, *, is_text: bool = False) -> None:
        """What was held back of a turn, as a call may begin there. Args: is_text: all of it, calls too."""
        for piece in [self._pieces.held] if is_text and turn.calls else self._pieces.rest(turn):
            self._say("text", piece)

    def tell_message(self, message: Message, **about: Any) -> None:
        """A new turn begins behind it; in a stream it stands apart from those before."""
        self._apart |= {kind for kind, said in self._said.items() if said}
        self._said = {"text": [], "thought": []}
        self.tell(Event("message", message=message, about=about))

    def written(
        self,
        finish_reason: Literal["stop", "length", "tool_calls"],
        calls: Sequence[Call] = (),
        *,
        wants_calls: bool = False,
    ) -> Written:
        said = ("".join(self._said["text"]), "".join(self._said["thought"]))
        counts = (self._num_prompt, self._num_written, self._num_thought)
        return Written(*said, calls, finish_reason, *counts, wants_calls)

    def _count(self, num_prompt: int, num_written: int) -> None:
        self._num_prompt += num_prompt
        self._num_written += num_written
        self._num_thought += self._pieces.num_thought
        self._left -= num_written

    def _row(self, ids: list[int], key: str) -> Row:
        tokenizer, budget = self._reader.tokenizer, self._wanted.max_thinking_tokens
        limit = min(self._left, self._context - len(ids))
        draws = np.zeros(limit, dtype=np.float32)
        if self.temperature:
            draws = uniforms_of(self._seed, key, 0, limit)
        force = None if budget is None else thought_limit(tokenizer, ids, budget)
        return Row(0, ids, draws, limit, temperature=self.temperature, force=force)

    def _say(self, kind: Literal["text", "thought"], piece: str) -> None:
        self._said[kind].append(piece)
        self.tell(Event(kind, text=f"\n\n{piece}" if kind in self._apart else piece))
        self._apart.discard(kind)
