"""Evaluations of answers that nobody can check, inside the evaluate stage.

evals/<name>.jsonl     every prompt with the first answer, and what each metric says of it

Which prompts are asked, and with which random numbers, does not depend on the run's seed. Processes share them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from llmkit.chat.ask import Answer, Engine
from llmkit.data.problems import Problem, Problems
from llmkit.evaluate.results import Document, TaskResult, mean_of, read_documents
from llmkit.preference.watch import is_degenerate
from llmkit.recipe.preference import PreferenceSpec
from llmkit.stages.common import Worker
from llmkit.stages.honesty import DOCUMENTS
from llmkit.stages.judged_pairs import ByItself, Two, judged_wins
from llmkit.stages.preferring import (
    Judge,
    ModelJudge,
    check_renders,
    combined,
    judged_by,
    labelled_by,
    open_rewards,
    score_texts,
    warn_of_seen,
)
from llmkit.stages.problems import SEED, frozen
from llmkit.stages.prompting import ask_of
from llmkit.stages.solving import check_answers

SLICE = 64
"""Prompts that are answered at a time."""
GOLD, JUDGED = "gold", "judge_win"


def prepare(worker: Worker, specs: Sequence[PreferenceSpec], *, chat: bool) -> list[Problems]:
    """The prompts, before the model is loaded. Raises DataError where they cannot be read."""
    return [frozen(worker, spec, spec.prompts, chat=chat) for spec in specs]


@dataclass(frozen=True)
class Answered:
    """One prompt with N answers: how good they are, how a reward model scores them, how likely the policy finds them,
    and which of two it says is better."""

    place: int
    texts: list[str]
    gold: list[float]
    """Empty where nothing says how good a single answer is."""
    picked: list[float]
    """By the reward model; empty without one."""
    logprob: list[float]
    num_tokens: int
    """Of the first."""
    is_cut: bool
    itself: list[tuple[int, int, float]] = field(default_factory=list)
    """See `ByItself`."""


def evaluate_preference(
    worker: Worker, state: PartialState, spec: PreferenceSpec, prompts: Problems, engine: Engine, model: str
) -> TaskResult:
    """All metrics; see `numbers_of`, and win rates where a baseline was measured before. Every process gets the same.

    Args:
        model: the stage whose model it is.
    """
    listed = list(prompts)
    judges = _Judges(worker, spec)
    judges.check(listed, f"stage '{worker.file.stage.name}': {spec.name}")
    for name in judges.models:
        warn_of_seen(worker, name, listed, f"of '{spec.name}'")
    itself = ByItself(engine, spec.self_pairs, chat=not isinstance(listed[0].prompt, str)) if spec.self_pairs else None
    places = range(state.process_index, len(listed), state.num_processes)
    own: list[Answered] = []
    for start in range(0, len(places), SLICE):
        part = places[start : start + SLICE]
        own += _answered(part, [listed[place] for place in part], spec, engine, judges, itself)
        worker.log(f"judge {spec.name}", len(own), len(places))
    every: list[Answered] = gather_object(own)
    made = sorted(every, key=lambda one: one.place)
    asked = [listed[one.place].asked for one in made]
    before = _of_baseline(worker, spec, asked, model)
    numbers = numbers_of(made, asked, spec)
    if before and spec.has_gold:
        wins = [_sign(one.gold[0] - other.metrics[GOLD]) for one, other in zip(made, before, strict=True)]
        numbers["gold_win_rate"] = wins
    judged: list[float | None] = [None] * len(made)
    if before and spec.judge:
        problems = [listed[one.place] for one in made]
        pairs = [
            Two(problem.key, problem.prompt, one.texts[0], other.completion)
            for problem, one, other in zip(problems, made, before, strict=True)
        ]
        judged = judged_wins(worker, state, spec, pairs)
        numbers["judge_win_rate"] = [won for won in judged if won is not None]
        numbers["judge_undecided"] = [float(won is None) for won in judged]
    metrics = [mean_of(name, values) for name, values in numbers.items() if values]
    documents = [
        Document(
            doc_id=one.place,
            prompt=listed[one.place].asked,
            target="",
            completion=one.texts[0],
            metrics=({GOLD: one.gold[0]} if one.gold else {}) | ({JUDGED: won} if won is not None else {}),
        )
        for one, won in zip(made, judged, strict=True)
    ]
    return TaskResult(spec.name, metrics, documents)


class _Judges:
    """Who says how good an answer is, and whose choice is measured."""

    def __init__(self, worker: Worker, spec: PreferenceSpec) -> None:
        folder = {name: Path(path) for name, path in worker.file.data_stages.items()}
        self.gold: Judge | None = labelled_by(spec.labeller) if spec.labeller else None
        if spec.gold:
            self.gold = judged_by(folder[spec.gold])
        self._gold = spec.gold
        self._spec = spec.reward_model
        self._names = spec.reward_model.from_ if spec.reward_model else []
        self._models = [open_rewards(folder[name], device=PartialState().device) for name in self._names]

    @property
    def models(self) -> list[str]:
        """Stages of the reward models that judge or choose."""
        return [*([self._gold] if self._gold else []), *self._names]

    def check(self, prompts: Sequence[Problem], where: str) -> None:
        """Raises UserError where the reward models cannot read the prompts, before any is answered."""
        for name, models in zip(self._names, self._models, strict=True):
            check_renders(models, prompts, f"{where}: reward_model '{name}'")
        if isinstance(self.gold, ModelJudge):
            check_renders(self.gold.models, prompts, f"{where}: gold")

    def picked(self, prompts: Sequence[Any], texts: Sequence[str]) -> np.ndarray | None:
        """Scores of the reward model, (N,); None without one."""
        if self._spec is None:
            return None
        scores = [score_texts(models, prompts, texts) for models in self._models]
        return combined(np.concatenate(scores, axis=1), self._spec)


def _answered(
    places: Sequence[int],
    problems: Sequence[Problem],
    spec: PreferenceSpec,
    engine: Engine,
    judges: _Judges,
    itself: ByItself | None,
) -> list[Answered]:
    asks = [ask_of(problem, problem.key, (spec.temperature,) * spec.num_samples) for problem in problems]
    made: list[list[Answer]] = list(engine.answer(asks, max_new_tokens=spec.max_new_tokens, seed=SEED))
    for problem, given in zip(problems, made, strict=True):
        check_answers(problem, given)
    asked = [problem for problem in problems for _ in range(spec.num_samples)]
    prompts, texts = [one.prompt for one in asked], [answer.text for given in made for answer in given]
    rows = [one.columns for one in asked], [one.place for one in asked]
    gold_N = judges.gold(prompts, texts, *rows) if judges.gold else None
    picked_N = judges.picked(prompts, texts)
    found = []
    for row, (place, given) in enumerate(zip(places, made, strict=True)):
        part = slice(row * spec.num_samples, (row + 1) * spec.num_samples)
        gold, problem = [] if gold_N is None else gold_N[part].tolist(), problems[row]
        found.append(
            Answered(
                place=place,
                texts=texts[part],
                gold=gold,
                picked=[] if picked_N is None else picked_N[part].tolist(),
                logprob=[float(answer.logprob or 0.0) for answer in given],
                num_tokens=given[0].num_tokens or 0,
                is_cut=given[0].finish_reason == "length",
                itself=itself(problem.key, problem.prompt, texts[part], gold) if itself else [],
            )
        )
    return found


def numbers_of(made: Sequence[Answered], asked: Sequence[str], spec: PreferenceSpec) -> dict[str, list[float]]:
    """Metric -> a value for each prompt that has one.

    `gold`: of the first answer. `degenerate_rate`, `truncated`, `num_tokens`: of the first answer. Of a prompt's pairs
    of answers that are not equally good: `reward_pair_accuracy`, the share in which the reward model scores the better
    one higher; `writes_better`, the share in which the policy finds it likelier (Chen et al. 2024, arXiv 2405.19534,
    eq. 2); `discriminator_gap`, the difference: above 0 the reward model has something to teach. Of the pairs that the
    policy was asked about: `judges_better`, the share in which it says that the better one is better, and
    `self_judge_gap`, the difference to `writes_better` of the same pairs. `gold_best_of_<n>`: gold of the reward
    model's choice among n, the mean over all choices of n of the answers.
    """
    found: dict[str, list[float]] = {GOLD: [one.gold[0] for one in made]} if spec.has_gold else {}
    found |= {
        "degenerate_rate": [
            float(is_degenerate(one.texts[0], prompt)) for one, prompt in zip(made, asked, strict=True)
        ],
        "truncated": [float(one.is_cut) for one in made],
        "num_tokens": [float(one.num_tokens) for one in made],
    }
    for one in made:
        pairs = [(i, j) for i, j in combinations(range(len(one.gold)), 2) if one.gold[i] != one.gold[j]]
        better = [(i, j) if one.gold[i] > one.gold[j] else (j, i) for i, j in pairs]
        if better and len(set(one.texts)) > 1:
            writes = float(np.mean([_sign(one.logprob[i] - one.logprob[j]) for i, j in better]))
            found.setdefault("writes_better", []).append(writes)
            if one.picked:
                knows = float(np.mean([_sign(one.picked[i] - one.picked[j]) for i, j in better]))
                found.setdefault("reward_pair_accuracy", []).append(knows)
                found.setdefault("discriminator_gap", []).append(knows - writes)
        if one.itself:
            says = float(np.mean([share for _, _, share in one.itself]))
            writes = float(np.mean([_sign(one.logprob[i] - one.logprob[j]) for i, j, _ in one.itself]))
            found.setdefault("judges_better", []).append(says)
            found.setdefault("self_judge_gap", []).append(says - writes)
        for n in spec.best_of_n:
            found.setdefault(f"gold_best_of_{n}", []).append(best_of_n(one.picked, one.gold, n))
    return found


def best_of_n(picked: Sequence[float], gold: Sequence[float], n: int) -> float:
    """Mean gold of the highest-scored answer, over all choices of n among N answers: sum over the answers, from the
    lowest score on, of C(i-1, n-1) / C(N, n) times their gold (Nakano et al. 2021, arXiv 2112.09332, appendix I)."""
    order = sorted(range(len(picked)), key=lambda place: picked[place])
    return sum(comb(rank, n - 1) * gold[place] for rank, place in enumerate(order)) / comb(len(order), n)


def _sign(difference: float) -> float:
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0


def _of_baseline(worker: Worker, spec: PreferenceSpec, asked: Sequence[str], model: str) -> list[Document]:
    """The baseline's answers to the same prompts; none where it was not asked the same."""
    folder = worker.file.baselines.get(str(spec.baseline))
    if spec.baseline in (None, model) or folder is None:
        return []
    documents = read_documents(Path(folder) / DOCUMENTS, spec.name)
    if [document.prompt for document in documents] != list(asked):
        worker.warn(f"{spec.name}: '{spec.baseline}' was asked other prompts; no win rate is taken")
        return []
    return documents
