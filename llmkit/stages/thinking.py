"""How long a model may think: reasoning that is ended after so many tokens, whatever the model would still say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from llmkit.chat.ask import Answer, Ask, Engine
from llmkit.chat.calls import opens_thought
from llmkit.chat.encode import encode_document
from llmkit.chat.turn import THINK, THOUGHT
from llmkit.errors import UserError
from llmkit.generation.engine import ids_of

_BEGIN, _END = f"{THINK}\n", f"\n{THOUGHT}\n\n"


class BudgetEngine:
    """An engine whose answers begin with at most so many tokens of reasoning (budget forcing: Muennighoff et al. 2025,
    arXiv 2501.19393, section 3.1). Texts are what stands behind the reasoning.

    Args:
        engine: runs the model; it must take ids.
        budget: tokens of reasoning. 0: the span is closed at once.
    """

    def __init__(self, engine: Engine, tokenizer: PreTrainedTokenizerBase, budget: int) -> None:
        self._engine, self._tokenizer, self._budget = engine, tokenizer, budget

    def answer(
        self,
        asks: Sequence[Ask],
        *,
        max_new_tokens: int,
        top_p: float = 1.0,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[list[Answer]]:
        """As `llmkit.chat.ask.Engine`; `max_new_tokens` is of what stands behind the reasoning.

        Raises:
            UserError: plain text, which has no place for a span of reasoning.
        """
        if any(isinstance(ask.prompt, str) for ask in asks):
            raise UserError("thinking_budgets", "the model has no chat template, and so no place to think", "set one")
        heated = [replace(ask, temperatures=(heat,), ids=self._begun(ask)) for ask in asks for heat in ask.temperatures]
        named = [replace(ask, key=f"{ask.key} {place}") for place, ask in enumerate(heated)]
        thought = self._think(named, top_p, seed)
        closed = [replace(ask, ids=self._closed(ask, said)) for ask, said in zip(named, thought, strict=True)]
        options = {"top_p": top_p, "stop_strings": stop_strings, "seed": seed}
        said = self._engine.answer(closed, max_new_tokens=max_new_tokens, **options)  # type: ignore[arg-type]
        for ask in asks:
            yield [next(said)[0] for _ in ask.temperatures]

    def _begun(self, ask: Ask) -> tuple[int, ...]:
        ids = ids_of(self._tokenizer, ask)
        return tuple(ids if opens_thought(self._tokenizer, ids) else ids + self._ids(_BEGIN))

    def _think(self, asks: Sequence[Ask], top_p: float, seed: int) -> list[str]:
        if self._budget == 0:
            return ["" for _ in asks]
        keyed = [replace(ask, key=f"{ask.key} thinks") for ask in asks]
        options = {"max_new_tokens": self._budget, "top_p": top_p, "stop_strings": (THOUGHT,), "seed": seed}
        return [given[0].text for given in self._engine.answer(keyed, **options)]  # type: ignore[arg-type]

    def _closed(self, ask: Ask, thought: str) -> tuple[int, ...]:
        return (*ask.ids, *self._ids(f"{thought.rstrip()}{_END}"))

    def _ids(self, text: str) -> list[int]:
        return encode_document(self._tokenizer, text, add_bos=False, add_eos=False)


def check_thinking(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises UserError where the model's chat template has no span of reasoning."""
    if THINK not in str(tokenizer.chat_template or ""):
        what = "the model's chat template has no span of reasoning (<think>)"
        raise UserError(
            f"evals: {name}: thinking_budgets", what, "train with one such as chatml_think, or leave it out"
        )
