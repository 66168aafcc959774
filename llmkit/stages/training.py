"""The steps that `pretrain`, `sft` and `dpo` share, in the order in which a stage takes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import DistributedType, PartialState
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from trl import SFTConfig

from llmkit.artifacts.files import read_json, write_json
from llmkit.artifacts.manifest import Heldout, Manifest, Sample
from llmkit.chat.template import template_of
from llmkit.data.build import Built, build
from llmkit.data.collate import PackedCollator, layout_for
from llmkit.data.tokens import settings_of
from llmkit.errors import UserError
from llmkit.modeling.adapter import merge_adapter
from llmkit.modeling.sharding import wants
from llmkit.modeling.tokens import stop_token_ids
from llmkit.recipe.stages import PretrainStage, SftStage, TrainStage, TunedStage
from llmkit.stages.callbacks import CheckpointCallback, ProgressCallback, last_checkpoint, read_mark
from llmkit.stages.common import Worker
from llmkit.stages.early_stopping import EarlyStopping
from llmkit.stages.heldout import is_sharded, measure
from llmkit.stages.probed import check_gates

# Options that llmkit's own data path reads; the trainer gets rows that are ready.
DATA_KEYS = (
    "packing",
    "packing_strategy",
    "assistant_only_loss",
    "completion_only_loss",
    "max_length",
    "pad_to_multiple_of",
)


GATED = "pretrain"
"""Rows that `require_known` sends to continued pretraining, in the stage's `data/`."""
Numbers = dict[str, dict[str, Any]]
"""Held-out set -> plain numbers."""
Config = TypeVar("Config", bound=TrainingArguments)


@dataclass(frozen=True)
class Rows:
    """Tokenised rows: what is trained on, and the named held-out sets."""

    train: Built
    heldout: dict[str, Built]


@dataclass(frozen=True)
class Trained:
    heldout: dict[str, Heldout]
    metrics: dict[str, float]
    train_seconds: float


def train_stage(worker: Worker) -> PretrainStage | SftStage:
    stage = worker.file.stage
    assert isinstance(stage, (PretrainStage, SftStage)), stage.kind
    return stage


def training_args(worker: Worker) -> SFTConfig:
    return trainer_config(worker, SFTConfig, DATA_KEYS, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None)


def trainer_config(worker: Worker, config: type[Config], data_keys: tuple[str, ...], **fixed: Any) -> Config:
    """The trainer's config, built before anything is loaded: a value that it refuses costs seconds.

    Args:
        data_keys: options of the recipe that llmkit's own data path reads.
        fixed: options of this kind of stage that a recipe cannot set.

    Raises:
        UserError: with upstream's own words.
    """
    stage, batch = _stage(worker), worker.file.batch
    assert batch is not None
    options = {k: v for k, v in stage.trainer.items() if k not in (*data_keys, "per_device_train_batch_size")}
    options |= _without_half(worker, options)
    owned: dict[str, Any] = {
        "output_dir": str(worker.dir.checkpoints),
        "run_name": f"{worker.file.run.name}-{stage.name}",
        "seed": stage.seed,
        "data_seed": stage.seed,
        "per_device_train_batch_size": batch.per_device_train_batch_size,
        "gradient_accumulation_steps": batch.gradient_accumulation_steps,
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
    }
    try:
        args: Config = config(**{**options, **owned, **processors(), **fixed})
    except (TypeError, ValueError) as error:
        cure = "see the documentation of the trainer's options"
        raise UserError(f"stage '{stage.name}': trainer", str(error).strip().splitlines()[0], cure) from error
    check_reporters(worker, args)
    check_compiler(worker, args)
    check_strategy(args, worker.file.world_size)
    return args


def _without_half(worker: Worker, options: dict[str, Any]) -> dict[str, Any]:
    """DeepSpeed on CPU processes trains in float32: transformers 5.23 refuses bf16 there, which is TRL's default."""
    if torch.cuda.is_available() or not wants("DEEPSPEED") or options.get("bf16") is False:
        return {}
    if options.get("bf16"):
        where, what = f"stage '{_stage(worker).name}': trainer.bf16", "DeepSpeed without a GPU trains in float32 alone"
        raise UserError(where, what, "set it to false, or launch with DDP or FSDP2")
    worker.warn("DeepSpeed without a GPU trains in float32")
    return {"bf16": False}


def check_reporters(worker: Worker, args: TrainingArguments) -> None:
    """Raises UserError for one that is not known or installed, which transformers says once the model is loaded."""
    known, installed = INTEGRATION_TO_CALLBACK, get_available_reporting_integrations()
    for name in args.report_to:
        where = f"stage '{_stage(worker).name}': trainer.report_to"
        if name not in known:
            raise UserError(where, f"there is no reporter '{name}'", f"have: {', '.join(known)}")
        if name not in installed:
            raise UserError(where, f"'{name}' is not installed", f"install it, for example with `pip install {name}`")
    # its default is the folder of checkpoints, which goes when the stage has finished
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(worker.dir.path / "tensorboard"))


def check_compiler(worker: Worker, args: TrainingArguments) -> None:
    """Raises UserError where `torch_compile` would fail at the first step: on a CPU it needs a C++ compiler."""
    if args.torch_compile and not torch.cuda.is_available():
        from torch._inductor.cpp_builder import get_cpp_compiler  # seconds, for those who compile
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            where = f"stage '{_stage(worker).name}': trainer.torch_compile"
            raise UserError(
                where, "finds no C++ compiler", "install one (`g++`, or name it in CXX), or set it to false"
            ) from None


def _stage(worker: Worker) -> TrainStage:
    stage = worker.file.stage
    assert isinstance(stage, TrainStage), stage.kind
    return stage


def processors() -> dict[str, Any]:
    """Options that put DeepSpeed on CPU processes. accelerate 1.15 runs it as plain DDP where `use_cpu` is set, and
    counts one process where no backend is named."""
    if torch.cuda.is_available():
        return {}
    return {"ddp_backend": "gloo"} if wants("DEEPSPEED") else {"use_cpu": True}


def check_strategy(args: TrainingArguments, world_size: int) -> None:
    """The strategy that the Accelerate config asks for is the one that runs, or the stage stops.

    accelerate 1.15 runs FSDP on CPU processes as plain DDP, without a word, unless the type is that of GPU processes.
    """
    args.device  # noqa: B018 - sets the processes up
    state = args.distributed_state
    if wants("FSDP") and state.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    if wants("DEEPSPEED") and state.distributed_type != DistributedType.DEEPSPEED:
        what = f"asks for DeepSpeed, but {state.distributed_type} was started"
        raise UserError("launch.accelerate", what, "unset ACCELERATE_USE_CPU, which turns DeepSpeed off")
    if args.world_size != world_size:
        what = f"{world_size} processes were planned, but the trainer counts {args.world_size}"
        raise UserError("launch.accelerate", what, "check 'distributed_type' in the Accelerate config")


def check_sharding(trainer: Trainer) -> None:
    """As `check_strategy`, once the trainer has set itself up."""
    if wants("FSDP") and trainer.args.world_size > 1 and not trainer.is_fsdp_enabled:
        raise UserError("launch.accelerate", "asks for FSDP, but the weights are not sharded", "check the config")


def tokenise(worker: Worker, tokenizer: PreTrainedTokenizerBase, args: SFTConfig, max_positions: int | None) -> Rows:
    """Training and held-out rows as token ids and labels."""
    settings = settings_of(train_stage(worker))
    assert settings.max_length is not None
    check_length(worker, settings.max_length, max_positions)
    return build_rows(worker, args, partial(build, tokenizer=tokenizer, **asdict(settings)))


def check_length(worker: Worker, max_length: int, max_positions: int | None) -> None:
    """Raises UserError where rows may be longer than the model reads, in tokens."""
    if max_positions is not None and max_length > max_positions:
        what = f"is {max_length}, but the model reads at most {max_positions} tokens"
        where = f"stage '{_stage(worker).name}': trainer.max_length"
        raise UserError(where, what, f"set it to {max_positions} or less")


def build_rows(worker: Worker, args: TrainingArguments, build_one: Callable[..., Built]) -> Rows:
    """Training and held-out rows by `build_one`; one process writes them, the others read what it wrote."""
    stage = _stage(worker)
    check_gates(worker, stage)
    options: dict[str, Any] = {
        "seed": stage.seed,
        "max_rejected": stage.max_rejected,
        "dedup": stage.dedup,
        "data_stages": {name: Path(path) for name, path in worker.file.data_stages.items()},
        "cache_dir": worker.dir.cache,
    }

    def progress(done: int, total: int) -> None:
        worker.log("tokenise", done, total)

    with args.main_process_first(local=False, desc="tokenise"):
        files = {"rejected_file": worker.dir.rejected, "gated_file": worker.dir.data / f"{GATED}.jsonl"}
        train = build_one(stage.data, progress=progress, **files, **options)
        heldout = {
            name: build_one(sources, rejected_file=None, progress=None, **options)
            for name, sources in stage.heldout.items()
        }
    return Rows(train, heldout)


def collator_for(worker: Worker, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PackedCollator:
    multiple = train_stage(worker).trainer.get("pad_to_multiple_of")
    return PackedCollator(
        pad_token_id=tokenizer.pad_token_id,
        layout=layout_for(model.config._attn_implementation),
        pad_to_multiple_of=multiple if isinstance(multiple, int) else None,
    )


def train(worker: Worker, trainer: Trainer, rows: Rows, collator: PackedCollator) -> Trained:
    """Measure the loss on the held-out sets, train, measure again."""

    def measured() -> Numbers:
        return {name: measure(trainer, built, collator).model_dump() for name, built in rows.heldout.items()}

    before, after, metrics, seconds = train_between(worker, trainer, measured)
    found = {name: {"before": before.get(name), "after": after[name]} for name in after}
    return Trained({name: Heldout.model_validate(value) for name, value in found.items()}, metrics, seconds)


def train_between(
    worker: Worker, trainer: Trainer, measured: Callable[[], Numbers]
) -> tuple[Numbers, Numbers, dict[str, float], float]:
    """Measure, train (on from the last whole checkpoint in the trainer's folder, if there is one), measure again.

    Returns:
        What was measured before and after, the numbers of the training, and its seconds over all starts.
    """
    check_sharding(trainer)
    progress = ProgressCallback(worker)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(progress)
    stage = _stage(worker)
    if isinstance(stage, TunedStage) and stage.early_stopping is not None:
        trainer.add_callback(EarlyStopping(worker, trainer, trainer.processing_class))
    checkpoint = last_checkpoint(Path(trainer.args.output_dir))
    saved = read_mark(checkpoint)
    trainer.add_callback(CheckpointCallback(worker, saved))
    if worker.is_main and checkpoint is not None:
        print(f"resuming from {checkpoint.name}", flush=True)
    for text in saved.warnings:
        worker.warn(text)
    if saved.is_last:
        _without_steps(trainer)
    first = MeasureFirst(partial(_measured_before, worker, measured, resumed=checkpoint is not None))
    if is_sharded(trainer):
        trainer.add_callback(first)
    else:
        first.on_train_begin()
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    after = measured()
    metrics = {"steps": float(result.global_step)}
    if not saved.is_last:
        metrics["train_loss"] = float(result.metrics["train_loss"])
    if losses := [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]:
        metrics["last_loss"] = losses[-1]
    if trainer.state.best_metric is not None:
        metrics |= {"best_step": float(trainer.state.best_global_step), "best_balance": trainer.state.best_metric}
    return first.found, after, metrics, saved.train_seconds + float(result.metrics["train_runtime"])


class MeasureFirst(TrainerCallback):
    """What is measured before training. Weights are in parts, and can be used so, only once training begins."""

    def __init__(self, measured: Callable[[], Numbers]) -> None:
        self.measured, self.found = measured, Numbers()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.found = self.measured()


def _without_steps(trainer: Trainer) -> None:
    """The checkpoint is the last one: `train` is to load it, and no more. transformers 5.23 does a step before it looks
    whether it should stop."""

    def nothing(*_: Any) -> tuple[list[Any], None]:
        return [], None

    trainer.get_batch_samples = nothing  # type: ignore[method-assign,assignment]


def _measured_before(worker: Worker, measured: Callable[[], Numbers], resumed: bool) -> Numbers:
    """Measured once: a resumed stage reads what its first start wrote."""
    path = worker.dir.path / "before.json"
    if resumed and path.is_file():
        kept: Numbers = read_json(path)
        return kept
    found = measured()
    if worker.is_main:
        write_json(path, found)
    return found


def save(worker: Worker, trainer: Trainer, tokenizer: PreTrainedTokenizerBase, new_tokens: list[str]) -> dict[str, str]:
    """Model (or adapter, and the merged model) with tokenizer and generation config; the manifest's folders."""
    stage, file = _stage(worker), worker.file
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.generation_config.eos_token_id = stop_token_ids(tokenizer)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    target = worker.dir.adapter if stage.peft else worker.dir.model
    trainer.save_model(str(target))
    if worker.is_main:
        # a pickle that nothing reads
        (target / "training_args.bin").unlink(missing_ok=True)
        tokenizer.save_pretrained(target)
    if not stage.peft:
        return {"model_dir": target.name}
    if not stage.peft.merge:
        return {"adapter_dir": target.name}
    if worker.is_main:
        assert file.input_model is not None
        revision = file.model.revision if file.parent is None else None
        merge_adapter(
            file.input_model, target, worker.dir.model, tokenizer, new_tokens, dtype=file.model.dtype, revision=revision
        )
        tokenizer.save_pretrained(worker.dir.model)
    return {"model_dir": worker.dir.model.name, "adapter_dir": target.name}


def finish(
    worker: Worker,
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    trained: Trained,
    new_tokens: list[str],
) -> Manifest:
    """Saves and says what was done. What only training needed goes once the manifest is on disk."""
    folders = save(worker, trainer, tokenizer, new_tokens)
    if (worker.dir.data / f"{GATED}.jsonl").is_file():
        folders["data_dir"] = worker.dir.data.name
    trainer.accelerator.wait_for_everyone()
    template = template_of(tokenizer)
    summary, batch = rows.train.summary, worker.file.batch
    assert batch is not None
    seen = trained.metrics["steps"] * batch.global_batch_size / max(len(rows.train.dataset), 1)
    tokens = seen * summary.num_tokens
    return worker.manifest(
        **folders,
        chat_template_sha256=template.sha256 if template else None,
        stop_token=template.stop_token if template else None,
        metrics={**trained.metrics, "epochs": seen, "train_seconds": trained.train_seconds, "tokens": tokens},
        heldout=trained.heldout,
        data=summary,
        samples=[
            Sample(prompt=tokenizer.decode(example.input_ids), completion="", label="training row")
            for example in sorted(rows.train.examples, key=lambda example: "text" in example.row)[:3]
        ],
        tokens_per_second=tokens / trained.train_seconds if trained.train_seconds else None,
    )
