"""What a tool is. A call always gives a text: what went wrong is told to the model, and never raises here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.validators import extend
from referencing import Registry

from llmkit.chat.turn import Message, result_message

Keep = Callable[[str], bool]
"""Whether a passage (title, line break, text) is there."""
NUM_THREADS = 8
"""Calls that are made at the same time."""
_SHOWN = 300
_UNCHECKED = ("pattern", "patternProperties", "unevaluatedProperties")


class CallFailed(Exception):
    """A call has no answer; its text is for the model."""


@dataclass(frozen=True)
class Result:
    """What a call gave.

    Attributes:
        text: for the model; with `failed` what went wrong.
        seconds: that it took, without what it waited for its turn (`waiting`).
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
        run_without: of a search, as `run` if some passages were not there.
    """

    name: str
    schema: dict[str, Any]
    run: Callable[[dict[str, Any]], str]
    max_chars: int
    close: Callable[[], None] = lambda: None
    run_without: Callable[[dict[str, Any], Keep], str] | None = None

    def result(self, arguments: dict[str, Any], keep: Keep | None = None) -> Result:
        """The answer, and whether the call failed. Raises nothing.

        Args:
            keep: of a search, which passages are there; other tools take no notice of it.
        """
        start, _waited.seconds = time.perf_counter(), 0.0
        failed = True
        try:
            text = self._wrong(arguments)
            if not text:
                text, failed = self._ran(arguments, keep), False
        except CallFailed as error:
            text = _said(error)
        except Exception as error:
            text = f"{self.name} failed: {type(error).__name__}: {_said(error)[:_SHOWN]}"
        return Result(shortened(text, self.max_chars), failed, time.perf_counter() - start - _waited.seconds)

    def _ran(self, arguments: dict[str, Any], keep: Keep | None) -> str:
        without = self.run_without
        text = self.run(arguments) if keep is None or without is None else without(arguments, keep)
        if not isinstance(text, str):
            raise TypeError(f"it gave {type(text).__name__} and no text")
        return text

    def _wrong(self, arguments: dict[str, Any]) -> str:
        """What is wrong with the arguments, for the model; "" for nothing."""
        try:
            error = best_match(self._validator.iter_errors(arguments))
        except Exception as failed:  # schemas come from servers, and are checked by nobody before
            return f"{self.name} cannot be called: its schema is unusable ({type(failed).__name__})"
        if error is None:
            return ""
        where = "".join(f" at '{key}'" for key in error.absolute_path)
        return f"{self.name} was called with wrong arguments{where}: {error.message[:_SHOWN]}"

    @cached_property
    def _validator(self) -> Any:
        """With an empty registry: a schema that points elsewhere must not make us fetch it."""
        return _Validator(self.schema["function"].get("parameters", {}), registry=Registry())


_waited = threading.local()


@contextmanager
def waiting() -> Iterator[None]:
    """Around what a call waits for because others are made at the same time; it costs them, not this one."""
    start = time.perf_counter()
    try:
        yield
    finally:
        _waited.seconds = getattr(_waited, "seconds", 0.0) + time.perf_counter() - start


def _others(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """`additionalProperties`, but where it would have to match patterns."""
    if "patternProperties" not in schema:
        yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, allowed, instance, schema)


# a pattern may take hours and cannot be interrupted; who made the schema checks it again
_Validator = extend(Draft202012Validator, {**dict.fromkeys(_UNCHECKED, lambda *_: ()), "additionalProperties": _others})


def _said(error: Exception) -> str:
    """Its text, also of one whose text cannot be had."""
    try:
        return str(error)
    except Exception:
        return type(error).__name__


def shortened(text: str, max_chars: int) -> str:
    """Cut where it is too long, and said so; halves of characters, which no tokenizer takes, replaced."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]}\n[cut: {len(text) - max_chars} more characters]"
