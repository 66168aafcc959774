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
_DPO = ("trl", "trainer/dpo_config.py", "DPOConfig")
CONFIG_CLASSES = {
    "pretrain": (_SFT, _TRL_BASE, _TRAINING_ARGUMENTS),
    "sft": (_SFT, _TRL_BASE, _TRAINING_ARGUMENTS),
    "dpo": (_DPO, _TRL_BASE, _TRAINING_ARGUMENTS),
}

# Keys that llmkit derives or owns -> where each is set instead.
_HOMES = {
    "set 'run.output_dir'": "output_dir",
    "set 'run.name'": "run_name",
    "set 'run.seed' or the stage's 'seed'": "seed data_seed",
    "set the stage's 'global_batch_size'; accumulation follows from it": "gradient_accumulation_steps",
    "it would break 'global_batch_size'; set 'per_device_train_batch_size' lower": "auto_find_batch_size",
    "set 'launch.accelerate'": (
        "deepspeed fsdp fsdp_config accelerator_config parallelism_config local_rank use_cpu ddp_backend"
    ),
    "set 'model'": "model_init_kwargs chat_template_path trust_remote_code",
    "it follows from the chat template and the tokenizer": "eos_token pad_token",
    "set the stage's 'data'": (
        "dataset_kwargs dataset_text_field dataset_num_proc shuffle_dataset label_names length_column_name"
    ),
    "set 'max_truncated': rows keep their start": "truncation_mode",
    "packed rows are laid out to fit the attention implementation": "padding_free eval_packing remove_unused_columns",
    "set the stage's 'heldout': it is measured before and after": (
        "do_eval eval_strategy eval_steps eval_on_start eval_delay eval_accumulation_steps batch_eval_metrics "
        "eval_do_concat_batches eval_use_gather_object bf16_full_eval fp16_full_eval include_for_metrics "
        "prediction_loss_only"
    ),
    "the last step's model is the stage's result": "load_best_model_at_end metric_for_best_model greater_is_better",
    "a killed stage resumes by itself, from whole checkpoints": (
        "resume_from_checkpoint ignore_data_skip save_only_model restore_callback_states_from_checkpoint "
        "enable_jit_checkpoint"
    ),
    "a loss that is not a number stops the stage": "logging_nan_inf_filter",
    "progress is shown by the launcher": "disable_tqdm",
    "peak memory is always measured": "skip_memory_metrics",
    "every stage says what it does by its kind": "do_train do_predict",
    "training does not publish": (
        "push_to_hub hub_model_id hub_token hub_strategy hub_private_repo hub_always_push hub_revision "
        "trackio_bucket_id trackio_space_id trackio_static_space_id"
    ),
}
OWNED = {key: cure for cure, keys in _HOMES.items() for key in keys.split()}
# Options of TRL's SFT trainer that next-token loss on documents does not read.
_SFT_ONLY = ("assistant_only_loss", "completion_only_loss", "loss_type", "packing_strategy", "packing")
# Options of transformers' trainer that TRL's DPO loss does not read.
_NOT_DPO = {"label_smoothing_factor": "did you mean 'label_smoothing'?", "average_tokens_across_devices": ""}
# Options that TRL's DPO trainer reads only beside another: option -> (the other, values of it).
_DPO_BESIDE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "label_smoothing": ("loss_type", ("robust", "exo_pair", "aot", "aot_unpaired")),
    "discopop_tau": ("loss_type", ("discopop",)),
    "f_alpha_divergence_coef": ("f_divergence_type", ("alpha_divergence",)),
    "ref_model_mixup_alpha": ("sync_ref_model", (True,)),
    "ref_model_sync_steps": ("sync_ref_model", (True,)),
    "precompute_ref_batch_size": ("precompute_ref_log_probs", (True,)),
}

# Where llmkit's default differs from upstream's.
_CHECKPOINTS = {"save_steps": 0.1, "save_total_limit": 2}
DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {"learning_rate": 1e-5, "lr_scheduler_type": "cosine", "warmup_steps": 0.03, **_CHECKPOINTS},
    "sft": {"packing": True, "packing_strategy": "bfd", "assistant_only_loss": True, **_CHECKPOINTS},
    "dpo": {**_CHECKPOINTS},
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
        elif kind == "dpo" and key in _NOT_DPO:
            yield key, "has no effect in a 'dpo' stage: its loss is taken over pairs", _NOT_DPO[key]
        elif key not in options:
            near = get_close_matches(key, [k for k in options if k not in OWNED], n=1)
            yield key, f"unknown option of {CONFIG_CLASSES[kind][0][2]}", f"did you mean '{near[0]}'?" if near else ""
        elif kind == "dpo" and key in _DPO_BESIDE and trainer[key] is not None:
            other, values = _DPO_BESIDE[key]
            found = trainer.get(other)
            if not set(values) & set(found if isinstance(found, list) else [found]):
                yield (
                    key,
                    f"has no effect without '{other}'",
                    f"set {other}: {' or '.join(str(v).lower() for v in values)}",
                )


def resolved_trainer(kind: str, trainer: dict[str, Any]) -> dict[str, Any]:
    """The options of a stage: llmkit's defaults with the recipe's laid on them."""
    return {**DEFAULTS[kind], **trainer}
