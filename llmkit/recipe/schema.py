"""The shape of a recipe. One class per part, one class per kind of stage.

The docstring under a field is its documentation: `llmkit schema` and editors show it.
Anything that is not named here is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag

from llmkit.recipe.hub import Bars, HubSpec, PushStage
from llmkit.recipe.identity import IdentityEval, IdentitySpec, IdentityStage
from llmkit.recipe.knowledge import HonestySpec
from llmkit.recipe.parts import ModelSpec, Part, RunSpec
from llmkit.recipe.practice import ProblemsSpec
from llmkit.recipe.preference import PreferenceSpec
from llmkit.recipe.slurm import SlurmSpec
from llmkit.recipe.stages import BestOfNStage, DpoStage, GrpoStage, PretrainStage, RlooStage, SftStage, StageBase
from llmkit.recipe.stages_knowledge import InterrogateStage, RefusalsStage, SearchIndexStage
from llmkit.recipe.stages_preference import RankStage, RewardStage, RlhfStage, RolloutStage
from llmkit.recipe.tools import ToolsSpec
from llmkit.recipe.trials import JailbreakSpec, ReversalSpec


class EvalSpec(Part):
    """An evaluation by lm-eval. A name alone is short for `{task: name}`."""

    task: str
    """Name of an lm-eval task: one under `evals/`, one in `include_path`, or one that lm-eval ships."""
    include_path: str | None = None
    """Folder with task files of your own."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Worked examples in the prompt. Default: the task's; where it has none, what is mostly reported."""
    limit: int | None = Field(default=None, gt=0)
    """Use the first so many documents."""
    raw: bool = False
    """Never apply the chat template to this task."""
    data: str | None = None
    """Folder with the task's data, in place of the Hub: `<split>.jsonl`, `.json`, `.csv` or `.parquet`."""
    allow_code_execution: bool = False
    """Whether a task may run programs that the model wrote, in llmkit's sandbox."""


def _task_names(value: Any) -> Any:
    """`evals: [facts]` is short for `evals: [{task: facts}]`."""
    return [{"task": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


def _own_task(value: Any) -> str:
    task = value.get("task") if isinstance(value, dict) else value.task
    return task if task in OWN_TASKS else "task"


AnyEval = Annotated[
    Annotated[HonestySpec, Tag("honesty")]
    | Annotated[ProblemsSpec, Tag("problems")]
    | Annotated[PreferenceSpec, Tag("preference")]
    | Annotated[ToolsSpec, Tag("tools")]
    | Annotated[IdentityEval, Tag("identity")]
    | Annotated[ReversalSpec, Tag("reversal")]
    | Annotated[JailbreakSpec, Tag("jailbreak")]
    | Annotated[EvalSpec, Tag("task")],
    Discriminator(_own_task),
]
OWN_TASKS: dict[str, type[Part]] = {
    tag.tag: spec for spec, tag in map(get_args, get_args(get_args(AnyEval)[0])) if spec is not EvalSpec
}
"""`task` of llmkit's own evaluations -> what such an item of `evals` is."""
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
    | SearchIndexStage
    | IdentityStage
    | EvaluateStage
    | PushStage,
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
    """What the run is called, where it lies, and its seed."""
    model: ModelSpec = ModelSpec()
    """The base model, and the chat template of the chain."""
    identity: IdentitySpec | None = None
    """What the model is told of itself: for `identity` stages and evaluations."""
    stages: list[Stage] = Field(min_length=1)
    """What the model goes through, in this order. A stage reads only earlier ones."""
    evals: Evals = []
    """Evaluated on the base model and after every training stage."""
    prompts: list[str] = []
    """Questions put to the base model and after every training stage."""
    ship: Bars = {}
    """Evaluation -> metric -> bar that a model must reach to be published: `facts_known: {accuracy: ">= 0.95"}`, or in
    short `facts_known.accuracy: ">= 0.95"`."""
    hub: HubSpec | None = None
    """Where `llmkit push` and stages of kind `push` publish."""
    slurm: SlurmSpec = SlurmSpec()
    """Jobs of a cluster: `llmkit run RECIPE --slurm`."""
