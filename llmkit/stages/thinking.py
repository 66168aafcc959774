"""Whether a model can be told how long to think."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from llmkit.chat.pieces import reasons
from llmkit.errors import UserError


def check_thinking(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises UserError where the model's chat template has no span of reasoning."""
    if not reasons(tokenizer):
        what = "the model's chat template has no span of reasoning (<think>)"
        raise UserError(
            f"evals: {name}: thinking_budgets", what, "train with one such as chatml_think, or leave it out"
        )
