"""A request's body -> what is wanted. What has no effect here is refused by name, unless it is at its neutral value or
cannot change an answer (`user`, `metadata`, ...)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmkit.chat.turn import Message
from llmkit.serving.errors import ApiError, check_model
from llmkit.serving.messages import messages_of, tools_of

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "parallel_tool_calls": (True,),
    "tool_choice": ("auto", "none"),
    "echo": (False,),
    "suffix": ("",),
}
"""Values of what is not supported that say nothing."""
_MAX_STOPS = 16
_MOST = 2**20
"""Tokens: random numbers are drawn for all of them beforehand."""


@dataclass(frozen=True)
class Wanted:
    """One answer. Where a number is None, the server's own counts."""

    prompt: list[Message] | str
    stream: bool
    include_usage: bool
    tools: tuple[dict[str, Any], ...]
    """Of the client's, whose calls are its own to make."""
    own_tools: bool
    """Whether the server's tools may be called: a request with `tools`, also an empty list, has its own."""
    max_tokens: int | None
    sampling: dict[str, float]
    """temperature, top_p, top_k, min_p, as far as they are given."""
    stop: tuple[str, ...]
    seed: int | None
    max_thinking_tokens: int | None


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    include_usage: bool = False


class _Request(BaseModel):
    """What both kinds share. Not named here is not known."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False)

    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=_MOST)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=_MOST)
    min_p: float | None = Field(default=None, ge=0, le=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: Any = None
    logprobs: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    user: Any = None


class _Chat(_Request):
    messages: list[Any] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=_MOST)
    max_thinking_tokens: int | None = Field(default=None, ge=0, le=_MOST)
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    response_format: Any = None
    top_logprobs: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None


class _Text(_Request):
    prompt: str | list[str]
    best_of: Any = None
    echo: Any = None
    suffix: Any = None


def chat_wanted(body: Any, model: str) -> Wanted:
    """Raises ApiError."""
    asked = _parsed(_Chat, body, model)
    tools = tools_of(asked.tools or ())
    is_off = asked.tool_choice == "none"
    return Wanted(
        prompt=messages_of(asked.messages),
        tools=() if is_off else tools,
        own_tools=asked.tools is None and not is_off,
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        max_thinking_tokens=asked.max_thinking_tokens,
        **_shared(asked),
    )


def text_wanted(body: Any, model: str) -> Wanted:
    """Raises ApiError."""
    asked = _parsed(_Text, body, model)
    prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
    if len(prompts) != 1:
        raise ApiError(400, "Give one prompt at a time.", param="prompt")
    return Wanted(
        prompt=prompts[0],
        tools=(),
        own_tools=False,
        max_tokens=asked.max_tokens or 16,
        max_thinking_tokens=None,
        **_shared(asked),
    )


def _shared(asked: _Request) -> dict[str, Any]:
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if len(stops) > _MAX_STOPS or not all(stops):
        raise ApiError(400, f"'stop' is a text or up to {_MAX_STOPS} texts, none of them empty.", param="stop")
    given = {name: getattr(asked, name) for name in ("temperature", "top_p", "top_k", "min_p")}
    return {
        "stream": bool(asked.stream),
        "include_usage": bool(asked.stream_options and asked.stream_options.include_usage),
        "sampling": {name: value for name, value in given.items() if value is not None},
        "stop": tuple(stops),
        "seed": asked.seed,
    }


def _parsed(kind: Any, body: Any, model: str) -> Any:
    if not isinstance(body, dict):
        raise ApiError(400, "The body is a JSON object.")
    try:
        asked = kind.model_validate(body)
    except ValidationError as error:
        raise _told(error.errors()) from None
    for name, neutral in _NEUTRAL.items():
        value = getattr(asked, name, None)
        if value is not None and not any(value == each and type(value) in (type(each), float) for each in neutral):
            what = f"'{name}' is not supported here, other than as {' or '.join(map(repr, neutral))}."
            raise ApiError(400, what, param=name, code="unsupported_value")
    check_model(asked.model, model)
    return asked


def _told(errors: Sequence[Any]) -> ApiError:
    first = errors[0]
    name = str(first["loc"][0]) if first["loc"] else None
    unknown = [str(each["loc"][-1]) for each in errors if each["type"] == "extra_forbidden"]
    if unknown:
        what = f"Unrecognized request argument supplied: {', '.join(unknown)}"
        return ApiError(400, what, param=unknown[0], code="unknown_parameter")
    return ApiError(400, f"'{name}': {first['msg']}", param=name, code="invalid_value")
