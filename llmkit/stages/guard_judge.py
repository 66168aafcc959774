"""A model as a guard's gold: is this answer better than the one that the first model gave to the same prompt?

Each pair is shown in both orders, as a `rank` stage's judge shows them; what the orders contradict is no better.

guard-start.jsonl    the first model's answers: what is compared with, also by a start that goes on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from accelerate.utils import gather_object

from llmkit.errors import UserError
from llmkit.knowledge.store import read_rows, writing
from llmkit.preference.rankings import Decision
from llmkit.preference.rollouts import Completion, Item
from llmkit.recipe.preference import RankJudgeSpec
from llmkit.stages.common import Worker
from llmkit.stages.engines import check_engine, own_engine
from llmkit.stages.rank_judge import PROMPT, RankJudge, told_cut

FILE = "guard-start.jsonl"
START, NOW = "start", "now"
SCORES = {START: 0.0, NOW: 1.0}
EVEN = 0.5
"""Of an answer that is as good, or on which the judge came to no order."""


class StartJudge:
    """Called as any `llmkit.stages.preferring.Judge`: 1 for an answer that is better than the first model's, 0 for a
    worse one. The answers of the first call are the first model's.

    Args:
        max_undecided: share of the pairs without a readable order above which the stage stops.
    """

    def __init__(self, worker: Worker, judge: RankJudge, where: str, max_undecided: float) -> None:
        self._worker, self._judge, self._where, self._max_undecided = worker, judge, where, max_undecided
        self._path = worker.dir.path / FILE
        rows = read_rows(self._path) if self._path.is_file() else ()
        self._start: dict[str, str] = {row["place"]: row["text"] for row in rows}
        self._cut = ""

    def __call__(
        self,
        prompts: Sequence[Any],
        texts: Sequence[str],
        columns: Sequence[Mapping[str, Any]] | None = None,
        places: Sequence[str] | None = None,
    ) -> np.ndarray:
        """All processes call this. Raises UserError where the judge leaves too many pairs without an order."""
        assert places is not None
        if not self._start:
            self._begin(dict(zip(places, texts, strict=True)))
        items = [
            Item(str(number), prompt, (Completion(START, self._start[place]), Completion(NOW, text)))
            for number, (prompt, text, place) in enumerate(zip(prompts, texts, places, strict=True))
            if text.strip() != self._start[place].strip()
        ]
        if not self._cut and (cut := told_cut(items)):
            # of the first look at which it happens: one warning, not one a look
            self._cut = cut
            self._worker.warn(f"guard.judge: {cut}")
        decided = {decision.item: _score(decision) for decision in self._judge.rank(items)}
        self._count(len(items) - len(decided), len(texts))
        return np.array([decided.get(str(number), EVEN) for number in range(len(texts))])

    def _begin(self, own: Mapping[str, str]) -> None:
        for place, text in gather_object(list(own.items())):
            self._start[place] = text
        if self._worker.is_main:
            with writing(self._path) as write:
                for place, text in self._start.items():
                    write({"place": place, "text": text})

    def _count(self, own_left: int, own: int) -> None:
        """Of all processes together: a share of one process's few pairs says little."""
        counts: list[tuple[int, int]] = gather_object([(own_left, own)])
        num_left, num = (sum(each) for each in zip(*counts, strict=True))
        if not num_left:
            return
        why = self._judge.failures.most_common(1)
        what = f"{num_left} of {num} pairs have no readable order{f' ({why[0][0]})' if why else ''}"
        if num_left / num > self._max_undecided:
            cure = "take a stronger judge, or raise 'max_undecided'; the stage goes on from its last checkpoint"
            raise UserError(self._where, what, cure)
        self._worker.warn(f"guard.judge: {what}: they count as even")


def _score(decision: Decision) -> float:
    return SCORES[decision.groups[0][0]] if len(decision.groups) > 1 else EVEN


def check_guard_judge(spec: RankJudgeSpec) -> None:
    """Finds before the model is loaded what would stop the first look. Raises UserError or ModelError."""
    PROMPT.load(spec.prompt)
    check_engine(spec, spec.by)


def guard_judge(worker: Worker, spec: RankJudgeSpec, where: str) -> StartJudge:
    """The recipe's judge, its model loaded beside the policy."""
    engine, chat = own_engine(spec, spec.by)
    judge = RankJudge(engine, spec, spec.name_or_path or spec.by, worker.file.seed, chat=chat)
    return StartJudge(worker, judge, where, spec.max_undecided)
