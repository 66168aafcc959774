"""The form of an answer that is thought about first: `<think>...</think>`, then the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmkit.recipe.reward_values import check_values
from llmkit.rewards.rows import Completion, Reward, text_of

COLUMNS: tuple[str, ...] = ()
CORRECTNESS: bool = False


def make_think(*, tags: Sequence[str] = ("<think>", "</think>"), opened: bool = False) -> Reward:
    """1 where a completion is one thought between tags and then an answer, neither of them empty; else 0.

    Args:
        tags: in front of and behind the thought.
        opened: the chat template opens the thought itself, so that a completion only closes it. A prompt that ends
            with the opening tag does so in any case; what a template adds to messages cannot be seen here.

    Returns:
        think(prompts, completions, **columns) -> one 0 or 1 per completion.

    Raises:
        UserError: `tags` are not two different texts.
    """
    check_values("think", tags=tags)
    start, end = tags

    def whole(completion: Completion) -> str:
        """With tools a turn's reasoning stands beside its content."""
        last = {} if isinstance(completion, str) or not completion else completion[-1]
        thought = last.get("reasoning_content")
        text = text_of(completion)
        return text if thought is None else f"{start}{thought}{end}{text}"

    def is_formed(prompt: Any, text: str) -> bool:
        text = text.strip()
        if opened or _last(prompt).rstrip().endswith(start):
            text = start + text
        if not text.startswith(start) or text.count(start) != 1 or text.count(end) != 1:
            return False
        thought, _, answer = text[len(start) :].partition(end)
        return bool(thought.strip() and answer.strip())

    def think(prompts: Sequence[Any], completions: Sequence[Completion], **_: Any) -> list[float]:
        pairs = zip(prompts, completions, strict=True)
        return [float(is_formed(prompt, whole(completion))) for prompt, completion in pairs]

    return think


def _last(prompt: Any) -> str:
    """The end of a prompt: of messages, what is prefilled for the assistant."""
    return prompt if isinstance(prompt, str) else text_of(prompt[-1:]) if prompt else ""
