"""What the application asks of whoever has the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llmkit.chat.turn import Call, Message
from llmkit.serving.wanted import Wanted


@dataclass(frozen=True)
class Event:
    """Something that was written. `text` and `thought`: a piece of it. `message`: a whole message of the server's own
    tools, a turn that calls or a result, with what is to be told about it."""

    kind: Literal["text", "thought", "message"]
    text: str = ""
    message: Message | None = None
    about: dict[str, Any] | None = None


@dataclass(frozen=True)
class Written:
    """An answer. With the server's own tools there may be turns before it, which `Event`s have told.

    Attributes:
        content, reasoning: of the last turn.
        prompt_tokens: of all turns; a turn behind a call reads all that stands before it again.
        thought_tokens: of those written, reasoning.
        wants_calls: it ends where the model wanted more calls than the server makes.
    """

    content: str
    reasoning: str
    calls: Sequence[Call]
    finish_reason: Literal["stop", "length", "tool_calls"]
    prompt_tokens: int
    written_tokens: int
    thought_tokens: int
    wants_calls: bool = False


class Prepared(Protocol):
    """A request that can be answered."""

    def answer(self, tell: Callable[[Event], None]) -> Written:
        """Blocks until it is written. Raises Gone once `leave` was called, ApiError where the model fails."""
        ...

    def leave(self) -> None:
        """Nobody waits for it any more: from any thread, at any time, also when it is done."""
        ...


class Gone(Exception):
    """Nobody waits for this answer."""


class Host(Protocol):
    """One model."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> dict[str, Any]:
        """For the page: context, tools, what it can."""
        ...

    def prepare(self, wanted: Wanted) -> Prepared:
        """Raises ApiError for what cannot be answered: a prompt too long, tools without a place, too many waiting."""
        ...
