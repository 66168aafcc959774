"""Keys of TRL and transformers, old and new, that recipes of several programs hold."""

from __future__ import annotations

from llmkit.recipe.trainer_keys import OWNED

RENAMED = {
    "max_seq_length": "max_length",
    "warmup_ratio": "warmup_steps",
    "use_liger": "use_liger_kernel",
    "optimizer": "optim",
    "vllm_max_model_len": "vllm_max_model_length",
    "vllm_guided_decoding_regex": "vllm_structured_outputs_regex",
    "neftune_alpha": "neftune_noise_alpha",
}
"""Old name -> today's name of an option of the trainer. `warmup_steps` below 1 is a share of the steps."""

NUMBERS = {"learning_rate", "weight_decay", "num_train_epochs", "warmup_steps", "max_grad_norm", "beta", "adam_epsilon"}
"""Options that YAML 1.1 may have read as text: `2e-5` has no point."""

_EVALUATED = "llmkit measures each set in `heldout` before and after the stage"
_HUB = "training does not publish"
REASONS = {
    "overwrite_output_dir": "each stage has a folder of its own: `run.name` and the stage's name say which",
    "logging_dir": "curves lie in the stage's folder",
    "evaluation_strategy": _EVALUATED,
    "per_device_eval_batch_size": _EVALUATED,
    "generate_during_eval": "set `prompts`: they are answered after every stage",
    "max_train_samples": "set a source's `num_rows`",
    "save_safetensors": "weights are always saved as safetensors",
    "max_prompt_length": "today's TRL has no such limit; `max_length` bounds prompt and answer together",
    "max_target_length": "today's TRL has no such limit; `max_length` bounds prompt and answer together",
    "is_encoder_decoder": "causal language models only",
    "model_adapter_name": "llmkit makes the adapters and the reference model itself",
    "ref_adapter_name": "llmkit makes the adapters and the reference model itself",
    "reference_free": "today's TRL has no such option",
    "label_pad_token_id": "it follows from the collator",
    "padding_value": "it follows from the tokenizer",
    "dataset_batch_size": "rows are prepared by llmkit",
    "num_of_sequences": "rows are packed by llmkit",
    "chars_per_token": "rows are packed by llmkit",
    "preprocessing_num_workers": "rows are prepared by llmkit, once, and kept",
    "tokenizer_name_or_path": "the model's own tokenizer is used; tokens of the chat template are added to it",
    "trust_remote_code": "llmkit runs no code from model repositories",
    "vllm_device": "today's TRL has no such option: `vllm_mode: colocate` shares the training GPUs",
    "vllm_dtype": "today's TRL has no such option",
    "use_cpu": OWNED["use_cpu"],
    "no_cuda": OWNED["use_cpu"],
    "push_to_hub_model_id": _HUB,
    "push_to_hub_organization": _HUB,
    "push_to_hub_token": _HUB,
    "push_to_hub_revision": _HUB,
    "hub_model_revision": _HUB,
    "wandb_entity": "wandb reads it from the environment: WANDB_ENTITY in `launch.env`",
    "wandb_run_group": "wandb reads it from the environment: WANDB_RUN_GROUP in `launch.env`",
}
"""Keys without a place -> what llmkit does instead. What llmkit sets itself is in `trainer_keys.OWNED`."""
