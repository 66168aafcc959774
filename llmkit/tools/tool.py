"""What a tool is. A call always gives a text: what went wrong is told to the model, and never raises here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from llmkit.chat.calls import result_message
from llmkit.chat.template import Message

_SHOWN = 300


class CallFailed(Exception):
    """A call has no answer; its text is for the model."""


@dataclass(frozen=True)
class Result:
    """What a call gave.

    Attributes:
        text: for the model; with `failed` what went wrong.
        seconds: that it took.
    """

    text: str
    failed: bool = False
    seconds: float = 0.0

    def message(self) -> Message:
        """For a conversation. Whatever it says is data, and cannot end its span."""
        return result_message(self.text)


@dataclass(frozen=True)
class Tool:
    """One tool. It may be called from several threads at once.

    Attributes:
        name: by which it is called.
        schema: as chat templates take it: {"type": "function", "function": {name, description, parameters}}.
        run: arguments -> text, within a time limit of its own. May raise CallFailed, or anything.
        max_chars: longest text; more is cut off.
        close: ends what it keeps running.
    """

    name: str
    schema: dict[str, Any]
    run: Callable[[dict[str, Any]], str]
    max_chars: int
    close: Callable[[], None] = lambda: None

    def call(self, arguments: dict[str, Any]) -> str:
        """The answer as text, also where it is an error."""
        return self.result(arguments).text

    def result(self, arguments: dict[str, Any]) -> Result:
        """The answer, and whether the call failed. Raises nothing."""
        start = time.perf_counter()
        try:
            text, failed = self._wrong(arguments), True
            if not text:
                text, failed = self.run(arguments), False
        except CallFailed as error:
            text = str(error)
        except Exception as error:
            text = f"{self.name} failed: {type(error).__name__}: {str(error)[:_SHOWN]}"
        return Result(shortened(text, self.max_chars), failed, time.perf_counter() - start)

    def _wrong(self, arguments: dict[str, Any]) -> str:
        """What is wrong with the arguments, for the model; "" for nothing."""
        try:
            error = best_match(self._validator.iter_errors(arguments))
        except (Unresolvable, SchemaError, RecursionError) as failed:
            return f"{self.name} cannot be called: its schema is unusable ({type(failed).__name__})"
        if error is None:
            return ""
        where = "".join(f" at '{key}'" for key in error.absolute_path)
        return f"{self.name} was called with wrong arguments{where}: {error.message[:_SHOWN]}"

    @cached_property
    def _validator(self) -> Draft202012Validator:
        """With an empty registry: a schema that points elsewhere must not make us fetch it."""
        return Draft202012Validator(self.schema["function"].get("parameters", {}), registry=Registry())


def shortened(text: str, max_chars: int) -> str:
    """Cut where it is too long, and said so; halves of characters, which no tokenizer takes, replaced."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]}\n[cut: {len(text) - max_chars} more characters]"
