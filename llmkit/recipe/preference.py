"""Parts of the stages that work with preferences: who ranks, how a reward model learns from ranks, what watches it.

The docstring under a field is its documentation: `llmkit schema` and editors show it.
Anything that is not named here is refused.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from llmkit.recipe.knowledge import EngineSpec, check_named
from llmkit.recipe.parts import SLUG, Part
from llmkit.recipe.practice import ProblemSource

FEWEST_LOOKED_AT = 8
"""Prompts over which a guard can test whether gold has fallen."""


class LabellerSpec(Part):
    """A function that scores completions, as a rater that never tires."""

    path: str
    """`package.module:function`, called as TRL calls reward functions; more is better."""
    args: dict[str, Any] = {}
    """Keyword arguments of the function."""
    noise: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of pairs of completions that are ranked the wrong way round, on average over all prompts. What is close is
    mistaken more often than what is far apart."""
    num_raters: int = Field(default=1, gt=0)
    """Raters with noise of their own, of whom each ranks every prompt."""

    @model_validator(mode="after")
    def _is_function(self) -> LabellerSpec:
        if ":" not in self.path:
            raise ValueError("'path' is package.module:function")
        if self.num_raters > 1 and not self.noise:
            raise ValueError("'num_raters' has no effect without 'noise': all would say the same")
        return self


def _short_labeller(value: Any) -> Any:
    """`labeller: package.module:function` is short for `labeller: {path: ...}`."""
    return {"path": value} if isinstance(value, str) else value


Labeller = Annotated[LabellerSpec, BeforeValidator(_short_labeller)]


class RankJudgeSpec(EngineSpec):
    """A model that puts completions in order. It is asked twice, in two shuffled orders; what it contradicts ties."""

    by: Literal["self", "model", "openai"] = "self"
    """`self`: the stage's own model. `model`: another one (`name_or_path`). `openai`: an OpenAI-compatible endpoint."""
    max_undecided: float = Field(default=0.05, ge=0, le=1)
    """Share of prompts without a readable order above which the stage stops."""

    @model_validator(mode="after")
    def _fits(self) -> RankJudgeSpec:
        check_named(self.by, self)
        return self


class RankingLossSpec(Part):
    """From ranks to a loss."""

    type: Literal["pairwise", "plackett_luce"] = "pairwise"
    """`pairwise`: -log sigmoid of the difference, over all pairs of a prompt's completions (InstructGPT, Ouyang et al.
    2022, eq. 1). `plackett_luce`: the order as a whole (ListMLE, Xia et al. 2008)."""
    top: int | None = Field(default=None, gt=0)
    """With `plackett_luce`: only the first so many places count."""
    margin: float = Field(default=0.0, ge=0)
    """With `pairwise`: the difference that is demanded, per place between the two (Llama 2, Touvron et al. 2023,
    eq. 2)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """With `pairwise`: share of pairs that are taken to be the wrong way round."""
    ties: Literal["drop", "equal"] = "drop"
    """With `pairwise`: completions of one rank make no pair, or a pair whose scores should be the same."""

    @model_validator(mode="after")
    def _fits_type(self) -> RankingLossSpec:
        if self.type == "pairwise" and self.top is not None:
            raise ValueError("'top' has no effect with 'type: pairwise'")
        if self.type == "plackett_luce":
            for name in ("margin", "label_smoothing"):
                if getattr(self, name):
                    raise ValueError(f"'{name}' has no effect with 'type: plackett_luce'")
            if self.ties != "drop":
                raise ValueError("'ties' has no effect with 'type: plackett_luce', which has places for them")
        return self


Degenerate = Literal["empty", "repeated", "copied", "flattery"]


class DegenerateSpec(Part):
    """Answers that are bad without anybody saying so: they are put behind all others of a prompt."""

    fraction: float = Field(gt=0, le=1)
    """Share of the prompts that get one."""
    kinds: list[Degenerate] = Field(default=["empty", "repeated", "copied", "flattery"], min_length=1)
    """An empty answer, one that repeats words of a good one, the prompt itself, praise for whoever judges."""


def short_fraction(value: Any) -> Any:
    """`degenerate: 0.1` is short for `degenerate: {fraction: 0.1}`."""
    return {"fraction": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def best_of_n_kl(n: int) -> float:
    """ln n - (n - 1) / n, nats: the most that choosing the best of n answers is from taking any (Stiennon et al. 2020,
    arXiv 2009.01325, appendix G.3)."""
    return math.log(n) - (n - 1) / n


class RewardModelSpec(Part):
    """The reward model that practice is scored by: all members of one or more `reward` stages."""

    from_: list[str] = Field(alias="from", min_length=1)
    """`reward` stages."""
    combine: Literal["mean", "min", "variance"] = "min"
    """Of several members' scores: their mean, the lowest (WCO), or the mean minus `uncertainty` times the variance
    (UWO); Coste et al. 2023, arXiv 2310.02743, section 3. With a single member there is nothing to combine."""
    uncertainty: float = Field(default=0.5, gt=0)
    """With `combine: variance`: its weight."""


def _short_reward_model(value: Any) -> Any:
    """`reward_model: rm` is short for `reward_model: {from: [rm]}`."""
    if isinstance(value, str):
        return {"from": [value]}
    if isinstance(value, dict) and isinstance(value.get("from"), str):
        return {**value, "from": [value["from"]]}
    return value


RewardModel = Annotated[RewardModelSpec, BeforeValidator(_short_reward_model)]


class GuardSpec(Part):
    """Watches whether the policy gets better, or only better at pleasing the reward model."""

    gold: str | None = None
    """`reward` stage whose model the policy is not trained on: trained on other prompts and with another seed."""
    labeller: Labeller | None = None
    """Or a function that says how good an answer is."""
    judge: RankJudgeSpec | None = None
    """Or a model (`by: model`, `by: openai`) that compares each answer with the one that the first model gave to the
    same prompt, in both orders. What it takes is not counted in `max_share`."""
    every: float = Field(default=0.05, gt=0, le=0.5)
    """Share of the steps between two evaluations."""
    max_share: float = Field(default=0.1, gt=0, le=1)
    """Share of the stage's work that evaluations may be, as estimated from how many answers are written and read: where
    `every` asks for more, there are fewer of them. 1: whatever they cost."""
    num_prompts: int = Field(default=128, ge=FEWEST_LOOKED_AT)
    """Held-out prompts that are answered at each evaluation, of all sets in `heldout` in turn."""
    patience: int = Field(default=2, gt=0)
    """Evaluations in a row in which gold has fallen below its best before training stops: whether the reward has risen
    meanwhile (it is being gamed) or not (the policy unlearns). What is said tells which."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """With which gold must have fallen, one-sided, over the same prompts; corrected for the number of evaluations."""
    max_kl: float | None = Field(default=None, gt=0)
    """KL from the start, nats per answer, above which training stops. What lies above it is not kept."""
    max_degenerate: float = Field(default=0.1, gt=0, le=1)
    """Share of degenerate answers above which training stops, if there are more than at the start, with `confidence`.
    Such a step is not kept."""
    max_unlikely: float | None = Field(default=0.5, gt=0, lt=1)
    """Share of unlikely answers above which training stops: the policy where it started finds them less likely, per
    token, than all but one in 200 of its own, and no judge was trained on such. That step is not kept. null: any."""
    max_idle: int | None = Field(default=5, gt=0)
    """Evaluations in a row in which gold is no better than at its best before training stops, once it has risen at all.
    null: any."""

    @model_validator(mode="after")
    def _one_gold(self) -> GuardSpec:
        if sum(each is not None for each in (self.gold, self.labeller, self.judge)) != 1:
            raise ValueError("give exactly one of 'gold', 'labeller' and 'judge'")
        if self.judge is not None and self.judge.by == "self":
            raise ValueError("a policy cannot judge itself: set judge's 'by' to model or openai")
        if self.judge is not None and self.judge.engine == "vllm":
            raise ValueError("vllm leaves no room for training: serve the judge with it, and set 'by: openai'")
        return self


def _short_guard(value: Any) -> Any:
    """YAML 1.1 reads `off` as false; `guard: gold` is short for `guard: {gold: gold}`."""
    if value is False:
        return "off"
    return {"gold": value} if isinstance(value, str) and value != "off" else value


Guard = Annotated[GuardSpec | Literal["off"], BeforeValidator(_short_guard)]


class PreferenceSpec(Part):
    """Evaluation of answers that nobody can check: how good they are, how often better than another model's, and
    whether a reward model could still find better ones."""

    task: Literal["preference"]
    name: Annotated[str, Field(pattern=SLUG)] = "preference"
    """Name in the report, where a recipe has several."""
    prompts: list[ProblemSource] = Field(min_length=1)
    """Prompts that no training row holds."""
    labeller: Labeller | None = None
    """A function that says how good an answer is."""
    gold: str | None = None
    """Or a `reward` stage that no policy is trained on."""
    judge: RankJudgeSpec | None = None
    """Beside or in place of these: a model (`by: model`, `by: openai`) that says which of two answers is better, this
    model's or the baseline's. It is asked in both orders; what it contradicts ties."""
    reward_model: RewardModel | None = None
    """A reward model of which is measured whether it knows good answers from bad ones, and what its choice is worth."""
    baseline: str | None = None
    """Stage whose model's answers are compared with. Default: the model that the measured one started from."""
    num_samples: int = Field(default=4, gt=0)
    """Answers per prompt. The first one is compared with the baseline's."""
    best_of_n: list[Annotated[int, Field(gt=1)]] = []
    """Also the answer that the reward model likes best of so many."""
    self_pairs: int = Field(default=0, ge=0)
    """Pairs of its own answers to a prompt of which the measured model itself is asked which is better, in both
    orders."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the answers."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest answer, in tokens."""
    raw_phrasing: str = "{prompt}"
    """Wording for a model without a chat template."""
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of bad rows above which the stage stops."""
    dedup: bool = True
    """Drop repeats of a prompt within a source (they are counted)."""

    @model_validator(mode="after")
    def _has_judge(self) -> PreferenceSpec:
        if self.labeller is not None and self.gold is not None:
            raise ValueError("give exactly one of 'labeller' and 'gold'")
        if not self.has_gold and self.judge is None:
            raise ValueError("give exactly one of 'labeller' and 'gold', or a 'judge'")
        if self.judge is not None and self.judge.by == "self":
            raise ValueError("'judge' must be the same for all models: 'by: model' or 'by: openai'")
        if not self.has_gold and (self.reward_model is not None or self.self_pairs):
            raise ValueError("'reward_model' and 'self_pairs' need 'labeller' or 'gold', which say what is better")
        if self.self_pairs and self.num_samples < 2:
            raise ValueError("'self_pairs' needs 'num_samples: 2' or more")
        if self.best_of_n and self.reward_model is None:
            raise ValueError("'best_of_n' needs a 'reward_model' that picks")
        if self.best_of_n and max(self.best_of_n) > self.num_samples:
            raise ValueError(f"'best_of_n' needs 'num_samples: {max(self.best_of_n)}' or more")
        if "{prompt}" not in self.raw_phrasing:
            raise ValueError("'raw_phrasing' must hold {prompt}")
        return self

    @property
    def has_gold(self) -> bool:
        """Whether something says how good a single answer is."""
        return self.labeller is not None or self.gold is not None

    @property
    def stages(self) -> list[str]:
        """`reward` stages that it reads."""
        return [*([self.gold] if self.gold else []), *(self.reward_model.from_ if self.reward_model else [])]
