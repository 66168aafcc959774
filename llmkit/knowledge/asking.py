"""Questions -> prompts: every question in each variant, a phrasing with one draw of few-shot examples.

SliCK (Gekhman et al. 2024, section 3) asks with several random few-shot prompts and calls a question HighlyKnown only
if the greedy answer is right under all of them. A draw is the same for all questions, so that they are measured alike
and an engine can share the prefix; only an example about the question's own entity gives way to the next of the draw.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from llmkit.chat.ask import Ask
from llmkit.chat.template import Message
from llmkit.errors import DataError
from llmkit.knowledge.records import Question
from llmkit.knowledge.split import entity_key
from llmkit.recipe.knowledge import AskSpec

POOL_SIZE = 64
"""Few-shot examples are drawn from the first so many short questions, one of each entity."""
LONG_EXAMPLE = 400
"""Characters of question and answer above which a question is no example."""


@dataclass(frozen=True)
class Asking:
    """How one model is asked.

    Attributes:
        pool: questions that serve as examples; see `fewshot_pool`.
        chat: the model has a chat template: messages, else plain text that it goes on from.
        thinking: its template opens the reasoning, so that an answer begins inside of it.
    """

    spec: AskSpec
    pool: tuple[Question, ...]
    chat: bool
    seed: int
    thinking: bool = False

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Plain text goes on with a question of the model's own: an answer ends with its line."""
        return () if self.chat else ("\n",)

    def asks(self, question: Question) -> list[Ask]:
        """One prompt a variant, with its greedy answer first."""
        return [
            Ask(self._prompt(question, variant), f"{question.id}:{variant}", (0.0, *self._sampled(variant)))
            for variant in range(self.spec.prompts_per_question)
        ]

    def _sampled(self, variant: int) -> tuple[float, ...]:
        """The samples are shared out evenly; the first variants take what is left over."""
        share, rest = divmod(self.spec.num_samples, self.spec.prompts_per_question)
        return (self.spec.temperature,) * (share + (variant < rest))

    def _prompt(self, question: Question, variant: int) -> str | tuple[Message, ...]:
        draw, wording = divmod(variant, len(self.spec.phrasings))
        phrasing = self.spec.phrasings[wording]
        examples = [(phrase(phrasing, e.question), e.answers[0]) for e in self._examples(question, draw)]
        asked = phrase(phrasing, question.question)
        return _messages(self.spec.system, examples, asked) if self.chat else _text(self.spec.system, examples, asked)

    def _examples(self, question: Question, draw: int) -> list[Question]:
        own = entity_key(question.about)
        others = (self.pool[index] for index in self._draws[draw] if entity_key(self.pool[index].about) != own)
        return [example for example, _ in zip(others, range(self.spec.num_fewshot), strict=False)]

    @cached_property
    def _draws(self) -> list[list[int]]:
        """For each draw its own order of the pool."""
        orders = []
        for draw in range(self.spec.num_variants):
            order = list(range(len(self.pool)))
            random.Random(f"{self.seed} few-shot {draw}").shuffle(order)
            orders.append(order)
        return orders


def phrase(phrasing: str, question: str) -> str:
    """`replace`, since a question may hold braces of its own."""
    return phrasing.replace("{question}", question)


def fewshot_pool(questions: Iterable[Question], spec: AskSpec) -> tuple[Question, ...]:
    """The first short questions, one of each entity.

    Raises:
        DataError: too few entities for `num_fewshot` examples beside the question's own.
    """
    pool: dict[str, Question] = {}
    if not spec.num_fewshot:
        return ()
    for question in questions:
        if len(question.question) + len(question.answers[0]) <= LONG_EXAMPLE:
            pool.setdefault(entity_key(question.about), question)
        if len(pool) == POOL_SIZE:
            break
    if len(pool) <= spec.num_fewshot:
        what = f"is {spec.num_fewshot}, but there are short questions about only {len(pool)} entities"
        raise DataError("ask.num_fewshot", what, f"set it to {max(len(pool) - 1, 0)} or less, or add questions")
    return tuple(pool.values())


def _messages(system: str | None, examples: Sequence[tuple[str, str]], asked: str) -> tuple[Message, ...]:
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for question, answer in examples:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return (*messages, {"role": "user", "content": asked})


def _text(system: str | None, examples: Sequence[tuple[str, str]], asked: str) -> str:
    shown = [f"Question: {question}\nAnswer: {answer}" for question, answer in examples]
    return "\n\n".join([*([system] if system else []), *shown, f"Question: {asked}\nAnswer:"])
