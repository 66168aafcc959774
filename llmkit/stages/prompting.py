"""Problems as the model gets them, and which of them leave room for an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from llmkit.chat.ask import Ask
from llmkit.data.problems import Problem, Problems
from llmkit.errors import UserError
from llmkit.generation.engine import ids_of

SMALLEST_ANSWER = 8
"""Tokens for which a prompt must leave room."""


def ask_of(
    problem: Problem,
    key: str = "",
    temperatures: Sequence[float] = (),
    prefill: str = "",
    schemas: Sequence[dict[str, Any]] = (),
) -> Ask:
    """Args: prefill: text with which the answers begin. schemas: of the tools at hand."""
    prompt = problem.prompt
    if prefill:
        begun = {"role": "assistant", "content": prefill}
        prompt = f"{prompt} {prefill}" if isinstance(prompt, str) else [*prompt, begun]
    return Ask(prompt if isinstance(prompt, str) else tuple(prompt), key, tuple(temperatures), tuple(schemas))


def problem_ids(
    tokenizer: PreTrainedTokenizerBase, problem: Problem, schemas: Sequence[dict[str, Any]] = ()
) -> list[int]:
    """The problem as the model gets it. Raises as `llmkit.generation.engine.ids_of` does."""
    return ids_of(tokenizer, ask_of(problem, schemas=schemas))


def fitting(
    problems: Problems,
    tokenizer: PreTrainedTokenizerBase,
    max_positions: int | None,
    *,
    max_truncated: float,
    where: str,
    warn: Callable[[str], None],
    schemas: Sequence[dict[str, Any]] = (),
) -> list[int]:
    """Numbers of the problems whose prompt leaves room for an answer.

    Args:
        max_truncated: largest share that may not, 0 to 1.
        schemas: of the tools at hand.

    Raises:
        UserError: more do not.
    """
    room = (max_positions or 2**31) - SMALLEST_ANSWER
    lengths = [len(problem_ids(tokenizer, problem, schemas)) for problem in problems]
    found = [number for number, length in enumerate(lengths) if length <= room]
    num_lost = len(problems) - len(found)
    if num_lost and num_lost / len(problems) > max_truncated:
        first = next(number for number, length in enumerate(lengths) if length > room)
        what = f"{num_lost} of {len(problems)} prompts leave no room for an answer in {max_positions} tokens"
        cure = f"shorten them (the first is {problems[first].place}), or raise 'max_truncated' to leave them out"
        raise UserError(where, what, cure)
    if num_lost:
        warn(f"{num_lost} of {len(problems)} problems were left out: their prompts leave no room for an answer")
    return found
