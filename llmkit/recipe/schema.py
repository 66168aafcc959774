"""The shape of a recipe. One class per part, one class per kind of stage.

The docstring under a field is its documentation: `llmkit schema` and editors show it.
Anything that is not named here is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

SLUG = r"^[a-z0-9][a-z0-9._-]*$"


class Part(BaseModel):
    """Base of every part of a recipe: strict, frozen, with its field docstrings in the schema."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_by_name=True, validate_by_alias=True
    )


class RunSpec(Part):
    name: Annotated[str, Field(pattern=SLUG)]
    """Name of the run: its folder is `output_dir/name`."""
    output_dir: str = "runs"
    """Folder that holds runs."""
    seed: int = 42
    """Seed of every stage that does not set its own."""


class ModelSpec(Part):
    name_or_path: str | None = None
    """Hub id, local folder, or `package:folder` for a model that a Python package ships. May be left out only if
    every chain of stages begins with `init: scratch`."""
    revision: str | None = None
    """Branch, tag or commit on the Hub. Pin a commit to make the run reproducible."""
    chat_template: str | None = None
    """Name of a shipped template (`chatml`) or path of a `.jinja` file. Default: the tokenizer's own."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type in which weights are loaded; float32 with `bf16: true` in `trainer` is mixed precision."""
    attn_implementation: str | None = None
    """`sdpa`, `eager`, `flash_attention_2`, ... as in transformers. Default: transformers' choice."""


class DataSource(Part):
    path: str | None = None
    """Hub id, file or glob (jsonl, json, parquet, csv, txt; .gz too), or `package.module:function`."""
    from_: str | None = Field(default=None, alias="from")
    """Name of an earlier stage whose `data/` is read."""
    name: str | None = None
    """Configuration of a Hub data set."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set."""
    split: str = "train"
    """Split of a Hub data set. Slices work for every kind of source: `train[:90%]` and `train[90%:]` are disjoint."""
    args: dict[str, Any] = {}
    """Keyword arguments of a `package.module:function` source."""
    format: (
        Literal["text", "messages", "prompt_completion", "sharegpt", "alpaca", "oasst", "ultrachat", "preference"]
        | None
    ) = None
    """Format of the rows. Default: recognised from the columns."""
    columns: dict[str, str] = {}
    """Map of the format's column names to this file's: `{prompt: question, completion: answer}`."""
    num_rows: int | None = Field(default=None, gt=0)
    """Take this many rows (after a seeded shuffle)."""
    fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the final mixture, in rows. Sources without it share what is left."""
    streaming: bool = False
    """Read a Hub data set as a stream instead of downloading it whole."""

    @model_validator(mode="after")
    def _one_origin(self) -> DataSource:
        if (self.path is None) == (self.from_ is None):
            raise ValueError("give exactly one of 'path' and 'from'")
        if self.num_rows is not None and self.fraction is not None:
            raise ValueError("give 'num_rows' or 'fraction', not both")
        if self.args and (self.path is None or ":" not in self.path):
            raise ValueError("'args' only fit a 'package.module:function' path")
        return self


class LaunchSpec(Part):
    accelerate: str = "single"
    """Accelerate config: a name under `recipes/accelerate/` (single, ddp, zero2, zero3, fsdp2, cpu/ddp) or a file."""
    num_processes: int = Field(default=1, gt=0)
    """Worker processes over all machines."""
    num_machines: int = Field(default=1, gt=0)
    """Machines; with more than one, `machine_rank` and `main_process_ip` come from the environment."""
    env: dict[str, str] = {}
    """Environment variables of the workers. Not for secrets: they are written to the run's files."""


class PeftSpec(Part):
    method: Literal["lora", "dora"] = "lora"
    """`dora` is LoRA with `use_dora`."""
    r: int = Field(default=16, gt=0)
    """Rank."""
    lora_alpha: int = Field(default=32, gt=0)
    """Scale: updates are multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: str | list[str] = "all-linear"
    """Modules that get an adapter, as in peft."""
    quantization: Literal["nf4"] | None = None
    """`nf4`: base weights in 4 bits (QLoRA)."""
    merge: bool = True
    """Save the merged model as well as the adapter."""


class TokenizerSpec(Part):
    vocab_size: int = Field(default=4096, ge=300)
    """Entries, special tokens included."""
    split_digits: bool = True
    """Every digit is a token of its own."""
    num_rows: int = Field(default=20000, gt=0)
    """Documents that the tokenizer is trained on."""


class StageBase(Part):
    name: Annotated[str, Field(pattern=SLUG)] = ""
    """Name by which later stages refer to this one. Default: its kind."""
    from_: str = Field(default="base", alias="from")
    """Stage whose model this one starts from; `base` is the recipe's model."""
    seed: int | None = None
    """Default: the run's seed."""
    launch: LaunchSpec = LaunchSpec()
    """How workers are started."""

    @model_validator(mode="before")
    @classmethod
    def _name_is_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and "name" not in value and isinstance(value.get("kind"), str):
            return {**value, "name": value["kind"]}
        return value


class TrainStage(StageBase):
    data: list[DataSource] = Field(min_length=1)
    """Training rows: one or more sources, mixed."""
    heldout: dict[str, list[DataSource]] = {}
    """Named held-out sets; loss on each is measured before and after."""
    global_batch_size: int = Field(default=32, gt=0)
    """Rows (packed rows when packing) per optimizer step, over all processes and accumulation steps."""
    trainer: dict[str, Any] = {}
    """Options of the TRL trainer, by TRL's own names."""
    peft: PeftSpec | None = None
    """Train an adapter instead of all weights."""
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of bad rows above which the stage stops."""
    max_truncated: float = Field(default=0.0, ge=0, le=1)
    """Share of rows that may lose tokens to `max_length` before the stage stops."""
    dedup: bool = True
    """Drop exact repeats of a row within a source (they are counted)."""


class PretrainStage(TrainStage):
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


class SftStage(TrainStage):
    """Supervised fine-tuning on conversations or prompt/completion rows."""

    kind: Literal["sft"]


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


Evals = Annotated[list[EvalSpec], BeforeValidator(_task_names)]


class EvaluateStage(StageBase):
    """Evaluations and prompts on one model. One is added by itself for the base and after each training stage."""

    kind: Literal["evaluate"]
    evals: Evals = []
    """Tasks. Default: the recipe's."""
    prompts: list[str] = []
    """Questions that are put to the model, greedily, for people to read. Default: the recipe's."""
    max_new_tokens: int = Field(default=128, gt=0)
    """Longest answer to a prompt, in tokens."""
    batch_size: int = Field(default=32, gt=0)
    """Documents per forward pass."""


Stage = Annotated[PretrainStage | SftStage | EvaluateStage, Field(discriminator="kind")]


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
