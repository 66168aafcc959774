"""What stages share, and those that train on rows or practise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from llmkit.recipe.knowledge import EarlyStoppingSpec, RequireKnown, short_gate
from llmkit.recipe.parts import SLUG, DataSource, LaunchSpec, Part, PeftSpec, TokenizerSpec
from llmkit.recipe.practice import (
    Limits,
    MeasureSpec,
    ProblemSource,
    Rewards,
    RewardSpec,
    SamplingSpec,
    short_rewards,
)
from llmkit.recipe.preference import RewardModel
from llmkit.recipe.tools import Tools


class StageBase(Part):
    makes_model: ClassVar[bool] = False
    """Whether later stages can start from what it makes, and evaluations measure it."""
    loads_model: ClassVar[bool] = True
    """Whether its workers need a model."""
    keeps_steps: ClassVar[bool] = False
    """Whether it writes chunks of its work to `data/steps/`, which say themselves what they were made from."""
    name: Annotated[str, Field(pattern=SLUG)] = ""
    """Name by which later stages refer to this one. Default: its kind."""
    from_: str = Field(default="base", alias="from")
    """Stage whose model this one starts from; `base` is the recipe's model."""
    seed: int | None = None
    """Default: the run's seed."""
    launch: LaunchSpec = LaunchSpec()
    """How workers are started."""

    @property
    def asks_model(self) -> bool:
        """Whether a model is asked or trained; else one process sorts rows or sends files, with nothing to launch."""
        return self.loads_model

    @property
    def trainer_kind(self) -> str:
        """Under which name `trainer_keys` knows the trainer."""
        return str(getattr(self, "kind", ""))

    @model_validator(mode="before")
    @classmethod
    def _name_is_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and "name" not in value and isinstance(value.get("kind"), str):
            return {**value, "name": value["kind"]}
        return value


class TrainSource(DataSource):
    """Where training rows come from, and which of them are kept out."""

    require_known: Annotated[RequireKnown | None, BeforeValidator(short_gate)] = None
    """Keep out rows whose facts the model does not know: name of a probe, or `{probe: ..., unknown: pretrain}`."""


class TrainStage(StageBase):
    makes_model: ClassVar[bool] = True
    data: Sequence[DataSource]
    heldout: Mapping[str, Sequence[DataSource]]
    global_batch_size: int = Field(default=32, gt=0)
    """Rows (packed rows when packing) per optimizer step, over all processes and accumulation steps."""
    trainer: dict[str, Any] = {}
    """Options of the TRL trainer, by TRL's own names."""
    peft: PeftSpec | None = None
    """Train an adapter instead of all weights."""
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of bad rows above which the stage stops."""
    dedup: bool = True
    """Drop exact repeats of a row within a source (they are counted)."""


class RowsStage(TrainStage):
    """Training on rows that are there before it begins."""

    data: list[TrainSource] = Field(min_length=1)
    """Training rows: one or more sources, mixed."""
    heldout: dict[str, list[DataSource]] = {}
    """Named held-out sets; loss on each is measured before and after."""
    max_truncated: float = Field(default=0.0, ge=0, le=1)
    """Share of rows that may lose tokens to `max_length` before the stage stops."""


class PretrainStage(RowsStage):
    """Next-token loss on documents, packed without attention across documents."""

    kind: Literal["pretrain"]
    init: Literal["checkpoint", "scratch"] = "checkpoint"
    """`scratch`: new weights of the shape in `architecture` and a new tokenizer."""
    architecture: dict[str, Any] | None = None
    """With `init: scratch`: fields of the transformers config, `model_type` among them."""
    tokenizer: TokenizerSpec | None = None
    """With `init: scratch`: the byte-level BPE tokenizer to train."""

    @model_validator(mode="after")
    def _scratch_needs_shape(self) -> PretrainStage:
        scratch = self.init == "scratch"
        if scratch and (self.architecture is None or self.tokenizer is None):
            raise ValueError("'init: scratch' needs 'architecture' and 'tokenizer'")
        if not scratch and (self.architecture is not None or self.tokenizer is not None):
            raise ValueError("'architecture' and 'tokenizer' only fit 'init: scratch'")
        if scratch and self.peft is not None:
            raise ValueError("'peft' does not fit 'init: scratch': there is nothing to adapt")
        if self.architecture is not None and "model_type" not in self.architecture:
            raise ValueError("'architecture' needs 'model_type', such as qwen3")
        return self


class TunedStage(RowsStage):
    """Training of a model that answers."""

    early_stopping: EarlyStoppingSpec | None = None
    """Ask questions while training, keep the weights that knew best when to answer, stop when they get no better."""


class SftStage(TunedStage):
    """Supervised fine-tuning on conversations or prompt/completion rows."""

    kind: Literal["sft"]


class DpoStage(TunedStage):
    """Direct preference optimisation on pairs of a better and a worse answer."""

    kind: Literal["dpo"]


class PracticeStage(TrainStage):
    """Reinforcement learning on problems with checkable answers: sample answers, score them, make the better ones of a
    group more likely."""

    data: list[ProblemSource] = Field(min_length=1)
    """Problems: one or more sources, mixed."""
    heldout: dict[str, list[ProblemSource]] = {}
    """Named sets of problems that are never trained on: accuracy on each is measured before, while and after."""
    rewards: Rewards
    """Functions that score an answer; their weighted sum is what training raises."""
    global_batch_size: int = Field(default=64, gt=0)
    """Answers per optimizer step, over all processes and accumulation steps: prompts times `num_generations`."""
    max_truncated: float = Field(default=0.0, ge=0, le=1)
    """Share of problems whose prompt may leave no room for an answer before the stage stops; they are left out."""
    batch_size: int = Field(default=256, gt=0)
    """Answers that are written at a time on a process, where llmkit's own decoding writes them."""
    sampling: SamplingSpec = SamplingSpec()
    """Which prompts are practised."""
    measure: MeasureSpec = MeasureSpec()
    """What is measured on the held-out problems."""
    monitors: dict[str, Limits] = {}
    """Curve -> range in which it should stay; laid over llmkit's own ranges, which `llmkit show` lists."""


class GrpoStage(PracticeStage):
    """Group relative policy optimisation, by TRL's GRPOTrainer."""

    kind: Literal["grpo"]
    tools: Tools = []
    """Tools at hand: an answer is then a whole conversation with calls and results, of which what the model wrote is
    trained. `max_completion_length` bounds all of it."""
    max_calls: int = Field(default=4, gt=0)
    """Calls per conversation."""


class RlooStage(PracticeStage):
    """REINFORCE with the other answers of a group as baseline (leave one out), by TRL's RLOOTrainer."""

    kind: Literal["rloo"]


class SampledStage(StageBase):
    """Writes several answers to every prompt."""

    keeps_steps: ClassVar[bool] = True
    data: list[ProblemSource] = Field(min_length=1)
    """Prompts: one or more sources, mixed."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the answers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of the answers."""
    max_new_tokens: int = Field(default=512, gt=0)
    """Longest answer, in tokens."""
    engine: Literal["transformers", "continuous", "vllm"] = "transformers"
    """What runs the model: llmkit's decoding loop, Transformers' continuous batching, or vLLM (when installed)."""
    batch_size: int = Field(default=256, gt=0)
    """Answers that are written at a time."""
    max_truncated: float = Field(default=0.0, ge=0, le=1)
    """Share of prompts that may leave no room for an answer before the stage stops; they are left out."""
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of bad rows above which the stage stops."""
    dedup: bool = True
    """Drop repeats of a prompt within a source (they are counted)."""
    tools: Tools = []
    """Tools at hand: an answer is then a whole conversation with calls and results, and `max_new_tokens` bounds all of
    it."""
    max_calls: int = Field(default=4, gt=0)
    """Calls per conversation."""


class BestOfNStage(SampledStage):
    """Rejection sampling: many answers to every problem, of which the right ones become training rows. With an `sft`
    stage behind it, it is one round of expert iteration."""

    kind: Literal["best_of_n"]
    rewards: Annotated[list[RewardSpec], BeforeValidator(short_rewards)] = []
    """Functions that score an answer; one that is right by every reward on correctness may be kept."""
    reward_model: RewardModel | None = None
    """In place of, or beside, functions: the reward model whose favourites are kept. The best of n is ln n - (n-1)/n
    nats from what the model writes, at most (Stiennon et al. 2020, arXiv 2009.01325, appendix G.3)."""
    num_samples: int = Field(default=8, gt=0)
    """Answers per problem."""
    max_new_tokens: int = Field(default=512, gt=0)
    """Longest answer, in tokens; one that is cut off is wrong."""
    num_kept: int = Field(default=1, gt=0)
    """Right answers that are kept of one problem, at most. Answers whose numbers and words are the same count once."""
    prefer: Literal["shortest", "reward", "any"] = "shortest"
    """Which of the right answers: the shortest, those of the highest sum of rewards, or any. With a `reward_model`
    those that it scores highest."""
    skip_easy: float = Field(default=1.0, gt=0, le=1)
    """Problems of which a larger share of answers is right give no row. 1: all problems do."""

    @model_validator(mode="after")
    def _has_scores(self) -> BestOfNStage:
        if not self.rewards and self.reward_model is None:
            raise ValueError("give 'rewards', or a 'reward_model'")
        if self.reward_model is not None and "prefer" in self.model_fields_set:
            raise ValueError("'prefer' has no effect with 'reward_model', which says what is better")
        if not self.rewards and "skip_easy" in self.model_fields_set:
            raise ValueError("'skip_easy' has no effect without 'rewards': nothing says what is right")
        return self
