"""Conversations with tools: the model writes up to a call, the call is made, its result is appended, the model goes on.

One loop for chat, evaluations, rollouts and practice. Many conversations go on together: the turns of a round are
written in one batch, and its calls are made at the same time. A result is data: only what the assistant itself wrote,
token by token, is ever read as a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from llmkit.chat.ask import Answer, Ask, Engine
from llmkit.chat.calls import format_of, opens_thought, read_turn
from llmkit.chat.render import prompt_ids, render
from llmkit.chat.template import template_of
from llmkit.chat.turn import BadCall, Call, Message, Turn, result_message
from llmkit.errors import TemplateError, UserError
from llmkit.tools.injections import planted_in
from llmkit.tools.tool import Keep, Result
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
            conversation no longer fits the model, or an exact one cannot go on since a turn with calls ended with
            another token than the template's; "error": see `error`.
    """

    messages: list[Message]
    key: str
    temperature: float = 0.0
    answer: str = ""
    ended: Ending | None = None
    error: str = ""
    turns: list[Turn] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    planted: str = ""
    """Put into every result: what somebody else may have written into a document."""
    keep: Keep | None = None
    """Which passages a search can find. None: all."""
    num_tokens: int = 0
    """That the assistant wrote."""
    ids: list[int] = field(default_factory=list)
    """Of an exact conversation all tokens, the prompt's first."""
    own: list[bool] = field(default_factory=list)
    """Which of those behind the prompt the assistant wrote."""

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
    exact: bool = False,
    on_round: Callable[[int], None] = lambda left: None,
    on_call: Callable[[Talk, Call | BadCall], None] = lambda one, call: None,
    on_made: Callable[[Talk, Made], None] = lambda one, made: None,
) -> None:
    """Carries conversations to their ends.

    Args:
        max_new_tokens: of one turn.
        max_calls: of one conversation; the turn that asks for more is its last.
        exact: later turns see the tokens of earlier ones as they were written, and not as their text would be split
            again: what practice needs, which trains on the whole as on one sequence.
        on_round: called after each round with the number of conversations that go on.
        on_call: called before the calls of a round are made, for each of them; `on_made` with what it gave.

    Raises:
        TemplateError: the tokenizer's template has no place for calls, or writes earlier turns anew where that must
            be exact.
    """
    schemas = tuple(tools.schemas)
    stop = _stop_id(tokenizer) if exact else None
    for one in talks if exact else ():
        one.ids = prompt_ids(tokenizer, one.messages, tools=list(schemas) or None)
    while left := [one for one in talks if one.ended is None]:
        asks = [
            Ask(tuple(one.messages), f"{one.key} {len(one.turns)}", (one.temperature,), schemas, tuple(one.ids))
            for one in left
        ]
        answers = engine.answer(asks, max_new_tokens=max_new_tokens, top_p=top_p, seed=seed)
        wanted: list[tuple[Talk, Call | BadCall]] = []
        for one, (answer,) in zip(left, answers, strict=True):
            turn = _turn(tokenizer, one, answer, schemas)
            if turn is not None:
                goes_on = stop is None or answer.ids[-1:] == (stop,)
                wanted += ((one, call) for call in _calls(one, turn, answer, max_calls, goes_on=goes_on))
        for one, call in wanted:
            on_call(one, call)
        results = tools.run([call for _, call in wanted], [one.keep for one, _ in wanted])
        for (one, call), result in zip(wanted, results, strict=True):
            if one.planted:
                result = replace(result, text=planted_in(result.text, one.planted, f"{one.key} {len(one.made)}"))
            one.made.append(Made(call, result))
            one.messages.append(result.message())
            on_made(one, one.made[-1])
        for one in left if exact else ():
            if one.ended is None:
                added = _added(tokenizer, one.messages, schemas)
                one.ids += added
                one.own += [False] * len(added)
        on_round(sum(one.ended is None for one in talks))


def _turn(
    tokenizer: PreTrainedTokenizerBase, one: Talk, answer: Answer, schemas: Sequence[dict[str, object]]
) -> Turn | None:
    """What the assistant wrote, appended to the conversation; None where it could not be asked."""
    if answer.finish_reason == "error":
        one.ended, one.error = ("length" if answer.permanent and one.turns else "error"), answer.error
        return None
    asked = one.ids or prompt_ids(tokenizer, one.messages, tools=list(schemas) or None)
    turn = read_turn(tokenizer, list(answer.ids), thinking=opens_thought(tokenizer, asked))
    if one.ids:
        one.ids += answer.ids
        one.own += [True] * len(answer.ids)
    one.turns.append(turn)
    one.num_tokens += len(answer.ids)
    one.answer = turn.content
    return turn


def _stop_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    template = template_of(tokenizer)
    stop = template.stop_token if template is not None else None
    return tokenizer.convert_tokens_to_ids(stop) if stop is not None else None


def _calls(one: Talk, turn: Turn, answer: Answer, max_calls: int, *, goes_on: bool) -> Sequence[Call | BadCall]:
    """The calls to make; without one the conversation is at its end. Args: goes_on: whether results can follow."""
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
    if not goes_on:
        one.ended = "length"
        return ()
    return turn.calls


def _added(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], schemas: Sequence[dict[str, object]]
) -> list[int]:
    """What the template puts behind the assistant's last turn: results, and where the next turn begins."""
    tools = list(schemas) or None
    last = max(place for place, message in enumerate(messages) if message["role"] == "assistant")
    told = render(tokenizer, list(messages[: last + 1]), tools=tools)
    end = max(place for place, trained in enumerate(told.assistant_masks) if trained) + 1
    whole = prompt_ids(tokenizer, list(messages), tools=tools)
    if whole[:end] != told.input_ids[:end]:
        what = "the chat template writes an earlier turn anew once a tool has answered"
        raise TemplateError("tools", what, "practise with a template that only appends, such as chatml_tools")
    return whole[end:]


def check_tools(tokenizer: PreTrainedTokenizerBase, schemas: Sequence[dict[str, Any]], *, exact: bool = False) -> None:
    """Whether the template lists tools, and whether its calls can be read; with `exact` also whether it only appends.

    Raises:
        UserError: there is no template.
        TemplateError: it has no place for tools or calls, or writes earlier turns anew.
    """
    if template_of(tokenizer) is None:
        raise UserError("tools", "the model has no chat template, and so no place for calls", "set one with tools")
    asked: Message = {"role": "user", "content": "?"}
    prompt_ids(tokenizer, [asked], tools=list(schemas))
    format_of(tokenizer)
    if exact:
        function = schemas[0]["function"]
        called = Call(function["name"], dict.fromkeys(function["parameters"].get("required", ()), "1"))
        turn: Message = {"role": "assistant", "content": "", "tool_calls": [called.as_message()]}
        _added(tokenizer, [asked, turn, result_message("1")], schemas)


class ToolEngine:
    """An engine whose answers are whole conversations with tools, told as one: what the model wrote and what it was
    told. `max_new_tokens` bounds a turn, and with the results the whole.

    Args:
        engine: writes the turns; it must take ids.
        max_calls: of one conversation.
    """

    def __init__(self, engine: Engine, tokenizer: PreTrainedTokenizerBase, tools: Toolbox, max_calls: int) -> None:
        self._engine, self._tokenizer, self._tools, self._max_calls = engine, tokenizer, tools, max_calls

    def answer(
        self,
        asks: Sequence[Ask],
        *,
        max_new_tokens: int,
        top_p: float = 1.0,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[list[Answer]]:
        """As `llmkit.chat.ask.Engine`. Raises UserError for plain text, which has no place for calls."""
        if stop_strings or any(isinstance(ask.prompt, str) for ask in asks):
            raise UserError("tools", "the model has no chat template, and so no place for calls", "set one with tools")
        talks = [
            [Talk(list(ask.prompt), f"{ask.key} {place}", heat) for place, heat in enumerate(ask.temperatures)]  # type: ignore[arg-type]
            for ask in asks
        ]
        talk(
            self._engine,
            self._tokenizer,
            self._tools,
            [one for each in talks for one in each],
            max_new_tokens=max_new_tokens,
            max_calls=self._max_calls,
            top_p=top_p,
            seed=seed,
            exact=True,
        )
        for ask, each in zip(asks, talks, strict=True):
            yield [_told(one, len(ask.prompt), max_new_tokens) for one in each]


def _told(one: Talk, num_asked: int, max_new_tokens: int) -> Answer:
    """Args: num_asked: messages of the prompt."""
    if one.ended == "error":
        return Answer("", "error", error=one.error, permanent=True)
    ids, own = one.ids[-len(one.own) :][:max_new_tokens], one.own[:max_new_tokens]
    is_whole = one.ended == "answered" and len(one.own) <= max_new_tokens
    return Answer(
        one.answer,
        "stop" if is_whole else "length",
        num_tokens=sum(own),
        ids=tuple(ids),
        own=tuple(own),
        messages=tuple(one.messages[num_asked:]),
    )
