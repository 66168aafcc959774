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
_GRPO = ("trl", "trainer/grpo_config.py", "GRPOConfig")
_RLOO = ("trl", "trainer/rloo_config.py", "RLOOConfig")
_REWARD = ("trl", "trainer/reward_config.py", "RewardConfig")
CONFIG_CLASSES = {
    "pretrain": (_SFT, _TRL_BASE, _TRAINING_ARGUMENTS),
    "sft": (_SFT, _TRL_BASE, _TRAINING_ARGUMENTS),
    "dpo": (_DPO, _TRL_BASE, _TRAINING_ARGUMENTS),
    "grpo": (_GRPO, _TRL_BASE, _TRAINING_ARGUMENTS),
    "rloo": (_RLOO, _TRL_BASE, _TRAINING_ARGUMENTS),
    "rlhf_grpo": (_GRPO, _TRL_BASE, _TRAINING_ARGUMENTS),
    "rlhf_rloo": (_RLOO, _TRL_BASE, _TRAINING_ARGUMENTS),
    "reward": (_REWARD, _TRL_BASE, _TRAINING_ARGUMENTS),
}
"""By kind of stage; `rlhf` has one for each `algorithm`."""
PRACTICE = ("grpo", "rloo", "rlhf", "rlhf_grpo", "rlhf_rloo")
"""Kinds whose trainer samples what it trains on."""

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
# The same, of the trainers that sample.
_PRACTICE_HOMES = {
    "set 'generation_batch_size': it does not change with per_device_train_batch_size": "steps_per_generation",
    "set the 'weight' of a reward": "reward_weights",
    "set the stage's 'heldout' and 'measure'": "num_generations_eval",
    "rollouts are always kept in the stage's data/, and the report shows some": (
        "log_completions log_completions_hub_repo log_multimodal log_unique_prompts num_completions_to_print"
    ),
    "prompts are rendered as in training": "chat_template_kwargs",
    "llmkit calls no tools while it samples": "max_tool_calling_iterations",
    "set 'use_transformers_continuous_batching'": "use_transformers_paged",
    "set 'vllm_importance_sampling_clip_max'": "vllm_importance_sampling_cap",
}
_PRACTICE_OWNED = {key: cure for cure, keys in _PRACTICE_HOMES.items() for key in keys.split()}
# Options of generation that llmkit's own decoding does not have; vLLM and continuous batching read them.
_ENGINES_ONLY = ("generation_kwargs", "cache_implementation", "repetition_penalty", "top_k", "min_p")
# Options of transformers' trainer that losses over sampled answers do not read.
_NOT_PRACTICE = ("label_smoothing_factor", "average_tokens_across_devices")
# Options of TRL's SFT trainer that next-token loss on documents does not read.
_SFT_ONLY = ("assistant_only_loss", "completion_only_loss", "loss_type", "packing_strategy", "packing")
# Options of transformers' trainer that TRL's DPO loss does not read.
_NOT_DPO = {"label_smoothing_factor": "did you mean 'label_smoothing'?", "average_tokens_across_devices": ""}
# The same of losses over rankings.
_NOT_REWARD = {
    "label_smoothing_factor": "set the stage's 'loss.label_smoothing'",
    "average_tokens_across_devices": "",
}
# Options that TRL's DPO trainer reads only beside another: option -> (the other, values of it).
_DPO_BESIDE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "label_smoothing": ("loss_type", ("robust", "exo_pair", "aot", "aot_unpaired")),
    "discopop_tau": ("loss_type", ("discopop",)),
    "f_alpha_divergence_coef": ("f_divergence_type", ("alpha_divergence",)),
    "ref_model_mixup_alpha": ("sync_ref_model", (True,)),
    "ref_model_sync_steps": ("sync_ref_model", (True,)),
    "precompute_ref_batch_size": ("precompute_ref_log_probs", (True,)),
}

_SAPO, _VESPO = ("sapo",), ("vespo",)
_PRACTICE_BESIDE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "sapo_temperature_neg": ("loss_type", _SAPO),
    "sapo_temperature_pos": ("loss_type", _SAPO),
    "vespo_k_pos": ("loss_type", _VESPO),
    "vespo_lambda_pos": ("loss_type", _VESPO),
    "vespo_k_neg": ("loss_type", _VESPO),
    "vespo_lambda_neg": ("loss_type", _VESPO),
    "entropy_coef_min": ("use_adaptive_entropy", (True,)),
    "entropy_coef_max": ("use_adaptive_entropy", (True,)),
    "entropy_coef_delta": ("use_adaptive_entropy", (True,)),
    "entropy_target": ("use_adaptive_entropy", (True,)),
    "ref_model_mixup_alpha": ("sync_ref_model", (True,)),
    "ref_model_sync_steps": ("sync_ref_model", (True,)),
    "transformers_continuous_batching_config": ("use_transformers_continuous_batching", (True,)),
}

_BESIDE = {"dpo": _DPO_BESIDE, **dict.fromkeys(PRACTICE, _PRACTICE_BESIDE)}

# Where llmkit's default differs from upstream's.
_CHECKPOINTS = {"save_steps": 0.1, "save_total_limit": 2}
# An answer that was cut off teaches nothing; dropout would make what is sampled differ from what is trained.
_PRACTISED = {"mask_truncated_completions": True, "disable_dropout": True, "logging_steps": 1, **_CHECKPOINTS}
# An answer that was cut off is penalised, and must be unlearned.
_REWARDED = {**_PRACTISED, "mask_truncated_completions": False, "beta": 0.02}
DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {"learning_rate": 1e-5, "lr_scheduler_type": "cosine", "warmup_steps": 0.03, **_CHECKPOINTS},
    "sft": {"packing": True, "packing_strategy": "bfd", "assistant_only_loss": True, **_CHECKPOINTS},
    "dpo": {**_CHECKPOINTS},
    "grpo": {**_PRACTISED, "scale_rewards": "none"},
    "rloo": {**_PRACTISED, "num_generations": 8, "beta": 0.0},
    "rlhf_grpo": {**_REWARDED, "scale_rewards": "none"},
    "rlhf_rloo": {**_REWARDED, "num_generations": 8},
    "reward": {"num_train_epochs": 1, **_CHECKPOINTS},
}


@cache
def declared(kind: str) -> dict[str, Any]:
    """Option name -> its default where that is a literal (else None), for the config class of `kind`."""
    options: dict[str, Any] = {}
    for package, file, class_name in reversed(CONFIG_CLASSES[kind]):
        options |= _class_fields(package_dir(package) / file, class_name)
    return {key: value for key, value in options.items() if not key.startswith("_")}


def package_dir(package: str) -> Path:
    """Folder of an installed package. Raises ModuleNotFoundError where there is none."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    return Path(spec.origin).parent


def trainer_options(kind: str, trainer: dict[str, Any]) -> dict[str, Any]:
    """Every option of a stage that is resolved, upstream's defaults included where they are literals."""
    return {**declared(kind), **trainer}


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
    options, owned = declared(kind), {**OWNED, **(_PRACTICE_OWNED if kind in PRACTICE else {})}
    for key in trainer:
        if key in owned:
            yield key, "is set by llmkit", owned[key]
        elif kind == "pretrain" and key in _SFT_ONLY:
            yield key, "has no effect in a 'pretrain' stage: documents are always packed and every token is trained", ""
        elif kind == "reward" and key in _NOT_REWARD:
            yield key, "has no effect in a 'reward' stage: its loss is taken over rankings", _NOT_REWARD[key]
        elif kind == "dpo" and key in _NOT_DPO:
            yield key, "has no effect in a 'dpo' stage: its loss is taken over pairs", _NOT_DPO[key]
        elif key not in options:
            near = get_close_matches(key, [k for k in options if k not in owned], n=1)
            yield key, f"unknown option of {CONFIG_CLASSES[kind][0][2]}", f"did you mean '{near[0]}'?" if near else ""
        elif kind in _BESIDE and trainer[key] is not None:
            yield from _beside(key, trainer, _BESIDE[kind])
    if kind in PRACTICE:
        yield from _practised(kind, trainer)


def _beside(
    key: str, trainer: dict[str, Any], table: dict[str, tuple[str, tuple[Any, ...]]]
) -> Iterator[tuple[str, str, str]]:
    """An option that only counts beside another."""
    if key not in table:
        return
    other, values = table[key]
    found = trainer.get(other)
    if not any(value in values for value in (found if isinstance(found, list) else [found])):
        listed = " or ".join(str(value).lower() for value in values)
        yield key, f"has no effect without '{other}'", f"set {other}: {listed}"


def _practised(kind: str, trainer: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What has no effect given the rest, of the trainers that sample."""
    options = trainer_options(kind, resolved_trainer(kind, trainer))
    given = {key for key, value in trainer.items() if value is not None}
    for key in sorted(given & set(_NOT_PRACTICE)):
        yield key, f"has no effect in a '{kind.partition('_')[0]}' stage: its loss is taken over sampled answers", ""
    if not (options.get("use_vllm") or options.get("use_transformers_continuous_batching")):
        for key in sorted(given & set(_ENGINES_ONLY)):
            yield key, "has no effect with llmkit's own decoding", "set 'use_vllm', or leave it out"
    if not options.get("use_vllm"):
        for key in sorted(key for key in given if key.startswith("vllm_")):
            yield key, "has no effect without 'use_vllm'", "set use_vllm: true, or leave it out"
    if not options.get("beta"):
        for key in sorted(given & {"use_bias_correction_kl", "sync_ref_model"}):
            yield key, "has no effect without 'beta': there is no reference model", "set 'beta' above 0"
    if trains_once(options):
        for key in sorted(given & {"epsilon", "epsilon_high", "delta", "importance_sampling_level"}):
            what = "has no effect while every answer is trained once by the weights that wrote it"
            yield key, what, "set 'num_iterations' above 1 or a 'generation_batch_size', or leave it out"


def resolved_trainer(kind: str, trainer: dict[str, Any]) -> dict[str, Any]:
    """The options of a stage: llmkit's defaults with the recipe's laid on them."""
    options = {**DEFAULTS[kind], **trainer}
    if kind.endswith("grpo") and not trains_once(options):
        # clip-higher: DAPO (Yu et al. 2025), section 3.1
        options.setdefault("epsilon_high", 0.28)
    return options


def trains_once(trainer: dict[str, Any]) -> bool:
    """Whether every answer is trained once, by the weights that wrote it: then all probability ratios are 1."""
    return trainer.get("generation_batch_size") is None and trainer.get("num_iterations", 1) == 1
