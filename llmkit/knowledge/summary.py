"""What an interrogation left out and what it found, counted row by row: for the manifest, and as warnings in words."""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from llmkit.artifacts.manifest import ProbeExample, ProbeSummary, ShownAnswer
from llmkit.knowledge.answering import thoughts_alone
from llmkit.knowledge.records import ProbeRow
from llmkit.knowledge.store import read_rows, writing
from llmkit.recipe.knowledge import Label

LABELS: tuple[Label, ...] = get_args(Label)
NUM_EXAMPLES = 10
NEARLY_ALL = 0.95
"""Share of questions with one label from which on the stage warns."""
MANY_EMPTY = 0.5
"""Share of empty answers from which on the stage warns."""
SHOWN_CHARS = 500
"""Of a question or answer that is shown as an example."""


CONTRADICTORY, FAILED = "answers that contradict", "no answer from the engine"
"""Reasons of other files that are warned of."""
HARMLESS = ("duplicate", "template does not apply")
"""Reasons that are counted and not written to rejected.jsonl: nothing is wrong with such rows."""


@dataclass
class Counts:
    """What was left out, by reason."""

    documents: Counter[str] = field(default_factory=Counter)
    """`read`, `rejected`, `without facts`."""
    snippets: Counter[str] = field(default_factory=Counter)
    """Pieces of documents that hold no facts."""
    written: Counter[str] = field(default_factory=Counter)
    """What the writer wrote and was not taken, and snippets on which it failed."""
    questions: Counter[str] = field(default_factory=Counter)
    """Rows that are no question, and repeats."""

    @classmethod
    def read(cls, path: Path) -> Counts:
        (row,) = read_rows(path)
        return cls(**{name: Counter(numbers) for name, numbers in row.items()})

    def write(self, path: Path) -> None:
        with writing(path) as write:
            # not asdict: it makes a Counter of a Counter's items
            write({name: dict(counter) for name, counter in vars(self).items()})

    def metrics(self) -> dict[str, float]:
        """`snippets_heading`, `questions_duplicate`, ...: one number a reason."""
        found: dict[str, float] = {}
        for name, counter in vars(self).items():
            found |= {f"{name}_{reason.replace(' ', '_')}": number for reason, number in sorted(counter.items())}
        return found

    def warnings(self, num_asked: int) -> list[str]:
        """`num_asked`: questions that are left."""
        found = []
        left_out = Counter({reason: num for reason, num in self.questions.items() if reason not in HARMLESS})
        if left_out:
            left_out["duplicate"] = self.questions["duplicate"]
            reasons = ", ".join(f"{reason} {num}" for reason, num in (+left_out).most_common())
            num = left_out.total()
            found.append(
                f"{num} of {num + num_asked} rows were left out ({reasons}); rejected.jsonl says which and why"
            )
        if count := self.written[CONTRADICTORY]:
            found.append(
                f"{count} written questions were left out because their accepted answers contradict each other"
            )
        if count := self.written[FAILED]:
            found.append(f"the writer failed on {count} snippets, which are not asked about")
        return found

    def words(self) -> str:
        """`questions: duplicate 2, empty answer 1; snippets: heading 3`."""
        parts = {name: (+counter).most_common() for name, counter in vars(self).items() if +counter}
        shown = [f"{name}: " + ", ".join(f"{key} {n}" for key, n in numbers) for name, numbers in parts.items()]
        return "; ".join(shown) or "all sources are empty"


@dataclass
class Tally:
    """Counts over the rows of a probe. Memory does not grow with their number."""

    labels: Counter[str] = field(default_factory=Counter)
    by_group: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    moved: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    """Of the answers; `error`: the model could not be asked."""
    errors: Counter[str] = field(default_factory=Counter)
    """Why it could not, with `#` for numbers -> number of answers."""
    first_error: dict[str, str] = field(default_factory=dict)
    """The same, as it was said the first time."""
    num_consistently_wrong: int = 0
    num_heldout: int = 0
    num_only_thought: int = 0
    """Answers that are reasoning and nothing else."""
    _examples: dict[str, list[tuple[int, ProbeRow]]] = field(default_factory=dict)

    def add(self, row: ProbeRow, earlier: str | None = None, errors: Iterable[str] = ()) -> None:
        """
        Args:
            earlier: the question's label in an earlier probe.
            errors: of its answers; empty for those that the model gave.
        """
        self.labels[row.label] += 1
        self.by_group[row.group][row.label] += 1
        if earlier is not None and earlier != row.label:
            self.moved[f"{earlier} -> {row.label}"] += 1
        for sample in row.samples:
            self.verdicts["error" if sample.finish_reason == "error" else sample.verdict] += 1
        # an error names lengths and numbers, of which a million questions have a million
        for error in errors:
            if error:
                pattern = re.sub(r"\d+", "#", error)
                self.errors[pattern] += 1
                self.first_error.setdefault(pattern, error)
        self.num_consistently_wrong += row.consistently_wrong
        self.num_heldout += row.split == "heldout"
        self.num_only_thought += sum(sample.only_thought for sample in row.samples)
        # the smallest ids: as good as drawn, and the same in any order
        held = self._examples.setdefault(row.label, [])
        entry = (-int(row.id, 16), row)
        if len(held) < NUM_EXAMPLES:
            heapq.heappush(held, entry)
        elif entry[0] > held[0][0]:
            heapq.heapreplace(held, entry)

    @property
    def num_questions(self) -> int:
        return self.labels.total()

    @property
    def num_answers(self) -> int:
        return self.verdicts.total()

    def share(self, label: str) -> float:
        return self.labels[label] / max(self.num_questions, 1)

    @property
    def num_judged(self) -> int:
        """Answers that the judge saw."""
        return self.num_answers - self.verdicts["error"]

    @property
    def undecided(self) -> float:
        """Share of them on which it failed."""
        return self.verdicts["undecided"] / max(self.num_judged, 1)

    def summary(self) -> ProbeSummary:
        groups = {name: dict(counts) for name, counts in sorted(self.by_group.items()) if name}
        return ProbeSummary(
            num_questions=self.num_questions,
            num_answers=self.num_answers,
            labels={label: self.labels[label] for label in LABELS if self.labels[label]},
            by_group=groups,
            num_consistently_wrong=self.num_consistently_wrong,
            num_undecided=self.verdicts["undecided"],
            moved=dict(self.moved.most_common()),
            examples=[_example(row) for row in self._spread()],
        )

    def metrics(self) -> dict[str, float]:
        counts = {
            "num_questions": self.num_questions,
            "num_answers": self.num_answers,
            "num_heldout": self.num_heldout,
            "num_consistently_wrong": self.num_consistently_wrong,
            "num_undecided": self.verdicts["undecided"],
            "num_empty": self.verdicts["empty"],
            "num_only_thought": self.num_only_thought,
            "num_refused": self.verdicts["refused"],
            "num_not_asked": self.verdicts["error"],
        }
        return counts | {f"share_{label}": round(self.share(label), 6) for label in LABELS}

    def warnings(self) -> list[str]:
        found = []
        if self.share("Unknown") >= NEARLY_ALL:
            found.append(
                f"{self.share('Unknown'):.1%} of the questions are Unknown: the model may not have been trained on "
                "these facts, or it answers in another form than the accepted answers"
            )
        if self.share("HighlyKnown") >= NEARLY_ALL:
            found.append(
                f"{self.share('HighlyKnown'):.1%} of the questions are HighlyKnown: hardly any is left that the model "
                "could be taught to refuse"
            )
        if count := self.verdicts["undecided"]:
            found.append(
                f"the judge left {count} of {self.num_answers} answers undecided; they count neither as right nor as "
                f"wrong, and {self.labels['Undecided']} questions have no label"
            )
        if count := self.verdicts["error"]:
            often, number = next(iter(self.errors.most_common(1)), ("", count))
            shown = self.first_error.get(often, "no reason given")
            shown += f" ({number} times)" if len(self.errors) > 1 else ""
            found.append(f"{count} of {self.num_answers} answers could not be had; most often, as here: {shown}")
        if self.num_only_thought:
            found.append(thoughts_alone(self.num_only_thought, self.num_answers, "ask.max_new_tokens"))
        if self.verdicts["empty"] >= MANY_EMPTY * max(self.num_answers, 1):
            found.append(
                f"{self.verdicts['empty']} of {self.num_answers} answers are empty or repeat themselves endlessly"
            )
        return found

    def _spread(self) -> list[ProbeRow]:
        """Examples of every label in turn, until there are enough."""
        columns = [sorted(self._examples.get(label, []), key=lambda entry: -entry[0]) for label in LABELS]
        ranked = [(place, order, row) for order, held in enumerate(columns) for place, (_, row) in enumerate(held)]
        kept = sorted(ranked, key=lambda entry: entry[:2])[:NUM_EXAMPLES]
        return [row for _, _, row in sorted(kept, key=lambda entry: (entry[1], entry[0]))]


def _example(row: ProbeRow) -> ProbeExample:
    return ProbeExample(
        question=row.question[:SHOWN_CHARS],
        answers=[answer[:SHOWN_CHARS] for answer in row.answers[:5]],
        label=row.label,
        group=row.group,
        shown=[
            ShownAnswer(text=sample.text[:SHOWN_CHARS], verdict=sample.verdict, temperature=sample.temperature)
            for sample in row.samples
        ],
    )
