"""One message of a person's and all that follows from it, on a terminal: with tools or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from llmkit.chat.ask import Answer, Ask
from llmkit.chat.calls import format_of
from llmkit.chat.turn import Message, result_message
from llmkit.errors import DataError, UserError
from llmkit.generation.conversation import Conversation
from llmkit.generation.engine import ids_of, unanswered
from llmkit.stages.screen import Screen
from llmkit.stages.talking import Ending, Talk, talk
from llmkit.tools.toolbox import Toolbox

_ENDS: dict[Ending, str] = {
    "calls": "it wants more calls than --max-calls allows",
    "length": "cut off: max_new_tokens or the model's context is full",
}


def check_tools(conversation: Conversation, tools: Toolbox) -> None:
    """Raises TemplateError or UserError where the model cannot be told of these tools, before it is asked anything."""
    if tools.tools:
        if conversation.raw or not conversation.has_template:
            raise UserError("--tool", "has no place in raw text", "take a model with a chat template, without --raw")
        format_of(conversation.tokenizer)
        ids_of(conversation.tokenizer, Ask(({"role": "user", "content": "a"},), "", tools=tuple(tools.schemas)))


def say(
    conversation: Conversation, text: str, screen: Screen, tools: Toolbox | None = None, max_calls: int = 8
) -> None:
    """Write the answer as it comes; Ctrl-C ends it and keeps what was written."""
    if tools is None or not conversation.tools or conversation.raw:
        _say_plainly(conversation, text, screen)
    else:
        _say_with_tools(conversation, text, screen, tools, max_calls)


def _say_plainly(conversation: Conversation, text: str, screen: Screen) -> None:
    with closing(conversation.ask(text)) as pieces:
        try:
            for piece in pieces:
                screen.piece(piece, conversation.num_thought)
        except KeyboardInterrupt:
            screen.end(stopped=True)
            return
    screen.fold(conversation.num_thought)
    screen.end()


def _say_with_tools(conversation: Conversation, text: str, screen: Screen, tools: Toolbox, max_calls: int) -> None:
    one = Talk(conversation.begin(text), "", conversation.settings.temperature)
    engine = _Shown(conversation, screen)
    try:
        talk(
            engine,
            conversation.tokenizer,
            tools,
            [one],
            max_new_tokens=conversation.settings.max_new_tokens,
            max_calls=max_calls,
            on_call=lambda _, call: screen.call(call),
            on_made=lambda _, made: screen.result(made.result),
        )
        screen.end_line()
        if one.ended == "error":
            screen.say(one.error)
        elif one.ended in _ENDS:
            screen.say(_ENDS[one.ended])
    except KeyboardInterrupt:
        screen.end(stopped=True)
        if (begun := engine.begun()) is not None:
            one.messages.append(begun)
    finally:
        conversation.keep([*one.messages, *_no_results(one.messages)])


def _no_results(messages: Sequence[Message]) -> Iterator[Message]:
    """A call that was never made must not be left without a result."""
    last = len(messages) - 1
    while last > 0 and messages[last]["role"] == "tool":
        last -= 1
    for _ in messages[last].get("tool_calls", ())[len(messages) - 1 - last :]:
        yield result_message("not called: stopped before")


class _Shown:
    """The conversation's model as an `Engine` for one ask, whose answer is shown while it is written."""

    def __init__(self, conversation: Conversation, screen: Screen) -> None:
        self._conversation, self._screen = conversation, screen
        self._asked: list[int] | None = None
        self._seed = conversation.settings.seed + len(conversation.turns)

    def answer(self, asks: Sequence[Ask], **_: Any) -> Iterator[list[Answer]]:
        (ask,) = asks
        talk, screen = self._conversation, self._screen
        try:
            self._asked = ids_of(talk.tokenizer, ask)
            for piece in talk.write(self._asked, self._seed):
                screen.piece(piece, talk.num_thought)
        except DataError as error:
            self._asked = None
            yield unanswered(ask, str(error))
            return
        row = talk.row
        assert row is not None and row.finish_reason is not None and talk.pieces is not None
        for piece in talk.pieces.rest(talk.reader.turn(self._asked, row.ids, calls=True)):
            screen.piece(piece, talk.num_thought)
        screen.fold(talk.num_thought)
        self._asked, self._seed = None, self._seed + 1
        yield [Answer("", row.finish_reason, num_tokens=len(row.ids), ids=tuple(row.ids))]

    def begun(self) -> Message | None:
        """A turn that was broken off, as text."""
        if self._asked is None:
            return None
        row = self._conversation.row
        return self._conversation.reader.turn(self._asked, row.ids if row else [], calls=False).message()
