"""Questions that several rows ask: a model that sees the question alone cannot tell them apart.

Rows are read one at a time, so that another row's answers come when the first has passed. `Seen` remembers what was
asked, and which wordings came with several sets of accepted answers; `settle` then says what becomes of these.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import reduce

from llmkit.knowledge.balance import digest64
from llmkit.knowledge.records import Question
from llmkit.knowledge.templates import Bad


@dataclass
class Seen:
    """What was asked before. Memory: two 64-bit numbers a question."""

    first: dict[int, int] = field(default_factory=dict)
    """Wording -> id of the first question that has it."""
    disputed: set[int] = field(default_factory=set)
    """Wordings that came with several sets of accepted answers."""

    def again(self, question: Question) -> bool:
        """Whether it repeats the first of its wording, answers and all. Remembers it."""
        key, own = wording(question), int(question.id, 16)
        if key not in self.first:
            self.first[key] = own
            return False
        if self.first[key] != own:
            self.disputed.add(key)
        return self.first[key] == own


def wording(question: Question) -> int:
    """64 bits that are equal for questions that differ in case, blanks or their last punctuation alone."""
    return digest64(_folded(question.question))


@dataclass(frozen=True)
class Settled:
    """What becomes of the questions of disputed wordings."""

    kept: dict[int, Question]
    """Wording -> the question that stands for all of them."""
    contradictory: list[Bad]
    """No accepted answer is common to those of one wording, so that none of them can be asked."""
    num_merged: int
    """Questions whose answers went to another's."""


def settle(disputed: Iterable[Question]) -> Settled:
    """One question for all of a wording, with all their accepted answers, where some answer is common to them."""
    by_wording: dict[int, dict[str, Question]] = defaultdict(dict)
    num = 0
    for question in disputed:
        by_wording[wording(question)].setdefault(question.id, question)
        num += 1
    kept, contradictory = dict[int, Question](), list[Bad]()
    for key, same in by_wording.items():
        asked = list(same.values())
        if reduce(frozenset.intersection, map(_answers, asked)):
            accepted = dict.fromkeys(answer for question in asked for answer in question.answers)
            kept[key] = replace(asked[0], answers=tuple(accepted))
        else:
            contradictory += map(contradiction, asked)
    return Settled(kept, contradictory, num - len(kept) - len(contradictory))


def contradiction(question: Question) -> Bad:
    """A question whose accepted answers cannot all be right."""
    detail = f"{question.question} {' | '.join(question.answers)}"
    return Bad(question.source, "answers that contradict", detail)


def _answers(question: Question) -> frozenset[str]:
    return frozenset(map(_folded, question.answers))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .?!")
