"""Which keys `trainer:` may hold: read from the installed TRL and transformers without importing them.

Their config classes are parsed with `ast` (about 15 ms); importing them takes seconds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Files that declare the options of each kind of stage, as (package, file, class).
_TRAINING_ARGUMENTS = ("transformers", "training_args.py", "TrainingArguments")
_TRL_BASE = ("trl", "trainer/base_config.py", "_BaseConfig")
_SFT = ("trl", "trainer/sft_config.py", "SFTConfig")
CONFIG_CLASSES = {"pretrain": (_SFT, _TRL_BASE, _TRAINING_ARGUMENTS), "sft": (_SFT, _TRL_BASE, _TRAINING_ARGUMENTS)}

# Keys that llmkit derives or owns, and where each is set instead.
OWNED = {
    "output_dir": "set 'run.output_dir'",
    "run_name": "set 'run.name'",
    "seed": "set 'run.seed' or the stage's 'seed'",
    "data_seed": "set 'run.seed' or the stage's 'seed'",
    "push_to_hub": "publishing is not part of training",
    "hub_model_id": "publishing is not part of training",
    "hub_token": "log in with the Hub's own command; no token belongs in a recipe",
    "gradient_accumulation_steps": "set the stage's 'global_batch_size'; accumulation follows from it",
    "deepspeed": "set 'launch.accelerate' to a DeepSpeed config",
    "fsdp": "set 'launch.accelerate' to an FSDP config",
    "fsdp_config": "set 'launch.accelerate' to an FSDP config",
    "accelerator_config": "set 'launch.accelerate'",
    "resume_from_checkpoint": "a killed stage resumes by itself",
    "do_train": "a training stage trains",
    "do_eval": "set the stage's 'heldout'",
    "do_predict": "add an 'evaluate' stage",
    "chat_template_path": "set 'model.chat_template'",
    "eos_token": "it follows from the chat template",
    "pad_token": "it follows from the tokenizer",
    "model_init_kwargs": "set 'model'",
    "dataset_kwargs": "set the stage's 'data'",
    "dataset_text_field": "set 'columns' of the data source",
    "dataset_num_proc": "rows are tokenised by llmkit",
    "skip_memory_metrics": "peak memory is always measured",
    "remove_unused_columns": "rows hold only what the model reads",
    "local_rank": "set by the launcher",
    "padding_free": "packed rows are laid out to fit the attention implementation",
    "eval_packing": "held-out sets are packed like the training rows",
    "eval_strategy": "set the stage's 'heldout': it is measured before and after",
    "eval_steps": "set the stage's 'heldout': it is measured before and after",
    "eval_on_start": "set the stage's 'heldout': it is measured before and after",
    "load_best_model_at_end": "the last step's model is the stage's result",
    "metric_for_best_model": "the last step's model is the stage's result",
    "greater_is_better": "the last step's model is the stage's result",
    "trust_remote_code": "llmkit does not run code from model repositories",
    "auto_find_batch_size": "it would break 'global_batch_size'; set 'per_device_train_batch_size' lower",
    "ignore_data_skip": "a resumed stage must see the rows it has not seen",
    "save_only_model": "a killed stage resumes from whole checkpoints",
}
# Options of TRL's SFT trainer that next-token loss on documents does not read.
_SFT_ONLY = ("assistant_only_loss", "completion_only_loss", "loss_type", "truncation_mode", "packing_strategy", "packing")

# Where llmkit's default differs from upstream's.
DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {"learning_rate": 1e-5, "lr_scheduler_type": "cosine", "warmup_steps": 0.03, "save_steps": 0.1},
    "sft": {"packing": True, "packing_strategy": "bfd", "assistant_only_loss": True, "save_steps": 0.1},
}


@cache
def declared(kind: str) -> dict[str, Any]:
    """Option name -> its default where that is a literal (else None), for the config class of `kind`."""
    options: dict[str, Any] = {}
    for package, file, class_name in reversed(CONFIG_CLASSES[kind]):
        options |= _class_fields(_package_dir(package) / file, class_name)
    return {key: value for key, value in options.items() if not key.startswith("_")}


def _package_dir(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    return Path(spec.origin).parent


def _class_fields(path: Path, class_name: str) -> dict[str, Any]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name)
    return {
        node.target.id: _default(node.value)
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _default(node: ast.expr | None) -> Any:
    if isinstance(node, ast.Call):
        node = next((k.value for k in node.keywords if k.arg == "default"), None)
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None


def check_trainer(kind: str, trainer: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(key, what, cure) for every key that the trainer of `kind` does not take."""
    options = declared(kind)
    for key in trainer:
        if key in OWNED:
            yield key, "is set by llmkit", OWNED[key]
        elif kind == "pretrain" and key in _SFT_ONLY:
            yield key, "has no effect in a 'pretrain' stage: documents are always packed and every token is trained", ""
        elif key not in options:
            near = get_close_matches(key, [k for k in options if k not in OWNED], n=1)
            yield key, f"unknown option of {CONFIG_CLASSES[kind][0][2]}", f"did you mean '{near[0]}'?" if near else ""


def resolved_trainer(kind: str, trainer: dict[str, Any]) -> dict[str, Any]:
    """The options of a stage: llmkit's defaults with the recipe's laid on them."""
    return {**DEFAULTS[kind], **trainer}
