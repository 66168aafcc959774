"""Answers on disk -> verdicts on disk, some at a time, so that what a judge has decided (and was paid for) is kept.

    verdicts-00012.jsonl   {"id", "verdicts": [...]}, in the order of the answers

Answers that were left undecided before are put to the judge again; those that a model failed to give are not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmkit.errors import UserError
from llmkit.knowledge.judge import Item, Judge
from llmkit.knowledge.records import Question, Verdict
from llmkit.knowledge.store import Row, Steps

OUTAGE = 0.5
"""Share of failures above which a model, writer or judge is taken to be out of order."""
SLICE = 64
"""Answers that an endpoint is asked about before verdicts are kept, and failures counted."""
SAVED_EVERY = 5.0
"""Seconds between two savings of the verdicts on a chunk: rules decide a slice in less than it takes to write it."""


@dataclass(frozen=True)
class Names:
    """Steps that hold the answers and the verdicts."""

    answers: str = "answers"
    verdicts: str = "verdicts"


class Judging:
    """Has the answers of one process's chunks judged.

    Args:
        open_judge: called with the first answer that needs a judge.
        where: for errors, such as "stage 'probe': judge".
        max_undecided: share of answers that the recipe allows to be undecided.
        size: answers per slice.
        on_progress: called with the share of the running chunk that is judged.
    """

    def __init__(
        self,
        steps: Steps,
        names: Names,
        open_judge: Callable[[], Judge],
        *,
        where: str,
        max_undecided: float,
        size: int = SLICE,
        on_progress: Callable[[float], None] = lambda share: None,
    ) -> None:
        self._steps, self._names, self._open = steps, names, open_judge
        self._where, self._max_undecided, self._size = where, max_undecided, size
        self._on_progress = on_progress
        self._judge: Judge | None = None
        self._place, self._slice, self._total = 0, 0, 1
        self._num_asked = self._num_failed = 0

    @property
    def failures(self) -> Counter[str]:
        """Reason -> number of answers that were left undecided."""
        return Counter() if self._judge is None else self._judge.failures

    def chunk(self, index: int, read: Callable[[], Sequence[Question]]) -> None:
        """Judges what is open in a chunk.

        Args:
            read: gives its questions; called if they are needed.

        Raises:
            UserError: the judge seems to be out of order. What it has decided is kept.
        """
        said = [row["answers"] for row in self._steps.read(self._names.answers, index)]
        verdicts = self._known(index, said)
        is_open = open_answers(said, verdicts)
        if not is_open and self._steps.path(self._names.verdicts, index).is_file():
            return
        questions, saved = read(), time.monotonic()
        self._place, self._total = 0, max(len(is_open), 1)
        try:
            for start in range(0, len(is_open), self._size):
                self._decide(questions, is_open[start : start + self._size], verdicts)
                if time.monotonic() - saved > SAVED_EVERY:
                    self._save(index, questions, verdicts)
                    saved = time.monotonic()
        finally:
            self._save(index, questions, verdicts)

    def show(self, done: int, total: int) -> None:
        """Progress of the judge's engine within a slice."""
        self._on_progress((self._place + self._slice * done / max(total, 1)) / self._total)

    def _decide(self, questions: Sequence[Question], part: list[Open], verdicts: list[list[Verdict]]) -> None:
        if self._judge is None:
            self._judge = self._open()
        asked = [(questions[one.question], one.text) for one in part]
        self._slice, before = len(part), self._judge.num_asked
        found = self._judge.judge([Item(q.question, q.answers, text, q.document) for q, text in asked])
        for one, verdict in zip(part, found, strict=True):
            for place in one.places:
                verdicts[one.question][place] = verdict
        self._place, self._slice = self._place + len(part), 0
        self.show(0, 1)
        self._watch(self._judge.num_asked - before, found.count("undecided"))

    def _watch(self, num_asked: int, num_failed: int) -> None:
        """An endpoint that died is noticed within a slice of what it was really asked about: rules decide the rest."""
        self._num_asked += num_asked
        self._num_failed += num_failed
        if self._num_asked < SLICE:
            return
        if self._num_failed / self._num_asked > max(OUTAGE, self._max_undecided):
            raise too_many_undecided(self._where, self._num_failed, self._num_asked, self._max_undecided, self.failures)
        self._num_asked = self._num_failed = 0

    def _known(self, index: int, said: list[list[Row]]) -> list[list[Verdict]]:
        """Verdicts of an earlier start, else undecided for all."""
        if self._steps.path(self._names.verdicts, index).is_file():
            return [row["verdicts"] for row in self._steps.read(self._names.verdicts, index)]
        return [["undecided"] * len(answers) for answers in said]

    def _save(self, index: int, questions: Sequence[Question], verdicts: list[list[Verdict]]) -> None:
        rows = ({"id": q.id, "verdicts": own} for q, own in zip(questions, verdicts, strict=True))
        self._steps.write(self._names.verdicts, index, rows)


class Open(NamedTuple):
    """One answer to decide on."""

    question: int
    """Its place in the chunk."""
    text: str
    places: list[int]
    """Of all equal answers to the question: they are judged once."""


def open_answers(said: list[list[Row]], verdicts: list[list[Verdict]]) -> list[Open]:
    found: dict[tuple[int, str], list[int]] = {}
    for i, answers in enumerate(said):
        for j, answer in enumerate(answers):
            if verdicts[i][j] == "undecided" and answer["finish_reason"] != "error":
                found.setdefault((i, answer["text"]), []).append(j)
    return [Open(*key, places) for key, places in found.items()]


def too_many_undecided(where: str, number: int, total: int, allowed: float, failures: Counter[str]) -> UserError:
    what = f"left {number} of {total} answers undecided ({number / total:.1%}, allowed {allowed:.1%})"
    what += "; they count neither as right nor as wrong"
    what += f"; most often: {failures.most_common(1)[0][0]}" if failures else ""
    cure = "mend or change the judge and run again: the answers and all decided verdicts are kept"
    return UserError(where, what, f"{cure}; or raise 'judge.max_undecided'")
