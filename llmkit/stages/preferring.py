"""Reward models as what practice is scored by: in place of, or beside, functions on checkable answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from llmkit.artifacts.manifest import read_manifest
from llmkit.chat.ask import Answer
from llmkit.chat.template import template_of
from llmkit.chat.turn import answer_to
from llmkit.data.pairs import split_answer
from llmkit.data.problems import Problem, Problems
from llmkit.data.rankings import place_of, shorter
from llmkit.errors import DataError, ModelError, RunError, TemplateError, UserError
from llmkit.modeling.reward_model import PROMPTS, RewardModels, load_rewards
from llmkit.recipe.practice import RewardSpec, Scalar
from llmkit.recipe.preference import LabellerSpec, RewardModelSpec
from llmkit.rewards.guard import score
from llmkit.rewards.registry import load, matches, whole
from llmkit.rewards.rows import Completion, LogMetric, Said
from llmkit.stages.common import Worker
from llmkit.stages.scoring import Need, Scorer, Scores

MODEL, CUT = "reward_model", "missing_eos"
Schemas = Sequence[dict[str, Any]]


def open_rewards(folder: Path, *, device: Any) -> RewardModels:
    """The reward model that a stage left. Raises RunError where it left none."""
    return load_rewards(open_folder(folder), device=device)


def open_folder(stage: Path) -> Path:
    """Where a stage's reward model lies. Raises RunError where it left none."""
    manifest = read_manifest(stage)
    if manifest is None or manifest.kind != "reward" or manifest.model_dir is None:
        raise RunError(str(stage), "holds no reward model", "name a 'reward' stage that has finished")
    return stage / manifest.model_dir


class Judge(Protocol):
    """Says how good answers are."""

    def __call__(
        self,
        prompts: Sequence[Any],
        texts: Sequence[Any],
        columns: Sequence[Mapping[str, Any]] | None = None,
        places: Sequence[str] | None = None,
    ) -> np.ndarray:
        """(N,) numbers, more is better.

        Args:
            texts: of the answers; from a `rank` stage of those with tools all turns and results.
            columns: of each answer's row, by name.
            places: where each row stands.
        """


class ModelJudge:
    """A reward model as judge: the mean of its members' scores, each within those of the answers that people ranked,
    because a score beyond them tells nothing."""

    def __init__(self, models: RewardModels) -> None:
        self.models, self.members = models, models.members
        self._low, self._high = (models.scaled(np.array([bounds])) for bounds in (models.card.low, models.card.high))

    def __call__(
        self,
        prompts: Sequence[Any],
        texts: Sequence[Completion],
        columns: Sequence[Mapping[str, Any]] | None = None,
        places: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Neither of the rows' columns nor of their places: a reward model reads texts."""
        scores_NM = score_texts(self.models, prompts, texts)
        scores_N: np.ndarray = np.clip(scores_NM, self._low, self._high).mean(1)
        return scores_N


def judged_by(folder: Path) -> ModelJudge:
    """The reward model that a stage left, as judge."""
    return ModelJudge(open_rewards(folder, device=PartialState().device))


def labelled_by(spec: LabellerSpec) -> Judge:
    """A function as judge. Raises UserError where it fails, or does not score an answer."""
    (reward,) = load([RewardSpec(path=spec.path, args=spec.args)])

    def judge(
        prompts: Sequence[Any],
        texts: Sequence[Completion],
        columns: Sequence[Mapping[str, Any]] | None = None,
        places: Sequence[str] | None = None,
    ) -> np.ndarray:
        said = [answer_to(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        columns = columns or [{}] * len(texts)
        places = places or [f"prompt {number}" for number in range(len(texts))]
        values = score(reward, prompts, said, [()] * len(texts), columns, places)
        if None in values:
            what = f"does not score an answer to {places[values.index(None)]}"
            raise UserError(f"labeller {spec.path}", what, "return a number")
        return np.array(values, dtype=float)

    return judge


def check_renders(models: RewardModels, problems: Iterable[Problem], where: str, tools: Schemas = ()) -> None:
    """Raises UserError where a reward model cannot read what the policy is asked. Messages are rendered again in its
    own template, whatever the policy's is.

    Args:
        problems: of prompts of one shape, the same roles in one order, the first is rendered.
        tools: schemas of those that the policy has at hand.
    """
    chat, shapes = template_of(models.tokenizer) is not None, set[tuple[str, ...]]()
    for problem in problems:
        if chat != (not isinstance(problem.prompt, str)):
            has, asks = ("a", "texts") if chat else ("no", "conversations")
            what = f"has {has} chat template, and the policy is asked {asks}"
            raise UserError(where, what, "train it from a model of the policy's kind")
        shape = () if isinstance(problem.prompt, str) else tuple(message["role"] for message in problem.prompt)
        if shape in shapes:
            continue
        shapes.add(shape)
        try:
            answer_ids(models.tokenizer, problem.prompt, "a", models.card.max_length, tools)
        except (DataError, TemplateError) as error:
            what = f"its own template cannot render {problem.place} ({error.problems[0].what})"
            cure = "train it from a model of the policy's kind, or leave such prompts out"
            raise UserError(where, what, cure) from None


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Any, said: Completion, max_length: int, tools: Schemas = ()
) -> list[int]:
    """A prompt with an answer as a reward model reads it, in its own template and tokens: the text is rendered again,
    because a policy could find spellings of a text, token by token, that the model has never seen. What is too long
    loses its oldest turns, as in training; where that is not enough, which training leaves out, its beginning."""
    for kept in shorter(prompt):
        prompt_ids, ids = split_answer(tokenizer, kept, answer_to(prompt, said), list(tools) or None)
        if len(prompt_ids) + len(ids) <= max_length:
            break
    return [*prompt_ids, *ids][-max_length:]


def score_texts(
    models: RewardModels, prompts: Sequence[Any], texts: Sequence[Completion], tools: Schemas = ()
) -> np.ndarray:
    """Scaled scores of each member, (N, M). Raises ModelError where one is no number."""
    cut = models.card.max_length
    rows = [answer_ids(models.tokenizer, prompt, said, cut, tools) for prompt, said in zip(prompts, texts, strict=True)]
    scores_NM = models.scaled(models.raw(rows))
    if not np.isfinite(scores_NM).all():
        raise ModelError(models.tokenizer.name_or_path, "gives scores that are no numbers", "train it again")
    return scores_NM


def trained_on(worker: Worker, name: str) -> np.ndarray:
    """Hashes of the prompts that a stage's reward model was trained on; see `place_of`."""
    hashes: np.ndarray = np.load(open_folder(Path(worker.file.data_stages[name])) / PROMPTS)
    return hashes


def warn_of_seen(worker: Worker, name: str, prompts: Sequence[Problem], which: str) -> None:
    """A reward model knows the prompts that it was trained on better than others."""
    places = [place_of(problem.prompt) for problem in prompts]
    if num := int(np.isin(places, trained_on(worker, name)).sum()):
        worker.warn(f"'{name}' was trained on {num} of the {len(prompts)} prompts {which}")


def combined(scores_NM: np.ndarray, spec: RewardModelSpec) -> np.ndarray:
    """(N,): Coste et al. 2023, arXiv 2310.02743, equations 2 to 4."""
    if spec.combine == "min":
        found: np.ndarray = scores_NM.min(1)
    elif spec.combine == "variance":
        found = scores_NM.mean(1) - spec.uncertainty * scores_NM.var(1)
    else:
        found = scores_NM.mean(1)
    return found


class PreferenceScorer:
    """Scores answers by reward models, a penalty on answers that were cut off, and functions. Used as `Scorer` is.

    Args:
        functions: rewards beside the model; None: none.
        when: columns and their values: rows that the models score. Empty: all.
        where: the stage and part, for messages.
        tools: schemas of those that the policy has at hand.
    """

    def __init__(
        self,
        models: Sequence[RewardModels],
        spec: RewardModelSpec,
        functions: Scorer | None,
        *,
        weight: float,
        missing_eos_penalty: float,
        when: Mapping[str, Scalar],
        where: str,
        tools: Schemas = (),
    ) -> None:
        self.models, self.spec, self.functions, self._where = list(models), spec, functions, where
        self._tools = tools
        self._penalty, self._when = missing_eos_penalty, when
        num_members = sum(len(each.members) for each in self.models)
        members = [f"{MODEL}_{number}" for number in range(num_members)] if num_members > 1 else []
        own = functions.labels if functions else []
        self.labels = [MODEL, CUT, *members, *own]
        weights = [weight, weight, *(0.0 for _ in members), *(functions.weights_F if functions else ())]
        self.weights_F = np.array(weights)
        self.correctness = [
            len(self.labels) - len(own) + place for place in (functions.correctness if functions else ())
        ]
        self.rewards = functions.rewards if functions else []

    def check(self, problems: Problems, *, checked: Need) -> None:
        """Raises UserError where a reward cannot score the problems, the reward model has none to score, or no function
        says of as many as must be whether they are solved."""
        if not any(self.applies(problem) for problem in problems):
            wanted = ", ".join(f"{name}: {value}" for name, value in self._when.items())
            cure = "give its rows this column with 'set' on their source, or leave 'reward_when' out"
            raise UserError(self._where, f"none of {len(problems)} prompts has {wanted}", cure)
        for name, models in zip(self.spec.from_, self.models, strict=True):
            check_renders(models, filter(self.applies, problems), f"{self._where} '{name}'", self._tools)
        if self.functions is not None:
            self.functions.check(problems, checked=checked)

    def is_checked(self, problem: Problem) -> bool:
        """Whether a function says if answers to it are right; the reward models never do."""
        return self.functions is not None and self.functions.is_checked(problem)

    def check_gold(self, problems: Problems, warn: Callable[[str], None]) -> None:
        """As that of the functions; a reward model knows no right answer."""
        if self.functions is not None:
            self.functions.check_gold(problems, warn)

    def said(self, problem: Problem, text: str) -> Said:
        """As that of the functions, or else the whole text."""
        return self.functions.said(problem, text) if self.functions is not None else whole(text, problem.columns)

    def applies(self, problem: Problem) -> bool:
        """Whether the reward models score answers to it."""
        return matches(self._when, problem.columns)

    def by_model(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> tuple[np.ndarray, np.ndarray]:
        """Of N answers, without the functions: (N, M) scores of the members of all models, and (N, 2) what they come
        to and the penalty on an answer that was cut off."""
        prompts, texts = [one.prompt for one in problems], [one.messages or one.text for one in answers]
        scores_NM = np.concatenate([score_texts(models, prompts, texts, self._tools) for models in self.models], axis=1)
        cut_N = np.array([-self._penalty if one.finish_reason != "stop" else 0.0 for one in answers])
        return scores_NM, np.stack([combined(scores_NM, self.spec), cut_N], axis=1)

    def __call__(
        self,
        problems: Sequence[Problem],
        answers: Sequence[Answer],
        *,
        trainer_state: Any = None,
        log_metric: LogMetric | None = None,
    ) -> Scores:
        """Problem i of answer i. What the reward models do not score is NaN in their columns."""
        applies_N = np.array([self.applies(problem) for problem in problems])
        num_members = sum(len(each.members) for each in self.models)
        scores_NM, values_N2 = (np.full((len(answers), size), np.nan) for size in (num_members, 2))
        if applies_N.any():
            own = [(problem, answers[i]) for i, problem in enumerate(problems) if applies_N[i]]
            scores_NM[applies_N], values_N2[applies_N] = self.by_model(*zip(*own, strict=True))
        columns = [*values_N2.T, *(scores_NM.T if num_members > 1 else ())]
        right_N = np.zeros(len(answers), dtype=bool)
        if self.functions is not None:
            options: dict[str, Any] = {"trainer_state": trainer_state, "log_metric": log_metric}
            found = self.functions(problems, answers, is_scored_N=applies_N.tolist(), **options)
            columns, right_N = [*columns, *found.values_NF.T], found.is_right_N
        values_NF = np.stack(columns, axis=1)
        return Scores(values_NF, np.nansum(values_NF * self.weights_F, axis=1), right_N)
