"""One greedy answer to each prompt: what evaluations of single questions share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from llmkit.chat.ask import Ask, Engine
from llmkit.chat.calls import opens_thought
from llmkit.chat.pieces import reasons
from llmkit.chat.turn import without_thought
from llmkit.errors import RunError
from llmkit.generation.engine import ids_of
from llmkit.knowledge.answering import thoughts_alone
from llmkit.stages.common import Worker

RAW_STOPS = ("\n\n", "\nQuestion:")
"""Ends of an answer by a model that goes on writing."""
Prompt = str | Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Manner:
    """How a model is asked.

    Attributes:
        chat: in its chat template, which it has.
        thinks: that has a place for reasoning.
        opens: it opens the reasoning of every answer, so that one that is cut off may be nothing else.
    """

    chat: bool
    thinks: bool = False
    opens: bool = False

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> Manner:
        asked = Ask(({"role": "user", "content": "a"},), "")
        return cls(chat, reasons(tokenizer), chat and opens_thought(tokenizer, ids_of(tokenizer, asked)))


def warn_of_thoughts(worker: Worker, name: str, texts: Sequence[str], manner: Manner) -> None:
    """Of answers that are empty without their reasoning."""
    if manner.thinks and (num := sum(not text for text in texts)):
        worker.warn(f"{name}: {thoughts_alone(num, len(texts), 'max_new_tokens')}")


def greedy(
    engine: Engine,
    prompts: Sequence[Prompt],
    keys: Sequence[str],
    *,
    max_new_tokens: int,
    manner: Manner,
    where: str,
) -> list[str]:
    """Without reasoning.

    Args:
        keys: what each prompt is called, also in errors.
        where: the evaluation.

    Raises:
        RunError: a prompt does not fit the model, or its engine fails.
    """
    asks = [
        Ask(prompt if isinstance(prompt, str) else tuple(prompt), key)
        for prompt, key in zip(prompts, keys, strict=True)
    ]
    answers = engine.answer(asks, max_new_tokens=max_new_tokens, stop_strings=() if manner.chat else RAW_STOPS)
    said = []
    for key, (answer,) in zip(keys, answers, strict=True):
        if answer.finish_reason == "error":
            cure = "shorten or remove it, or take a model of a longer context"
            raise RunError(f"evals: {where}: {key}", f"was not answered ({answer.error})", cure)
        said.append(without_thought(answer.text, thinking=manner.opens))
    return said
