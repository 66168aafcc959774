"""Writes the rows that `dataset.choose` took.

data/train.jsonl       what to answer and what to refuse
data/pairs.jsonl       preference pairs (`rows.pairs`), without those that teach unknown answers
data/pairs_all.jsonl   with them
data/tool_calls.jsonl  a call of the search tool instead of every refusal; with `lookup` also what it finds, answered
data/questions.jsonl   {question, answers, entity, refused}: what is asked there, to practise with the reward `abstain`
data/watched.jsonl     the same about other entities, for `early_stopping`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmkit.knowledge.balance import SURFACE_ROWS, Surface, masked, surface
from llmkit.knowledge.dataset import Entries, first_rows
from llmkit.knowledge.lookups import Lookups
from llmkit.knowledge.records import ProbeRow
from llmkit.knowledge.refusing import refusals
from llmkit.knowledge.rows import (
    PAIR_KINDS,
    TAUGHT,
    Decks,
    Row,
    conversation,
    honest,
    pairs,
    partial_answer,
    right_answers,
    tool_conversation,
)
from llmkit.knowledge.sides import CODE, Probe, Survey
from llmkit.knowledge.store import writing
from llmkit.recipe.stages_knowledge import RefusalsStage

FILES = ("train", "pairs", "pairs_all", "tool_calls", "questions")
WATCHED = "watched"
NUM_EXAMPLES = 5

Put = dict[str, Callable[[Row], None]]


class Example(NamedTuple):
    question: str
    answer: str
    refused: bool


@dataclass
class Written:
    """What was written, and what the wording of it gives away."""

    rows: Counter[str] = field(default_factory=Counter)
    """Rows of train.jsonl: "answered", "refused", "partial"."""
    pairs: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(PAIR_KINDS, 0)))
    refusals: Counter[str] = field(default_factory=Counter)
    """Refusal -> how often it was used."""
    examples: list[Example] = field(default_factory=list)
    surface: Surface | None = None
    num_entities: dict[str, int] = field(default_factory=dict)
    """Distinct entities of the "answered" and the "refused" rows."""
    without_entity: Counter[str] = field(default_factory=Counter)
    """Questions of either side that name none, each of which counts as one."""


class Writer:
    """Turns rows of a probe into training rows, one at a time."""

    def __init__(self, chosen: Entries, stage: RefusalsStage, seed: int, lookups: Lookups | None) -> None:
        self.chosen, self.stage, self.done, self._lookups = chosen, stage, Written(), lookups
        texts_of = partial(refusals, stage.refusals)
        self.refusals, self.rejected = Decks(texts_of, seed), Decks(texts_of, seed + 1)
        rng = np.random.default_rng([seed, 2])
        self._measured = _drawn(chosen, SURFACE_ROWS, rng)
        self._shown = _drawn(chosen, NUM_EXAMPLES, rng)
        self.wordings: list[str] = []
        self.refused: list[bool] = []
        self.abouts: list[int] = []

    def add(self, found: Survey, number: int, row: ProbeRow, put: Put) -> None:
        """Write the rows of one question, if it has any."""
        start, end = np.searchsorted(self.chosen.number_E, [number, number + 1]).tolist()
        for entry in range(start, end):
            refused, copy = bool(self.chosen.refused_E[entry]), int(self.chosen.copy_E[entry])
            answer = self._refusal(found, number, row) if refused else self._answer(found, number, row, copy)
            if answer is None:
                continue
            put["train"](conversation(row.question, answer))
            put["tool_calls"](self._with_tools(row, None if refused else answer))
            if copy == 0:
                self._pairs(row, refused, answer, put)
                put["questions"](_question_row(row, refused))
                self.done.without_entity["refused" if refused else "answered"] += not row.entity.strip()
            self._note(found, number, entry, Example(row.question, answer, refused), row)

    def _with_tools(self, row: ProbeRow, answer: str | None) -> Row:
        if self._lookups is not None:
            return self._lookups.row(row, answer)
        return tool_conversation(row.question, answer, self.stage.search_tool)

    def _refusal(self, found: Survey, number: int, row: ProbeRow) -> str:
        if self.stage.keep_partial and (part := partial_answer(row)):
            found.fate[number] = CODE["partial"]
            self.done.rows["partial"] += 1
            return honest(part, row.language or self.stage.refusals.language)
        self.done.rows["refused"] += 1
        return self.refusals.deal(row.language)

    def _answer(self, found: Survey, number: int, row: ProbeRow, copy: int) -> str | None:
        right = right_answers(row)
        if not right:
            # only a shuffled label can ask for an answer where there is none
            found.fate[number] = CODE["no_answer"]
            return None
        self.done.rows["answered"] += 1
        return right[copy % len(right)]

    def _pairs(self, row: ProbeRow, refused: bool, answer: str, put: Put) -> None:
        for pair in pairs(row, refused=refused, refusal=answer if refused else self.rejected.deal(row.language)):
            self.done.pairs[pair["kind"]] += 1
            put["pairs_all"](pair)
            if pair["kind"] not in TAUGHT:
                put["pairs"](pair)

    def _note(self, found: Survey, number: int, entry: int, example: Example, row: ProbeRow) -> None:
        if entry in self._shown:
            self.done.examples.append(example)
        if entry in self._measured:
            self.wordings.append(masked(row.question, row.entity))
            self.refused.append(example.refused)
            self.abouts.append(found.about[number])


def write(
    found: Survey,
    probes: Sequence[Probe],
    chosen: Entries,
    stage: RefusalsStage,
    *,
    seed: int,
    folder: Path,
    lookups: Lookups | None = None,
) -> Written:
    """Writes all files, each whole or not at all, and measures what was written. Sets the fate "partial".

    Args:
        folder: where the files go.
        lookups: what becomes of refusals in `tool_calls.jsonl`; None: a call of the search tool alone.

    Raises:
        RunError: the disk is full.
        DataError: there are no refusals in the language of a question.
    """
    chosen, watched = _set_aside(found, chosen, stage.watched, seed)
    writer = Writer(chosen, stage, seed, lookups)
    with ExitStack() as stack:
        put = {name: stack.enter_context(writing(folder / f"{name}.jsonl")) for name in (*FILES, WATCHED)}
        for number, row in first_rows(found, probes):
            writer.add(found, number, row, put)
            if (refused := watched.get(number)) is not None:
                put[WATCHED](_question_row(row, refused))
    done = writer.done
    done.refusals = writer.refusals.used
    about_E = np.frombuffer(found.about, np.uint64)[chosen.number_E]
    for name, side in (("refused", True), ("answered", False)):
        done.num_entities[name] = len(np.unique(about_E[chosen.refused_E == side]))
    done.surface = surface(writer.wordings, writer.refused, writer.abouts, seed)
    return done


def _set_aside(found: Survey, chosen: Entries, share: float, seed: int) -> tuple[Entries, dict[int, bool]]:
    """What stays, and the questions of a share of the entities: number -> whether it is to be refused."""
    about_E = np.frombuffer(found.about, np.uint64)[chosen.number_E]
    abouts = np.random.default_rng([seed, 3]).permutation(np.unique(about_E))
    aside_E = np.isin(about_E, abouts[: round(share * len(abouts))])
    aside = chosen[np.flatnonzero(aside_E)]
    for number in aside.number_E.tolist():
        found.fate[number] = CODE["watched"]
    watched = dict(zip(aside.number_E.tolist(), aside.refused_E.tolist(), strict=True))
    return chosen[np.flatnonzero(~aside_E)], watched


def _question_row(row: ProbeRow, refused: bool) -> Row:
    return {"question": row.question, "answers": list(row.answers), "entity": row.entity, "refused": refused}


def _drawn(chosen: Entries, size: int, rng: np.random.Generator) -> set[int]:
    """Up to `size` entries of each side."""
    sides = [np.flatnonzero((chosen.refused_E == side) & (chosen.copy_E == 0)) for side in (True, False)]
    return {int(entry) for rows in sides for entry in rng.permutation(rows)[:size]}
