"""Conversations with tools: the model writes up to a call, the call is made, its result is appended, the model goes on.

One loop for chat, evaluations, rollouts and practice. Many conversations go on together: the turns of a round are
written in one batch, and its calls are made at the same time. A result is data: only what the assistant itself wrote,
token by token, is ever read as a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedTokenizerBase

from llmkit.chat.ask import Answer, Ask, Engine
from llmkit.chat.calls import opens_thought, read_turn
from llmkit.chat.render import prompt_ids
from llmkit.chat.turn import BadCall, Call, Message, Turn
from llmkit.tools.tool import Result
from llmkit.tools.toolbox import Toolbox

Ending = Literal["answered", "calls", "length", "error"]


@dataclass(frozen=True)
class Made:
    """One call and what it gave."""

    call: Call | BadCall
    result: Result


@dataclass
class Talk:
    """One conversation, from a prompt to an answer.

    Attributes:
        messages: the prompt; the assistant's turns and the results of its calls are appended.
        key: with the seed it fixes the random numbers, whatever batch the conversation is in.
        temperature: 0 is greedy.
        answer: the content of the last turn, without reasoning and calls.
        ended: "answered"; "calls": it wanted more calls than it may make; "length": a turn was cut off, or the
            conversation no longer fits the model; "error": see `error`.
    """

    messages: list[Message]
    key: str
    temperature: float = 0.0
    answer: str = ""
    ended: Ending | None = None
    error: str = ""
    turns: list[Turn] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    num_tokens: int = 0
    """That the assistant wrote."""

    @property
    def call_seconds(self) -> float:
        return sum(each.result.seconds for each in self.made)


def talk(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    tools: Toolbox,
    talks: Sequence[Talk],
    *,
    max_new_tokens: int,
    max_calls: int = 8,
    top_p: float = 1.0,
    seed: int = 0,
    on_round: Callable[[int], None] = lambda left: None,
    on_call: Callable[[Talk, Call | BadCall], None] = lambda one, call: None,
    on_made: Callable[[Talk, Made], None] = lambda one, made: None,
) -> None:
    """Carries conversations to their ends.

    Args:
        max_new_tokens: of one turn.
        max_calls: of one conversation; the turn that asks for more is its last.
        on_round: called after each round with the number of conversations that go on.
        on_call: called before the calls of a round are made, for each of them; `on_made` with what it gave.

    Raises:
        TemplateError: the tokenizer's template has no place for calls.
    """
    schemas = tuple(tools.schemas)
    while left := [one for one in talks if one.ended is None]:
        asks = [Ask(tuple(one.messages), f"{one.key} {len(one.turns)}", (one.temperature,), schemas) for one in left]
        answers = engine.answer(asks, max_new_tokens=max_new_tokens, top_p=top_p, seed=seed)
        wanted: list[tuple[Talk, Call | BadCall]] = []
        for one, (answer,) in zip(left, answers, strict=True):
            turn = _turn(tokenizer, one, answer, schemas)
            if turn is not None:
                wanted += ((one, call) for call in _calls(one, turn, answer, max_calls))
        for one, call in wanted:
            on_call(one, call)
        for (one, call), result in zip(wanted, tools.run([call for _, call in wanted]), strict=True):
            one.made.append(Made(call, result))
            one.messages.append(result.message())
            on_made(one, one.made[-1])
        on_round(sum(one.ended is None for one in talks))


def _turn(
    tokenizer: PreTrainedTokenizerBase, one: Talk, answer: Answer, schemas: Sequence[dict[str, object]]
) -> Turn | None:
    """What the assistant wrote, appended to the conversation; None where it could not be asked."""
    if answer.finish_reason == "error":
        one.ended, one.error = ("length" if answer.permanent and one.turns else "error"), answer.error
        return None
    asked = prompt_ids(tokenizer, one.messages, tools=list(schemas) or None)
    turn = read_turn(tokenizer, list(answer.ids), thinking=opens_thought(tokenizer, asked))
    one.turns.append(turn)
    one.num_tokens += len(answer.ids)
    one.answer = turn.content
    return turn


def _calls(one: Talk, turn: Turn, answer: Answer, max_calls: int) -> Sequence[Call | BadCall]:
    """The calls to make; without one the conversation is at its end."""
    one.messages.append(turn.message())
    if answer.finish_reason == "length":
        one.ended = "length"
        return ()
    if not turn.calls:
        one.ended = "answered"
        return ()
    if len(one.made) + len(turn.calls) > max_calls:
        one.ended = "calls"
        return ()
    return turn.calls
