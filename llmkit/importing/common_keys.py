"""Keys of TRL and transformers, old and new, that recipes of several programs hold."""

from __future__ import annotations

from llmkit.recipe.trainer_keys import OWNED


def by_key(reasons: dict[str, str]) -> dict[str, str]:
    """Reason -> keys with blanks between them, turned round: key -> reason."""
    return {key: why for why, keys in reasons.items() for key in keys.split()}


RENAMED = {
    "max_seq_length": "max_length",
    "warmup_ratio": "warmup_steps",
    "use_liger": "use_liger_kernel",
    "use_liger_loss": "use_liger_kernel",
    "optimizer": "optim",
    "vllm_max_model_len": "vllm_max_model_length",
    "vllm_guided_decoding_regex": "vllm_structured_outputs_regex",
    "neftune_alpha": "neftune_noise_alpha",
    "wandb_log_unique_prompts": "log_unique_prompts",
}
"""Old name -> today's name of an option of the trainer. `warmup_steps` below 1 is a share of the steps."""

NUMBERS = {"learning_rate", "weight_decay", "num_train_epochs", "warmup_steps", "max_grad_norm", "beta", "adam_epsilon"}
"""Options that YAML 1.1 may have read as text: `2e-5` has no point."""

_EVALUATED = "llmkit measures each set in `heldout` before and after the stage"
_HUB = "training does not publish"
_LIMIT = "today's TRL has no such limit; `max_length` bounds prompt and answer together"
_GONE = "today's TRL has no such option"
_OLD = "today's transformers has no such option"
_PACKED = "rows are packed by llmkit"
_SHARED = "set `launch.accelerate`"
REASONS = by_key(
    {
        "each stage has a folder of its own: `run.name` and the stage's name say which": "overwrite_output_dir",
        "curves lie in the stage's folder": "logging_dir",
        _EVALUATED: (
            "evaluation_strategy per_device_eval_batch_size per_gpu_eval_batch_size precompute_ref_eval_batch_size "
            "include_inputs_for_metrics"
        ),
        "set `prompts`: they are answered after every stage": "generate_during_eval",
        "set a source's `num_rows`": "max_train_samples max_num_train_samples",
        "weights are always saved as safetensors": "save_safetensors",
        _LIMIT: "max_prompt_length max_target_length",
        "causal language models only": "is_encoder_decoder",
        "llmkit makes the adapters and the reference model itself": (
            "model_adapter_name ref_adapter_name force_use_ref_model ref_model_init_kwargs"
        ),
        "it follows from the collator": "label_pad_token_id",
        "it follows from the tokenizer": "padding_value",
        "rows are prepared by llmkit": "dataset_batch_size",
        _PACKED: "num_of_sequences chars_per_token",
        "rows are prepared by llmkit, once, and kept": "preprocessing_num_workers",
        "tools stand in a row's column `tools`": "tools",
        "the model's own tokenizer is used; tokens of the chat template are added to it": "tokenizer_name_or_path",
        "llmkit runs no code from model repositories": "trust_remote_code",
        "today's TRL has no such option: `vllm_mode: colocate` shares the training GPUs": "vllm_device",
        _GONE: (
            "reference_free use_logits_to_keep base_model_attribute_name vllm_dtype vllm_init_kwargs "
            "vllm_enable_prefix_caching"
        ),
        _OLD: (
            "jit_mode_eval use_ipex past_index mp_parameters torchdynamo tpu_num_cores tpu_metrics_debug "
            "half_precision_backend fp16_backend fp16_opt_level"
        ),
        "set `optim: adafactor` in `trainer`": "adafactor",
        "set `per_device_train_batch_size` in `trainer`": "per_gpu_train_batch_size",
        "tokens per second are always measured": "include_tokens_per_second",
        _SHARED: "dispatch_batches split_batches fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap",
        "llmkit starts its workers itself": "ray_scope",
        OWNED["use_cpu"]: "use_cpu no_cuda use_mps_device",
        _HUB: (
            "push_to_hub_model_id push_to_hub_organization push_to_hub_token push_to_hub_revision hub_model_revision "
            "overwrite_hub_revision"
        ),
        "wandb reads it from the environment: WANDB_ENTITY in `launch.env`": "wandb_entity",
        "wandb reads it from the environment: WANDB_RUN_GROUP in `launch.env`": "wandb_run_group",
    }
)
"""Keys without a place -> what llmkit does instead. What llmkit sets itself is in `trainer_keys.OWNED`."""
