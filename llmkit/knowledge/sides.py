"""One or more probes -> what becomes of each question: answered, refused, or left out for one reason.

Memory: about 150 bytes a question, whatever the length of its rows.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from llmkit.knowledge.balance import NUM_LEVELS, digest64, levels, masked
from llmkit.knowledge.conflicts import topic
from llmkit.knowledge.records import ProbeRow
from llmkit.knowledge.rows import right_answers
from llmkit.knowledge.split import entity_key
from llmkit.recipe.stages_knowledge import RefusalsStage

Probe = Callable[[], Iterable[ProbeRow]]
"""Reads a probe's rows from the first on, as often as it is called."""

FATES = (
    "answered",
    "refused",
    "partial",
    "heldout",
    "watched",
    "undecided",
    "maybe_known",
    "weakly_known",
    "not_consistently_wrong",
    "no_answer",
    "became_known",
    "lost",
    "conflict",
    "one_sided",
    "surplus",
)
"""What can become of a question; every one has exactly one of these.

    answered, refused     it is in the rows
    partial               refused, but for what the model says rightly
    heldout               kept for evaluation
    watched               kept for `early_stopping`
    undecided             the judge could not say
    maybe_known, weakly_known  the recipe leaves them out
    not_consistently_wrong  Unknown, but the recipe refuses by Llama 3's rule alone
    no_answer             to be answered, but neither the model nor the file has an answer
    became_known          refused at first, but a later probe knows it
    lost                  known at first, but a later probe gets it wrong
    conflict              a near-duplicate has the opposite label
    one_sided             no question of this wording is on the other side
    surplus               more than the ratio, the balance or `num_rows` takes
"""
CODE = {fate: code for code, fate in enumerate(FATES)}
ANSWERED, REFUSED = CODE["answered"], CODE["refused"]

BECAME_KNOWN, OVER_REFUSED, LOST, TWO_WORDINGS = 1, 2, 4, 8
"""Flags of a question. TWO_WORDINGS: there are two right answers that differ."""


@dataclass
class Survey:
    """All questions, in the order of their first row."""

    fate: bytearray = field(default_factory=bytearray)
    flags: bytearray = field(default_factory=bytearray)
    source: array[int] = field(default_factory=lambda: array("H"))
    """Which probe's row is written."""
    about: array[int] = field(default_factory=lambda: array("Q"))
    topic: array[int] = field(default_factory=lambda: array("Q"))
    levels: array[int] = field(default_factory=lambda: array("Q"))
    number_of: dict[int, int] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    """Rows by what they were: "questions", "repeated" (in one probe), "probed_again" (in a later one)."""

    def __len__(self) -> int:
        return len(self.fate)

    def find(self, row: ProbeRow) -> int | None:
        return self.number_of.get(digest64(row.id))

    def add(self, row: ProbeRow, fate: str, probe: int) -> None:
        self.number_of[digest64(row.id)] = len(self)
        self.fate.append(CODE[fate])
        self.flags.append(0)
        self.source.append(probe)
        self.about.append(digest64(entity_key(row.about)))
        self.topic.append(topic(row))
        self.levels.extend(levels(masked(row.question, row.entity)))

    def count(self, flag: int) -> int:
        return int((np.frombuffer(self.flags, np.uint8) & flag > 0).sum()) if self.flags else 0

    def levels_NL(self) -> np.ndarray:
        return np.frombuffer(self.levels, np.uint64).reshape(-1, NUM_LEVELS)


def survey(probes: Sequence[Probe], stage: RefusalsStage) -> Survey:
    """Read all probes once. A question's fate follows from the first probe that asks it; later ones may change it.

    A question that was to be refused and is answered rightly later, at least as well as the recipe wants it answered
    or left out, loses its refusal ("became_known"), and is answered if its later label is one that is answered. One
    that was to be answered and is refused greedily later is over-refused: it stays, and is drawn first. One that later
    is wrong in every answer is "lost". An entity that one probe holds out is held out.
    """
    found = Survey()
    heldout: set[int] = set()
    for probe, read in enumerate(probes):
        for row in read():
            if row.split == "heldout":
                heldout.add(digest64(entity_key(row.about)))
            number = found.find(row)
            if number is None:
                found.seen["questions"] += 1
                found.add(row, fate_of(row, stage), probe)
                _describe(found, len(found) - 1, row)
            elif found.source[number] == probe:
                found.seen["repeated"] += 1
            else:
                found.seen["probed_again"] += 1
                _update(found, number, row, probe, stage)
    for number, about in enumerate(found.about):
        if about in heldout:
            found.fate[number], found.flags[number] = CODE["heldout"], 0
    return found


def fate_of(row: ProbeRow, stage: RefusalsStage) -> str:
    """What the recipe does with a question of this label, before anything else is looked at."""
    if row.split == "heldout":
        return "heldout"
    if row.label == "Undecided":
        return "undecided"
    if row.label == "Unknown":
        refuse = stage.refuse == "unknown" or row.consistently_wrong
        return "refused" if refuse else "not_consistently_wrong"
    if row.label == "HighlyKnown":
        return "answered"
    maybe = row.label == "MaybeKnown"
    choice = stage.maybe_known if maybe else stage.weakly_known
    left_out = "maybe_known" if maybe else "weakly_known"
    return {"answer": "answered", "refuse": "refused", "leave_out": left_out}[choice]


def _describe(found: Survey, number: int, row: ProbeRow) -> None:
    """What is known of an answered question's answers."""
    if found.fate[number] != ANSWERED:
        return
    right = right_answers(row)
    if not right:
        found.fate[number] = CODE["no_answer"]
    elif len(right) > 1:
        found.flags[number] |= TWO_WORDINGS


def _update(found: Survey, number: int, row: ProbeRow, probe: int, stage: RefusalsStage) -> None:
    before, after = found.fate[number], fate_of(row, stage)
    if row.label == "Undecided" or row.split == "heldout":
        return
    if before == REFUSED and row.num_correct and after != "refused":
        found.flags[number] |= BECAME_KNOWN
        found.fate[number] = CODE["became_known"]
        if after == "answered":
            found.fate[number], found.source[number] = ANSWERED, probe
            _describe(found, number, row)
    elif before == ANSWERED:
        found.flags[number] &= ~OVER_REFUSED
        if refuses(row):
            found.flags[number] |= OVER_REFUSED
        elif not row.num_correct:
            found.flags[number] |= LOST
            found.fate[number] = CODE["lost"]


def refuses(row: ProbeRow) -> bool:
    """Whether at least half of the greedy answers say that they do not know."""
    greedy = [sample.verdict for sample in row.samples if sample.temperature == 0 and sample.verdict != "undecided"]
    return bool(greedy) and 2 * greedy.count("refused") >= len(greedy)
