"""LLaMA-Factory's keys: those with other names, those without a place, and those that the converter reads by itself.

Names are those of its argument classes (src/llamafactory/hparams), old ones with them.
"""

from __future__ import annotations

from llmkit.importing.common_keys import by_key

RENAMED = {
    "cutoff_len": "max_length",
    "pref_beta": "beta",
    "dpo_label_smoothing": "label_smoothing",
    "enable_liger_kernel": "use_liger_kernel",
    "moe_aux_loss_coef": "router_aux_loss_coef",
}
_ROWS = "rows are prepared by llmkit, once, and kept"
_OPTIMIZER = "not supported: the optimizers of `optim` in `trainer` are"
_TOKENS = "tokens of the chat template are added by themselves"
_ATTENTION = "attention is transformers': `model.attn_implementation`"
_REFERENCE = "the reference is the model that training starts from"
_ADAPTER = "not supported: adapters begin as peft begins them, and learn at one rate"
_SAMPLED = "set `prompts` or `evals`: what they sample has settings of its own"
_OTHER = "of another of its commands, not of training"
_WAYS = "all weights are trained, or an adapter"
_TEXT = "text only"
_WORKERS = "llmkit starts its workers itself"
_CHAT = "llmkit trains by this recipe; `llmkit chat` and `llmkit serve` talk to the model"

GENERATION = by_key(
    {
        _SAMPLED: (
            "do_sample temperature top_p top_k num_beams max_length max_new_tokens repetition_penalty length_penalty "
            "skip_special_tokens predict_with_generate eval_num_beams generation_max_length generation_num_beams "
            "generation_config"
        ),
        _OTHER: "task task_dir batch_size lang n_shot save_dir download_mode",
    }
)
"""Of answers that it samples, and of `llamafactory-cli eval`: some are options of TRL that mean something else."""

LISTED = by_key(
    {
        # model
        "llmkit runs no code from model repositories": "trust_remote_code",
        "the Hub's own cache is used: HF_HOME in `launch.env`": "cache_dir",
        "the Hub's own login is used": "hf_hub_token ms_hub_token om_hub_token",
        "fast tokenizers only": "use_fast_tokenizer",
        "embedding rows are added for new tokens by themselves": "resize_vocab init_special_tokens",
        "special tokens that a message spells stay text": "split_special_tokens",
        _TOKENS: "add_tokens add_special_tokens new_special_tokens new_special_tokens_config",
        "transformers decides it": "low_cpu_mem_usage",
        "Accelerate places the weights": "offload_folder quantization_device_map",
        "set it in the model's own configuration": "rope_scaling mixture_of_depths",
        _ATTENTION: "shift_attn",
        "set `use_liger_kernel` in `trainer`": "use_unsloth use_v1_kernels",
        "set `gradient_checkpointing` in `trainer`": "use_unsloth_gc",
        "set `model.dtype`": "upcast_layernorm upcast_lmhead_output",
        "set `model.dtype: bfloat16`": "pure_bf16",
        "not supported: bf16, fp16 or float32": "fp8 fp8_backend fp8_enable_fsdp_float8_all_gather",
        "it is off while a model is trained": "use_cache use_kv_cache",
        "`llmkit plan` shows what is trained": "print_param_status",
        # rows
        _ROWS: ("overwrite_cache preprocessing_batch_size tokenized_path buffer_size data_shared_file_system"),
        "data sets are named by their paths": "dataset_dir",
        "set a source's `streaming`": "streaming",
        "rows are shuffled by `run.seed`": "data_seed",
        "rows are always shuffled, by `run.seed`": "disable_shuffling sortish_sampler",
        "rows are always packed without attention across them": "neat_packing",
        "padding is never trained": "ignore_pad_token_for_loss",
        "every answer of a conversation is trained": "mask_history",
        "the chat template writes tools": "tool_format",
        "reasoning stays in `reasoning_content`": "enable_thinking",
        _TEXT: (
            "media_dir crop_to_patches use_audio_in_video freeze_vision_tower freeze_multi_modal_projector "
            "freeze_language_model"
        ),
        # what is trained
        "an adapter is always new; start from a stage that merged one": "create_new_adapter",
        "start from a stage that made the adapter: `from`": "adapter_name_or_path adapter_folder",
        "rows of new tokens are trained by themselves; other modules are not": "additional_target",
        "not supported: updates are scaled by lora_alpha / r": "use_rslora",
        _ADAPTER: "loraplus_lr_ratio loraplus_lr_embedding",
        "NF4 is the one that llmkit has": "quantization_type",
        "bitsandbytes is the one that llmkit has": "quantization_method",
        "4-bit constants are always quantised again": "double_quantization",
        _WAYS: "use_llama_pro module_dropout",
        _REFERENCE: "ref_model ref_model_adapters ref_model_quantization_bit",
        _OPTIMIZER: "use_adam_mini use_muon",
        "not supported: Accelerate and DeepSpeed share the work": "use_mca",
        "ORPO and SimPO have no stage": "simpo_gamma",
        "not supported: losses are TRL's, `loss_type` in `trainer`": "pref_bco_weight",
        # what is measured
        "the report shows every curve": "plot_loss",
        "tokens per second are always measured": ("include_tokens_per_second include_effective_tokens_per_second"),
        "each set in `heldout` is measured by itself": "eval_on_each_dataset",
        "loss is measured on `heldout`; list tasks in `evals` for accuracy": "compute_accuracy",
        "`early_stopping` of a stage asks questions; a loss does not stop it": "early_stopping_steps",
        "set `project` in `trainer`": "report_to_project",
        # how it is started
        _WORKERS: "resources_per_worker placement_strategy",
        # for inference: KTransformers
        _CHAT: "infer_backend infer_dtype cpu_infer chunk_size mode",
    }
)
"""Keys without a place -> what llmkit does instead."""

FAMILIES = {
    "image_": _TEXT,
    "video_": _TEXT,
    "audio_": _TEXT,
    "export_": "`llmkit export` writes GGUF, Ollama's and vLLM's folders; `llmkit push` publishes",
    "vllm_": _CHAT,
    "sglang_": _CHAT,
    "use_kt": _CHAT,
    "kt_": _CHAT,
    "freeze_": _WAYS,
    "oft_": _WAYS,
    "pissa_": _ADAPTER,
    "use_galore": _OPTIMIZER,
    "galore_": _OPTIMIZER,
    "use_apollo": _OPTIMIZER,
    "apollo_": _OPTIMIZER,
    "use_badam": _OPTIMIZER,
    "badam_": _OPTIMIZER,
    "kto_": "KTO has no stage",
    "ppo_": "of PPO, which has no stage",
    "reward_model_": "of PPO, which has no stage",
    "use_swanlab": "set `report_to` in `trainer`",
    "swanlab_": "set `report_to` in `trainer`",
    "ray_": _WORKERS,
}
"""First letters of keys of which llmkit has none -> what it does instead."""

WORDS = {
    "model_name_or_path", "model_revision", "stage", "finetuning_type", "dataset", "eval_dataset", "template",
    "cutoff_len", "max_samples", "val_size", "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "use_dora",
    "quantization_bit", "flash_attn", "mix_strategy", "interleave_probs", "train_on_prompt", "packing", "pref_loss",
    "pref_ftx", "deepspeed", "fsdp", "disable_gradient_checkpointing", "use_reentrant_gc", "output_dir",
    "default_system", "reward_model", "bf16", "fp16", "do_train", "use_dft_loss", "train_from_scratch",
}  # fmt: skip
"""Keys that the converter reads by itself."""
