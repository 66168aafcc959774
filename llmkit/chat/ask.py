"""What is asked of a model and what comes back, whatever runs the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llmkit.chat.template import Message


@dataclass(frozen=True)
class Ask:
    """One prompt, answered once per temperature."""

    prompt: str | tuple[Message, ...]
    """Messages, rendered through the model's chat template; or plain text to go on from."""
    key: str
    """With the seed it fixes the random numbers of the answers, whatever batch or process the prompt lands in."""
    temperatures: tuple[float, ...] = (0.0,)
    """One answer each; 0 is greedy."""
    tools: tuple[dict[str, Any], ...] = ()
    """Schemas of tools that the model may call, as its chat template takes them."""
    ids: tuple[int, ...] = ()
    """Where given, the prompt's tokens: of a conversation that goes on exactly as it was written."""


@dataclass(frozen=True)
class Answer:
    text: str
    """Without special tokens but those of a span of reasoning, cut before the first stop string."""
    finish_reason: Literal["stop", "length", "error"]
    logprob: float | None = None
    """Sum of the log-probabilities of its tokens under the model itself (before temperature), in nats."""
    num_tokens: int | None = None
    """With the stop token, if there was one."""
    error: str = ""
    """With `finish_reason: error`: why there is no answer."""
    permanent: bool = False
    """With `finish_reason: error`: the prompt itself cannot be answered (it is empty, or does not fit the model)."""
    ids: tuple[int, ...] = ()
    """Its tokens, with the stop token if there was one; empty where the engine does not tell."""
    own: tuple[bool, ...] = ()
    """With tools: which of `ids` the model wrote; the others are results and what the template puts around them."""
    messages: tuple[Message, ...] = ()
    """With tools: all turns and results behind the prompt."""


class Engine(Protocol):
    """Runs a model. Answers come in the order of the asks, each a list in the order of its temperatures."""

    def answer(
        self,
        asks: Sequence[Ask],
        *,
        max_new_tokens: int,
        top_p: float = 1.0,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[list[Answer]]: ...
