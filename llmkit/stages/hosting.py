"""A model behind the endpoint: requests become conversations of the one loop, decoded together in a pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.chat.ask import Ask
from llmkit.chat.calls import format_of
from llmkit.chat.pieces import Reader
from llmkit.chat.turn import BadCall, Call, Message
from llmkit.errors import UserError
from llmkit.generation.conversation import Settings
from llmkit.generation.decode import context_length, stop_ids
from llmkit.generation.engine import ids_of
from llmkit.generation.pool import Pool, PoolFailed
from llmkit.options.serve import Limits
from llmkit.serving.errors import ApiError, too_long
from llmkit.serving.host import Event, Written
from llmkit.serving.replies import named_calls
from llmkit.serving.wanted import Wanted
from llmkit.stages.hosted import Writer
from llmkit.stages.talking import Made, Talk, talk
from llmkit.tools.toolbox import Toolbox


class ModelHost:
    """`llmkit.serving.host.Host` over a loaded model and tools of the server's own.

    Raises:
        TemplateError: tools, and a chat template that has no place for them.
        UserError: a generation config that cannot be used.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tools: Toolbox, name: str, limits: Limits
    ) -> None:
        self.model, self.tokenizer, self.tools, self.limits = model, tokenizer, tools, limits
        self.name = name
        self.reader = Reader(tokenizer, frozenset(stop_ids(model, tokenizer)))
        self.context = context_length(model)
        self.settings = Settings.of_model(model)
        if tools.tools:
            format_of(tokenizer)
            ids_of(tokenizer, Ask(({"role": "user", "content": "a"},), "", tools=tuple(tools.schemas)))
        self.pool = Pool(model, tokenizer, limits.max_rows)
        self.num_open = 0
        self.lock = threading.Lock()

    @property
    def about(self) -> dict[str, Any]:
        settings = {name: getattr(self.settings, name) for name in ("temperature", "top_p")}
        names = list(self.tools.tools)
        return {"context": self.context, "tools": names, "reasons": self.reader.reasons, **settings}

    def prepare(self, wanted: Wanted) -> _Request:
        ids, ask = self._asked(wanted)
        if len(ids) >= self.context:
            raise too_long(len(ids), self.context)
        if not ids:
            raise ApiError(400, "The prompt has no tokens.", param="prompt")
        if wanted.max_thinking_tokens is not None and not self.reader.reasons:
            what = "'max_thinking_tokens': this model's chat template has no place for reasoning."
            raise ApiError(400, what, param="max_thinking_tokens")
        request = _Request(self, wanted, ask)
        with self.lock:
            if self.num_open >= self.limits.max_rows + self.limits.max_waiting:
                raise ApiError(429, f"{self.num_open} requests are open or wait; try again later.", code="queue_full")
            self.num_open += 1
        return request

    def close(self) -> None:
        self.pool.close()

    def _asked(self, wanted: Wanted) -> tuple[list[int], Ask]:
        if isinstance(wanted.prompt, str):
            ask = Ask(wanted.prompt, "")
            return ids_of(self.tokenizer, ask), ask
        tools = wanted.tools or (tuple(self.tools.schemas) if wanted.own_tools else ())
        ask = Ask(tuple(wanted.prompt), "", tools=tools)
        try:
            if tools:
                format_of(self.tokenizer)
            return ids_of(self.tokenizer, ask), ask
        except UserError as error:  # the template refuses these messages or tools
            raise ApiError(400, str(error), param="messages") from None
        except RecursionError:
            raise ApiError(400, "Something in 'messages' or 'tools' is nested too deep.", param="messages") from None


class _Request:
    """One request on its way."""

    def __init__(self, host: ModelHost, wanted: Wanted, ask: Ask) -> None:
        self._host, self._wanted, self._ask = host, wanted, ask
        max_tokens = wanted.max_tokens or host.limits.max_new_tokens
        self._writer = Writer(host.pool, host.reader, host.context, host.settings, wanted, max_tokens)
        self._ids: list[str] = []
        self._num_told = 0

    def leave(self) -> None:
        self._writer.leave()

    def answer(self, tell: Callable[[Event], None]) -> Written:
        self._writer.tell = tell
        try:
            return self._talk() if self._ask.tools and not self._wanted.tools else self._once()
        except PoolFailed as error:
            raise ApiError(500, str(error)) from None
        finally:
            with self._host.lock:
                self._host.num_open -= 1

    def _once(self) -> Written:
        """A turn without tools, or with the client's, whose calls go back to it."""
        turn, finish = self._writer.write(self._ask)
        calls = [call for call in turn.calls if isinstance(call, Call)]
        if finish == "stop" and calls and len(calls) == len(turn.calls):
            return self._writer.written("tool_calls", calls)
        self._writer.say_held(turn, is_text=True)
        return self._writer.written(finish)

    def _talk(self) -> Written:
        """Turns with the server's tools."""
        one = Talk(list(self._ask.prompt), "", self._writer.temperature)  # type: ignore[arg-type]
        self._num_told = len(one.messages)
        talk(
            self._writer,
            self._host.tokenizer,
            self._host.tools,
            [one],
            max_new_tokens=self._host.context,
            max_calls=self._host.limits.max_calls,
            on_call=lambda one, _: self._on_call(one),
            on_made=self._on_made,
        )
        if one.ended == "error":
            raise ApiError(500, one.error)
        finish: Literal["stop", "length"] = "stop" if one.ended == "answered" else "length"
        return self._writer.written(finish, wants_calls=one.ended == "calls")

    def _on_call(self, one: Talk) -> None:
        """Before the first call of a turn is made: tells the turn itself."""
        if self._num_told == len(one.messages):
            return
        message = dict(one.messages[-1])
        if "tool_calls" in message:
            message["tool_calls"] = named_calls([call for call in one.turns[-1].calls if isinstance(call, Call)])
        self._ids = [call["id"] for call in message.get("tool_calls", ())]
        self._num_told = len(one.messages)
        self._writer.tell_message(message)

    def _on_made(self, one: Talk, made: Made) -> None:
        message: Message = dict(one.messages[-1])
        if self._ids and not isinstance(made.call, BadCall):
            message["tool_call_id"] = self._ids.pop(0)
        self._num_told = len(one.messages)
        self._writer.tell_message(message, seconds=round(made.result.seconds, 3), failed=made.result.failed)
