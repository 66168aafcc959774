"""Questions about snippets: from patterns in their text, or written by a model and checked against the snippet."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmkit.chat.ask import Answer, Ask, Engine
from llmkit.errors import Problem, RecipeError
from llmkit.knowledge.promptfile import PromptFile, compiled
from llmkit.knowledge.records import Question
from llmkit.knowledge.snippets import Snippet
from llmkit.knowledge.templates import TEXT, Bad, questions_of
from llmkit.knowledge.written import parse_pairs, sound
from llmkit.recipe.knowledge import TemplateSpec
from llmkit.recipe.templates import check_templates

PROMPT = PromptFile(
    shipped="questions.jinja",
    setting="writer.prompt",
    variables=frozenset({"snippet", "fence", "num_questions", "chat"}),
    needed=("snippet",),
)
"""It is to ask for pairs of lines `Q: ...` and `A: ...`, and for a base model to end with `Q:`. `fence` is longer than
any run of backticks in the snippet."""
# A base model goes on with the next piece of text; blank lines and fences end what was asked for.
_BASE_STOPS = ("\n\n", "\n```")


@dataclass(frozen=True)
class Written:
    """What became of one snippet."""

    questions: tuple[Question, ...]
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> number of questions, or of stretches of text that are none."""
    error: str = ""
    """Why the engine gave no answer."""


class Writer(Protocol):
    """Writes questions. What comes of a snippet depends on the snippet alone, whatever was written before."""

    def write(self, snippets: Sequence[Snippet]) -> Iterator[Written]: ...


class TemplateWriter:
    """Asks about what the patterns (`match`) of templates find.

    Raises:
        RecipeError: malformed templates, or one without `match`.
    """

    def __init__(self, templates: Sequence[TemplateSpec]) -> None:
        problems = check_templates(templates)
        problems += [f"templates[{i}]: has no 'match'" for i, spec in enumerate(templates) if spec.match is None]
        if problems:
            raise RecipeError([Problem("writer", problem) for problem in problems])
        self._templates = list(templates)

    def write(self, snippets: Sequence[Snippet]) -> Iterator[Written]:
        for text, where in snippets:
            dropped: Counter[str] = Counter()
            answers: dict[str, set[tuple[str, ...]]] = {}
            made: list[Question] = []
            for each in questions_of({TEXT: text}, self._templates, where):
                if isinstance(each, Bad):
                    dropped[each.reason] += 1
                elif each.answers in answers.setdefault(each.question, set()):
                    dropped["duplicate"] += 1
                else:
                    answers[each.question].add(each.answers)
                    made.append(each)
            kept = tuple(question for question in made if len(answers[question.question]) == 1)
            if len(kept) < len(made):
                dropped["answers that contradict"] += len(made) - len(kept)
            yield Written(kept, dropped)


class ModelWriter:
    """Has a model write questions, and keeps those that its snippet answers.

    Args:
        prompt: Jinja text, as `PROMPT.load` gives it.
        num_questions: at most so many are kept per snippet, in the order in which they were written.
        chat: the prompt becomes a user message; else plain text that a base model goes on with.
    """

    def __init__(
        self, engine: Engine, prompt: str, num_questions: int, seed: int, max_new_tokens: int, *, chat: bool = True
    ) -> None:
        self._engine = engine
        self._prompt = compiled(prompt)
        self._num_questions = num_questions
        self._seed = seed
        self._max_new_tokens = max_new_tokens
        self._chat = chat

    def write(self, snippets: Sequence[Snippet]) -> Iterator[Written]:
        """Greedily: one result per snippet, in their order."""
        answers = self._engine.answer(
            [self._ask(text) for text, _ in snippets],
            max_new_tokens=self._max_new_tokens,
            stop_strings=() if self._chat else _BASE_STOPS,
            seed=self._seed,
        )
        for snippet, (answer,) in zip(snippets, answers, strict=True):
            yield self._written(Snippet(*snippet), answer)

    def _ask(self, text: str) -> Ask:
        prompt = self._prompt.render(
            snippet=text, fence=_fence(text), num_questions=self._num_questions, chat=self._chat
        ).strip()
        key = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]
        return Ask(({"role": "user", "content": prompt},) if self._chat else prompt, key=f"questions {key}")

    def _written(self, snippet: Snippet, answer: Answer) -> Written:
        if answer.finish_reason == "error":
            return Written((), Counter({"no answer from the engine": 1}), answer.error or "no reason given")
        text = answer.text if self._chat else f"Q:{answer.text}"
        pairs, dropped = parse_pairs(text, cut_off=answer.finish_reason == "length")
        kept: list[Question] = []
        for pair in pairs:
            checked = sound(*pair, snippet, kept)
            if isinstance(checked, str):
                dropped[checked] += 1
            elif len(kept) == self._num_questions:
                dropped["more than asked for"] += 1
            else:
                kept.append(checked)
        return Written(tuple(kept), dropped)


def _fence(text: str) -> str:
    """Backticks that the text cannot close."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
