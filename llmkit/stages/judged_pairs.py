"""Two answers to a prompt, of which a model says which is better: another one than those that are measured, or the
measured one itself. Both orders are asked (`RankJudge`); what they contradict ties."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from accelerate import PartialState
from accelerate.utils import gather_object

from llmkit.chat.ask import Engine
from llmkit.errors import UserError
from llmkit.preference.rollouts import Completion, Item
from llmkit.recipe.preference import PreferenceSpec, RankJudgeSpec
from llmkit.stages.common import Worker
from llmkit.stages.engines import own_engine
from llmkit.stages.problems import SEED
from llmkit.stages.rank_judge import RankJudge, told_cut

FIRST, SECOND = "first", "second"


class Two(NamedTuple):
    """Two answers to one prompt. `key`: of its own."""

    key: str
    prompt: Any
    first: str
    second: str


def shares(judge: RankJudge, pairs: Sequence[Two]) -> list[float | None]:
    """1 where the first answer is better, 0 where the second is, 0.5 where they tie; None: no readable reply."""
    items = _items(pairs)
    differ = [item for item, two in zip(items, pairs, strict=True) if two.first.strip() != two.second.strip()]
    ranks = {made.item: made.ranks for made in judge.rank(differ)}
    found: dict[str, float | None] = {item.id: 0.5 for item in items} | {item.id: None for item in differ}
    for key, own in ranks.items():
        found[key] = 1.0 if own[FIRST] < own[SECOND] else 0.5 if own[FIRST] == own[SECOND] else 0.0
    return [found[two.key] for two in pairs]


def _items(pairs: Sequence[Two]) -> list[Item]:
    return [Item(two.key, two.prompt, (Completion(FIRST, two.first), Completion(SECOND, two.second))) for two in pairs]


def judged_wins(worker: Worker, state: PartialState, spec: PreferenceSpec, pairs: Sequence[Two]) -> list[float | None]:
    """What the evaluation's judge says of a model's answers and its baseline's; every process gets the same.

    Raises:
        UserError: it leaves more of them undecided than the recipe allows.
    """
    assert spec.judge is not None
    engine, chat = own_engine(spec.judge, spec.judge.by)
    judge = RankJudge(engine, spec.judge, spec.judge.name_or_path or "", SEED, chat=chat)
    if cut := told_cut(_items(pairs)):
        worker.warn(f"{spec.name}: judge: {cut}")
    own = shares(judge, pairs[state.process_index :: state.num_processes])
    places = range(state.process_index, len(pairs), state.num_processes)
    every: list[tuple[int, float | None]] = gather_object(list(zip(places, own, strict=True)))
    found = [value for _, value in sorted(every, key=lambda pair: pair[0])]
    num_left = found.count(None)
    if num_left and num_left / len(found) > spec.judge.max_undecided:
        reasons = judge.failures.most_common(1)
        what = f"left {num_left} of {len(found)} prompts undecided{f': {reasons[0][0]}' if reasons else ''}"
        cure = "mend or change the judge and run again, or raise 'judge.max_undecided'"
        raise UserError(f"stage '{worker.file.stage.name}': {spec.name}: judge", what, cure)
    return found


class ByItself:
    """The measured model asked which of two of its own answers is better, where they are not equally good.

    Args:
        num: pairs of a prompt that it is asked about.
    """

    def __init__(self, engine: Engine, num: int, *, chat: bool) -> None:
        self._judge = RankJudge(engine, RankJudgeSpec(by="self"), "self", SEED, chat=chat)
        self._num = num

    def __call__(
        self, key: str, prompt: Any, texts: Sequence[str], gold: Sequence[float]
    ) -> list[tuple[int, int, float]]:
        """(better, worse, how far the model says so: 1, 0, or 0.5 where it cannot tell) of each pair of answers."""
        places = [(i, j) for i, j in combinations(range(len(texts)), 2) if gold[i] != gold[j] and texts[i] != texts[j]]
        better = [(i, j) if gold[i] > gold[j] else (j, i) for i, j in places[: self._num]]
        asked = [Two(f"{key} {i} {j}", prompt, texts[i], texts[j]) for i, j in better]
        return [(i, j, 0.5 if s is None else s) for (i, j), s in zip(better, shares(self._judge, asked), strict=True)]
