"""The shape of a recipe. One class per part, one class per kind of stage.

The docstring under a field is its documentation: `llmkit schema` and editors show it.
Anything that is not named here is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from llmkit.recipe.knowledge import (
    AskSpec,
    EarlyStoppingSpec,
    HonestySpec,
    JudgeSpec,
    QuestionSource,
    RefusalTexts,
    RequireKnown,
    ThresholdSpec,
    WriterSpec,
    short_gate,
)
from llmkit.recipe.parts import (
    SLUG,
    DataSource,
    LaunchSpec,
    ModelSpec,
    Part,
    PeftSpec,
    RunSpec,
    TokenizerSpec,
)
from llmkit.recipe.practice import (
    Limits,
    MeasureSpec,
    ProblemSource,
    ProblemsSpec,
    Rewards,
    RewardSpec,
    SamplingSpec,
    short_rewards,
)
from llmkit.recipe.preference import (
    DegenerateSpec,
    Guard,
    Labeller,
    PreferenceSpec,
    RankingLossSpec,
    RankJudgeSpec,
    RewardModel,
    short_fraction,
)


class StageBase(Part):
    makes_model: ClassVar[bool] = False
    """Whether later stages can start from what it makes, and evaluations measure it."""
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


class RlooStage(PracticeStage):
    """REINFORCE with the other answers of a group as baseline (leave one out), by TRL's RLOOTrainer."""

    kind: Literal["rloo"]


class BestOfNStage(StageBase):
    """Rejection sampling: many answers to every problem, of which the right ones become training rows. With an `sft`
    stage behind it, it is one round of expert iteration."""

    keeps_steps: ClassVar[bool] = True
    kind: Literal["best_of_n"]
    data: list[ProblemSource] = Field(min_length=1)
    """Problems: one or more sources, mixed."""
    rewards: Rewards
    """Functions that score an answer; one that is right by every reward on correctness may be kept."""
    num_samples: int = Field(default=8, gt=0)
    """Answers per problem."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the answers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of the answers."""
    max_new_tokens: int = Field(default=512, gt=0)
    """Longest answer, in tokens; one that is cut off is wrong."""
    num_kept: int = Field(default=1, gt=0)
    """Right answers that are kept of one problem, at most. Answers whose numbers and words are the same count once."""
    prefer: Literal["shortest", "reward", "any"] = "shortest"
    """Which of the right answers: the shortest, those of the highest sum of rewards, or any."""
    skip_easy: float = Field(default=1.0, gt=0, le=1)
    """Problems of which a larger share of answers is right give no row. 1: all problems do."""
    engine: Literal["transformers", "continuous", "vllm"] = "transformers"
    """What runs the model: llmkit's decoding loop, Transformers' continuous batching, or vLLM (when installed)."""
    batch_size: int = Field(default=256, gt=0)
    """Answers that are written at a time."""
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of bad rows above which the stage stops."""
    dedup: bool = True
    """Drop repeats of a prompt within a source (they are counted)."""


class RolloutStage(StageBase):
    """Several answers to every prompt, to be ranked."""

    keeps_steps: ClassVar[bool] = True
    kind: Literal["rollout"]
    data: list[ProblemSource] = Field(min_length=1)
    """Prompts: one or more sources, mixed."""
    models: list[str] = []
    """More stages whose models answer the same prompts."""
    num_completions: int = Field(default=5, gt=1)
    """Distinct answers per prompt and model."""
    max_tries: int = Field(default=3, gt=0)
    """Rounds in which answers that were given already are replaced; a prompt may end with fewer than wanted."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the answers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of the answers."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest answer, in tokens."""
    engine: Literal["transformers", "continuous", "vllm"] = "transformers"
    """What runs the model: llmkit's decoding loop, Transformers' continuous batching, or vLLM (when installed)."""
    batch_size: int = Field(default=256, gt=0)
    """Answers that are written at a time."""
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of bad rows above which the stage stops."""
    dedup: bool = True
    """Drop repeats of a prompt within a source (they are counted)."""


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
    """Share of prompts that may lose their oldest turns to `max_length` before the stage stops."""


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
    """Factor of the reward model's score beside `rewards`."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """What an answer that was cut off loses, in deviations of the reward model's scores."""
    guard: Guard
    """`gold: <reward stage>` or `labeller: ...`; `off` trains to the end, whatever becomes of the answers."""

    measured_by: Labeller | None = None
    """A function that says how good an answer is, for pictures and studies of the guard: nothing is decided by it."""

    @property
    def trainer_kind(self) -> str:
        return f"rlhf_{self.algorithm}"


class InterrogateStage(StageBase):
    """Asks the model questions without their documents, and labels each by how well the model knows its answer."""

    keeps_steps: ClassVar[bool] = True
    kind: Literal["interrogate"]
    questions: list[QuestionSource] = []
    """Questions with accepted answers, or structured rows with `templates`."""
    documents: list[DataSource] = []
    """Documents that the model was trained on; `writer` asks about snippets of them."""
    writer: WriterSpec = WriterSpec()
    """Who writes the questions about documents."""
    snippet_chars: int = Field(default=800, ge=80)
    """Longest snippet of a document, in characters; it is cut between sentences."""
    num_snippets: int | None = Field(default=None, gt=0)
    """Use this many snippets (drawn with the seed). Default: all."""
    ask: AskSpec = AskSpec()
    """How the questions are asked."""
    judge: JudgeSpec = JudgeSpec()
    """Who decides whether an answer is right."""
    thresholds: ThresholdSpec = ThresholdSpec()
    """From verdicts to labels."""
    engine: Literal["transformers", "continuous", "vllm"] = "transformers"
    """What runs the model: llmkit's decoding loop, Transformers' continuous batching, or vLLM (when installed)."""
    batch_size: int = Field(default=256, gt=0)
    """Answers that are written at a time."""
    heldout: float = Field(default=0.2, ge=0, lt=1)
    """Share of entities that are kept out of training: `{from: probe, name: heldout}` evaluates on them."""

    @model_validator(mode="after")
    def _has_input(self) -> InterrogateStage:
        if not (self.questions or self.documents):
            raise ValueError("give 'questions' or 'documents'")
        return self


class RefusalsStage(StageBase):
    """Rows that teach a model to answer what it knows and refuse what it does not, from one or more probes."""

    kind: Literal["refusals"]
    probes: list[str] = Field(min_length=1)
    """Interrogations of the model that is to be trained; later ones (after an honest SFT) show what became known."""
    refuse: Literal["unknown", "consistently_wrong"] = "unknown"
    """SliCK's Unknown, or Llama 3's rule: informative and wrong, always."""
    maybe_known: Literal["answer", "leave_out", "refuse"] = "leave_out"
    """What becomes of questions that are answered right at times."""
    weakly_known: Literal["answer", "leave_out", "refuse"] = "leave_out"
    """What becomes of questions that are never answered right greedily, but at times when sampled."""
    known_ratio: float = Field(default=1.0, ge=0)
    """Rows with answers per row with a refusal. 0: refusals only (a control)."""
    num_rows: int | None = Field(default=None, gt=0)
    """Rows in all. Default: as many as the smaller side allows."""
    refusals: RefusalTexts = RefusalTexts()
    """What the refusals say."""
    keep_partial: bool = True
    """Where the model says something right but not the answer, keep that instead of a refusal."""
    conflict_similarity: float = Field(default=0.9, gt=0, le=1)
    """Questions at least this alike with opposite labels are a conflict, and both are left out (CRaFT)."""
    balance: bool = True
    """Take both sides evenly from each kind of wording, so that the wording does not give the label away."""
    relabel: Literal["none", "random"] = "none"
    """`random`: labels are shuffled (a control)."""
    watched: float = Field(default=0.0, ge=0, lt=1)
    """Share of entities that are kept out of the rows: `early_stopping` asks about them while a stage trains."""
    search_tool: str = "search"
    """Name of the tool in `{from: ..., name: tool_calls}`: rows that call it instead of refusing."""


class EvalSpec(Part):
    task: str
    """Name of an lm-eval task: one under `evals/`, one in `include_path`, or one that lm-eval ships."""
    include_path: str | None = None
    """Folder with task files of your own."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Worked examples in the prompt. Default: the task's."""
    limit: int | None = Field(default=None, gt=0)
    """Use the first so many documents."""
    raw: bool = False
    """Never apply the chat template to this task."""


def _task_names(value: Any) -> Any:
    """`evals: [facts]` is short for `evals: [{task: facts}]`."""
    return [{"task": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


def _own_task(value: Any) -> str:
    task = value.get("task") if isinstance(value, dict) else value.task
    return task if task in ("honesty", "problems", "preference") else "task"


AnyEval = Annotated[
    Annotated[HonestySpec, Tag("honesty")]
    | Annotated[ProblemsSpec, Tag("problems")]
    | Annotated[PreferenceSpec, Tag("preference")]
    | Annotated[EvalSpec, Tag("task")],
    Discriminator(_own_task),
]
Evals = Annotated[list[AnyEval], BeforeValidator(_task_names)]


class EvaluateStage(StageBase):
    """Evaluations and prompts on one model. One is added by itself for the base and after each training stage."""

    keeps_steps: ClassVar[bool] = True
    kind: Literal["evaluate"]
    evals: Evals = []
    """Tasks. Default: the recipe's."""
    prompts: list[str] = []
    """Questions that are put to the model, greedily, for people to read. Default: the recipe's."""
    max_new_tokens: int = Field(default=128, gt=0)
    """Longest answer to a prompt, in tokens."""
    batch_size: int = Field(default=32, gt=0)
    """Documents per forward pass."""


Stage = Annotated[
    PretrainStage
    | SftStage
    | DpoStage
    | GrpoStage
    | RlooStage
    | BestOfNStage
    | RolloutStage
    | RankStage
    | RewardStage
    | RlhfStage
    | InterrogateStage
    | RefusalsStage
    | EvaluateStage,
    Field(discriminator="kind"),
]


STAGES: tuple[type[StageBase], ...] = get_args(get_args(Stage)[0])


def kind_of(stage: type[StageBase]) -> str:
    """The `kind` of a class of stages."""
    (kind,) = get_args(stage.model_fields["kind"].annotation)
    return str(kind)


KINDS: dict[str, type[StageBase]] = {kind_of(stage): stage for stage in STAGES}


class Recipe(Part):
    """One run: a model, the stages it goes through, and what is measured on the way."""

    run: RunSpec
    model: ModelSpec = ModelSpec()
    """The base model, and the chat template of the chain."""
    stages: list[Stage] = Field(min_length=1)
    evals: Evals = []
    """Evaluated on the base model and after every training stage."""
    prompts: list[str] = []
    """Questions put to the base model and after every training stage."""
