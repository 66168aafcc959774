"""One greedy answer to each prompt: what evaluations of single questions share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmkit.chat.ask import Ask, Engine
from llmkit.chat.turn import without_thought
from llmkit.errors import RunError

RAW_STOPS = ("\n\n", "\nQuestion:")
"""Ends of an answer by a model that goes on writing."""
Prompt = str | Sequence[dict[str, Any]]


def greedy(
    engine: Engine, prompts: Sequence[Prompt], keys: Sequence[str], *, max_new_tokens: int, chat: bool, where: str
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
    answers = engine.answer(asks, max_new_tokens=max_new_tokens, stop_strings=() if chat else RAW_STOPS)
    said = []
    for key, (answer,) in zip(keys, answers, strict=True):
        if answer.finish_reason == "error":
            cure = "shorten or remove it, or take a model of a longer context"
            raise RunError(f"evals: {where}: {key}", f"was not answered ({answer.error})", cure)
        said.append(without_thought(answer.text))
    return said
