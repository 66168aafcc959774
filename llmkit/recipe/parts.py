"""Parts of a recipe that several kinds of stage share.

The docstring under a field is its documentation: `llmkit schema` and editors show it.
Anything that is not named here is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_UNITS = {"GB": 10**9, "GiB": 2**30, "MB": 10**6, "MiB": 2**20}
SLUG = r"^[a-z0-9][a-z0-9._-]*$"


class Part(BaseModel):
    """Base of every part of a recipe: strict, frozen, of finite numbers, with its field docstrings in the schema."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=True,
    )


class RunSpec(Part):
    """What the run is called, where it lies, and its seed."""

    name: Annotated[str, Field(pattern=SLUG)]
    """Name of the run: its folder is `output_dir/name`."""
    output_dir: str = "runs"
    """Folder that holds runs."""
    seed: int = 42
    """Seed of every stage that does not set its own."""


class ModelSpec(Part):
    """The base model, and how it is loaded."""

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
    """Where rows come from, how they are read, and how many are taken."""

    path: str | None = None
    """Hub id, file or glob (jsonl, json, parquet, csv, txt; .gz too), or `package.module:function`."""
    from_: str | None = Field(default=None, alias="from")
    """Name of an earlier stage whose `data/` is read."""
    name: str | None = None
    """Configuration of a Hub data set. With `from`: which rows of that stage (`pairs`, `heldout`, ...)."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set."""
    split: str = "train"
    """Split of a Hub data set. Slices work for every kind of source: `train[:90%]` and `train[90%:]` are disjoint."""
    args: dict[str, Any] = {}
    """Keyword arguments of a `package.module:function` source."""
    format: (
        Literal[
            "text",
            "messages",
            "prompt_completion",
            "sharegpt",
            "alpaca",
            "oasst",
            "ultrachat",
            "xlam",
            "glaive",
            "toolformer",
            "preference",
            "ranking",
        ]
        | None
    ) = None
    """Format of the rows. Default: recognised from the columns, but for `toolformer`, whose calls stand in texts."""
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


def num_bytes(text: str) -> int:
    """Of `24GiB`. Raises ValueError for what is no size."""
    for unit, factor in _UNITS.items():
        number = text.removesuffix(unit).strip()
        if text.endswith(unit) and number.replace(".", "", 1).isdigit():
            return int(float(number) * factor)
    raise ValueError("must be a number with a unit, such as 24GiB")


def _size(text: str | None) -> str | None:
    if text is not None:
        num_bytes(text)
    return text


class LaunchSpec(Part):
    """How Accelerate starts the workers of a stage."""

    accelerate: str = "single"
    """Accelerate config: a name under `recipes/accelerate/` (single, ddp, zero2, zero3, fsdp2, cpu/ddp) or a file."""
    num_processes: int = Field(default=1, gt=0)
    """Worker processes over all machines."""
    num_machines: int = Field(default=1, gt=0)
    """Machines; with more than one, `machine_rank` and `main_process_ip` come from the environment."""
    memory: Annotated[str | None, AfterValidator(_size)] = None
    """Memory of one process's device (`24GiB`): `llmkit plan` says what fits, and what would. Nothing else reads it."""
    env: dict[str, str] = {}
    """Environment variables of the workers. Not for secrets: they are written to the run's files."""


class PeftSpec(Part):
    """An adapter that is trained in place of all weights."""

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
    """A byte-level BPE tokenizer that is trained on the stage's own documents."""

    vocab_size: int = Field(default=4096, ge=300)
    """Entries, special tokens included."""
    split_digits: bool = True
    """Every digit is a token of its own."""
    num_rows: int = Field(default=20000, gt=0)
    """Documents that the tokenizer is trained on."""
