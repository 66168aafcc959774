"""Stages from rollouts to RLHF."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from llmkit.recipe.parts import DataSource, ModelSpec
from llmkit.recipe.practice import RewardSpec, Scalar, short_rewards
from llmkit.recipe.preference import (
    DegenerateSpec,
    Guard,
    Labeller,
    RankingLossSpec,
    RankJudgeSpec,
    RewardModel,
    short_fraction,
)
from llmkit.recipe.stages import PracticeStage, SampledStage, StageBase, TrainStage


class RolloutStage(SampledStage):
    """Several answers to every prompt, to be ranked."""

    kind: Literal["rollout"]
    models: list[str] = []
    """More stages whose models answer the same prompts."""
    num_completions: int = Field(default=5, gt=1)
    """Distinct answers per prompt and model."""
    max_tries: int = Field(default=3, gt=0)
    """Rounds in which answers that were given already are replaced; a prompt may end with fewer than wanted."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest answer, in tokens."""


class RankStage(StageBase):
    """Puts the answers of a `rollout` stage in order, best to worst."""

    keeps_steps: ClassVar[bool] = True
    kind: Literal["rank"]
    rollouts: str
    """Name of the `rollout` stage."""
    by: Literal["human", "judge", "labeller", "file"]
    """Who ranks: people on the page of `llmkit rank`, a model, a function, or a file of rankings that are there."""
    labeller: Labeller | None = None
    """With `by: labeller`: the function."""
    judge: RankJudgeSpec | None = None
    """With `by: judge`: the model."""
    path: str | None = None
    """With `by: file`: rankings as `llmkit rank` writes them."""
    min_ranked: float = Field(default=1.0, gt=0, le=1)
    """With `by: human` or `by: file`: share of the prompts that must be ranked before the stage goes on."""
    batch_size: int = Field(default=64, gt=0)
    """With `by: judge`: requests at a time of a local model."""

    @property
    def asks_model(self) -> bool:
        return self.by == "judge"

    @model_validator(mode="after")
    def _fits_ranker(self) -> RankStage:
        needs = {"labeller": "labeller", "judge": "judge", "file": "path"}
        for by, name in needs.items():
            if self.by == by and getattr(self, name) is None:
                raise ValueError(f"'by: {by}' needs '{name}'")
            if self.by != by and getattr(self, name) is not None:
                raise ValueError(f"'{name}' only fits 'by: {by}'")
        return self


class RewardStage(TrainStage):
    """A reward model: learns from rankings which of several answers to a prompt is better."""

    makes_model: ClassVar[bool] = False
    kind: Literal["reward"]
    model: ModelSpec | None = None
    """Another model to begin with than that of `from`: a larger one, or one that is a reward model already. `from` then
    says no more than which model evaluations behind this stage measure."""
    train: bool = True
    """`false`: `model` is a finished reward model, such as one of the Hub, which is measured on `data` and used as it
    is. It reads answers in its own template and tokens, and in the type of `model.dtype`."""
    data: list[DataSource] = Field(min_length=1)
    """Rankings, or preference pairs: one or more sources, mixed."""
    heldout: dict[str, list[DataSource]] = {}
    """Named held-out sets beside what `heldout_fraction` sets aside."""
    heldout_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompts that are kept out of training, to measure on. Never a prompt on both sides."""
    global_batch_size: int = Field(default=16, gt=0)
    """Prompts, each with all its answers, per optimizer step."""
    loss: RankingLossSpec = RankingLossSpec()
    """From ranks to a loss."""
    num_models: int = Field(default=1, gt=0)
    """Members of an ensemble, of seeds `seed`, `seed + 1`, ...: first layer of the score and order of rows differ."""
    num_layers: int | None = Field(default=None, gt=0)
    """Keep only so many of the input model's layers. Default: all."""
    degenerate: Annotated[DegenerateSpec | None, BeforeValidator(short_fraction)] = None
    """Put answers that are bad without anybody saying so behind the others."""
    learning_curve: list[Annotated[float, Field(gt=0, lt=1)]] = []
    """Also train on these shares of the prompts, to see what more rankings would bring."""
    max_truncated: float = Field(default=0.0, ge=0, le=1)
    """Share of prompts that may be longer than `max_length` even without their older turns before the stage stops; they
    are left out."""

    @property
    def scores_in(self) -> str:
        """The type that its weights have when it scores."""
        return "float32" if self.train or self.model is None else self.model.dtype


class RlhfStage(PracticeStage):
    """Reinforcement learning against a reward model, and a guard that notices when it only learns to please."""

    kind: Literal["rlhf"]
    algorithm: Literal["grpo", "rloo"] = "grpo"
    """TRL's trainer."""
    rewards: Annotated[list[RewardSpec], BeforeValidator(short_rewards)] = []
    """Functions whose scores are added to the reward model's."""
    reward_model: RewardModel
    """What the answers are scored by: its scores have mean 0 and deviation 1 over its held-out answers."""
    reward_weight: float = Field(default=1.0, gt=0)
    """Factor of the reward model's score, and of `missing_eos_penalty`, beside `rewards`."""
    reward_when: dict[str, Scalar] = {}
    """Rows that the reward model scores, and the guard looks at: those whose columns have these values. Default: all.
    The others are for `rewards`, which keep abilities in practice."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """What an answer that was cut off loses, in deviations of the reward model's scores."""
    guard: Guard
    """`gold: <reward stage>` or `labeller: ...`; `off` trains to the end, whatever becomes of the answers."""

    measured_by: Labeller | None = None
    """A function that says how good an answer is, for pictures and studies of the guard: nothing is decided by it."""

    @property
    def trainer_kind(self) -> str:
        return f"rlhf_{self.algorithm}"
