"""What the base's own chat template has no place for, and the recipe's has: it is left out where the base is evaluated,
with a warning, since only the models that are trained can be asked it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from llmkit.chat.pieces import reasons
from llmkit.errors import UserError
from llmkit.recipe.practice import ProblemsSpec
from llmkit.stages.common import Worker


def has_place(worker: Worker, part: str, check: Callable[[], None]) -> bool:
    """Whether the measured model's chat template has a place for a part of its evaluation.

    Args:
        part: what is left out where it has none.
        check: raises UserError where it has none.

    Raises:
        UserError: as `check`, of a model that was trained, or where the recipe sets no other template.
    """
    try:
        check()
    except UserError as error:
        if worker.file.parent is not None or worker.file.model.chat_template is None:
            raise
        (problem,) = error.problems
        worker.warn(f"{part}: left out for the base, whose own chat template has no place for it ({problem.what})")
        return False
    return True


def check_thinking(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises UserError where the model's chat template has no span of reasoning."""
    if not reasons(tokenizer):
        what = "the model's chat template has no span of reasoning (<think>)"
        raise UserError(
            f"evals: {name}: thinking_budgets", what, "train with one such as chatml_think, or leave it out"
        )


def with_place(
    worker: Worker, specs: Sequence[ProblemsSpec], tokenizer: PreTrainedTokenizerBase, *, chat: bool
) -> list[ProblemsSpec]:
    """The same evaluations, without `thinking_budgets` where the model's template has no span of reasoning. Raises as
    `has_place`."""
    return [_with_place(worker, spec, tokenizer) if chat and spec.thinking_budgets else spec for spec in specs]


def _with_place(worker: Worker, spec: ProblemsSpec, tokenizer: PreTrainedTokenizerBase) -> ProblemsSpec:
    part = f"evals: {spec.name}: thinking_budgets"
    fits = has_place(worker, part, lambda: check_thinking(tokenizer, spec.name))
    return spec if fits else spec.model_copy(update={"thinking_budgets": []})
