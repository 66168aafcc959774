"""axolotl's keys: those with other names, those without a place, and those that the converter reads by itself.

Names are those of its schema (src/axolotl/utils/schemas) and of its plugins, old ones with them.
"""

from __future__ import annotations

from llmkit.importing.common_keys import by_key

RENAMED = {
    "sequence_len": "max_length",
    "sample_packing": "packing",
    "num_epochs": "num_train_epochs",
    "optimizer": "optim",
    "lr_scheduler": "lr_scheduler_type",
    "rl_beta": "beta",
    "dpo_beta": "beta",
    "wandb_project": "project",
    "trackio_project_name": "project",
    "noisy_embedding_alpha": "neftune_noise_alpha",
}
DPO = {
    "dpo_label_smoothing": "label_smoothing",
    "dpo_use_weighting": "use_weighting",
    "dpo_loss_type": "loss_type",
    "dpo_loss_weights": "loss_weights",
    "dpo_use_liger_kernel": "use_liger_kernel",
}
"""Keys of preference pairs alone."""
REPORTERS = {
    "use_wandb": "wandb",
    "use_tensorboard": "tensorboard",
    "use_mlflow": "mlflow",
    "use_comet": "comet_ml",
    "use_trackio": "trackio",
}
"""Switches of trackers -> their names in `report_to`."""

_KERNELS = "set `use_liger_kernel` in `trainer`"
_ATTENTION = "attention is transformers': `model.attn_implementation`"
_PACKING = "llmkit's packing keeps rows apart by position ids"
_PROMPTS = "set `prompts`: they are answered after every stage"
_HELDOUT = "held-out sets are measured before and after the stage"
_CONFIG = "the model's own configuration says it; for other values change its config.json"
_SHARDING = "recipes/accelerate has the shapes of a launch; for other values give a config of your own"
_ROWS = "rows are prepared by llmkit, once, and kept"
_SPLIT = "set `split`, such as train[:10%]"
_TOKENS = "tokens of the chat template are added by themselves"
_TEXT = "text only"
_INTERNAL = "axolotl sets it itself"
_GROUPS = "not supported: one learning rate for all weights"
_OPTIMIZER = "of an optimizer that transformers does not have: see `optim` in `trainer`"
_PARALLEL = "not supported: every process reads whole sequences with whole layers; ZeRO-3 and FSDP share weights"
_LOSS = "not supported: losses are TRL's, `loss_type` in `trainer`"
_LENGTH = "not supported: position ids are the model's own"
_EXPERTS = "not supported: experts are loaded as transformers loads them"

LISTED = by_key(
    {
        _CONFIG: (
            "model_type type_of_model base_model_config cls_model_config is_llama_derived_model "
            "is_mistral_derived_model is_falcon_derived_model is_qwen_derived_model rope_scaling model_config "
            "overrides_of_model_config"
        ),
        "weights are loaded as `model` says": (
            "model_kwargs overrides_of_model_kwargs low_cpu_mem_usage experimental_skip_move_to_device "
            "embeddings_skip_upcast float32"
        ),
        "llmkit reads safetensors, and loads no code from model repositories": (
            "base_model_ignore_patterns trust_remote_code"
        ),
        "the model's own tokenizer is used": (
            "tokenizer_type tokenizer_config tokenizer_legacy tokenizer_use_mistral_common tokenizer_save_jinja_files"
        ),
        "fast tokenizers only": "tokenizer_use_fast",
        "the stop token follows from the chat template, padding from the tokenizer": "special_tokens eot_tokens",
        _TOKENS: "tokens added_tokens_overrides peft_trainable_token_indices",
        "rows are added for new tokens alone; the others stay as they are": (
            "resize_token_embeddings_to_32x mean_resizing_embeddings shrink_embeddings fix_untrained_tokens"
        ),
        "put a system message into the rows": "default_system_message",
        "prompts are rendered without options of the template": "chat_template_kwargs",
        _TEXT: "processor_type processor_kwargs image_size image_resize_algorithm freeze_mm_modules",
        "a reward model has one score": "num_labels",
        "an unknown key is always refused": "strict strict_tokens",
        # rows
        "prepared rows lie in the stage's folder": "dataset_prepared_path",
        _ROWS: "dataset_processes num_dataset_shards_to_save sample_packing_mp_start_method",
        _SPLIT: "dataset_shard_num dataset_shard_idx",
        "rows are read from disk": "dataset_keep_in_memory",
        "`dedup` is on unless a stage turns it off": "dataset_exact_deduplication",
        "rows are always shuffled, by `run.seed`": (
            "shuffle_merged_datasets shuffle_before_merging_datasets curriculum_sampling"
        ),
        "rows are always prepared by llmkit": "skip_prepare_dataset",
        "prepared rows are not published": "push_dataset_to_hub",
        "set a source's `streaming`": "streaming streaming_multipack_buffer_size pretrain_multipack_buffer_size",
        "held-out rows are read like training rows": "eval_sample_packing eval_sequence_len",
        _PACKING: (
            "pad_to_sequence_len sample_packing_group_size sample_packing_bin_size sample_packing_sequentially "
            "multipack_real_batches max_packed_sequence_len sample_packing_eff_est pretrain_multipack_attn "
            "batch_flattening dpo_padding_free"
        ),
        "documents are always packed": "pretraining_sample_concatenation",
        "short rows are kept: filter them in the data": "min_sample_len",
        "today's TRL has no such limit; `max_length` bounds prompt and answer together": "max_prompt_len",
        # adapters
        "start from a stage that made the adapter: `from`": "lora_model_dir",
        "it follows from the modules": "lora_fan_in_fan_out",
        "rows of new tokens are trained by themselves; other modules are not": "lora_modules_to_save",
        "set `peft.target_modules`": "lora_target_parameters peft_layers_to_transform peft_layers_pattern",
        "merging is done where the weights are": "lora_on_cpu merge_method",
        "`peft.merge` is on": "merge_lora",
        "not supported: updates are scaled by lora_alpha / r": "peft_use_rslora",
        "not supported: adapters begin as peft begins them, and learn at one rate": (
            "peft_init_lora_weights loraplus_lr_ratio loraplus_lr_embedding"
        ),
        "not supported by llmkit's adapters": "peft_layer_replication peft_ensure_weight_tying",
        "peft decides it": "peft_autocast_adapter_dtype",
        "NF4 by bitsandbytes is what llmkit has: `peft.quantization`": (
            "peft gptq bnb_config_kwargs model_quantization_config model_quantization_config_kwargs use_onebitllms "
            "qlora_sharded_model_loading"
        ),
        # optimizer, loss, precision
        _GROUPS: "lr_groups embedding_lr embedding_lr_scale",
        _OPTIMIZER: "torchdistx_path adam_epsilon2 adam_beta3",
        "not supported: the schedules of `lr_scheduler_type` in `trainer` are": (
            "lr_quadratic_warmup lr_div_factor cosine_constant_lr_ratio"
        ),
        _LOSS: "use_eaft eaft_alpha eaft_k",
        "today's TRL has no such option": "dpo_use_logits_to_keep dpo_norm_loss",
        _KERNELS: (
            "lora_mlp_kernel lora_qkv_kernel lora_o_kernel lora_embedding_kernel flash_attn_cross_entropy "
            "flash_attn_rms_norm flash_attn_fuse_qkv flash_attn_fuse_mlp chunked_cross_entropy "
            "chunked_cross_entropy_num_chunks fused_attn_kernel use_kernels tiled_mlp tiled_mlp_num_shards "
            "tiled_mlp_use_original_mlp"
        ),
        "set `torch_compile` in `trainer`": "torch_compile_options deepcompile",
        _ATTENTION: (
            "xformers_attention s2_attention sage_attention flash_optimum flex_attn_compile_kwargs sdpa_varlen "
            "gemma4_hybrid_attn_impl large_head_attention flash_attn_d512 scaling_softmax scaling_softmax_factor "
            "scaling_softmax_bias"
        ),
        "not supported: bf16, fp16 or float32": "fp8 fp8_config fp8_enable_fsdp_float8_all_gather fp32_norms",
        "norms have the type of the other weights": "fp32_norm_classes",
        "set `gradient_checkpointing` in `trainer`": "selective_checkpointing layer_offloading",
        _EXPERTS: ("experts_implementation quantize_moe_experts llama4_linearized_experts ple_cpu_offload"),
        # where it runs
        _SHARDING: "fsdp_version fsdp_final_state_dict_type dp_shard_size dp_replicate_size",
        _PARALLEL: "sequence_parallel_degree context_parallel_size tensor_parallel_size heads_k_stride ring_attn_func",
        "Accelerate places the weights": "device device_map max_memory",
        "the launcher knows it": "local_rank world_size",
        "set `launch`": "ddp",
        "set `per_device_train_batch_size` lower": "gpu_memory_limit",
        "set `torch_empty_cache_steps` in `trainer`": "gc_steps gc_collect_steps",
        "set `debug` in `trainer`, by transformers' values": "debug",
        "the Hub's own login is used": "hf_use_auth_token",
        # what is measured and kept
        "wandb reads it from the environment: WANDB_ENTITY in `launch.env`": "wandb_entity",
        "wandb reads it from the environment: WANDB_WATCH in `launch.env`": "wandb_watch",
        "wandb reads it from the environment: WANDB_MODE in `launch.env`": "wandb_mode",
        "models stay in the stage's folder": "wandb_log_model hf_mlflow_log_artifacts",
        "the run's name is `run.name`": "wandb_name wandb_run_id mlflow_run_name trackio_run_name",
        "mlflow reads it from the environment: MLFLOW_TRACKING_URI in `launch.env`": "mlflow_tracking_uri",
        "mlflow reads it from the environment: MLFLOW_EXPERIMENT_NAME in `launch.env`": "mlflow_experiment_name",
        "tokens per second are always measured": "include_tokens_per_second include_tkps",
        "not supported: llmkit writes no traces": "profiler_steps profiler_steps_start",
        "checkpoints are saved by `save_steps` in `trainer`": "save_first_step dynamic_checkpoint",
        "a killed stage resumes by itself, from whole checkpoints": "auto_resume_from_checkpoints",
        "`early_stopping` of a stage asks questions; a loss does not stop it": "early_stopping_patience",
        "a loss that is not a number stops the stage": "loss_watchdog_threshold loss_watchdog_patience",
        _PROMPTS: (
            "eval_table_size eval_max_new_tokens generate_samples num_generation_samples dpo_generate_during_eval"
        ),
        _HELDOUT: "eval_batch_size evals_per_epoch eval_causal_lm_metrics",
        "list lm-eval tasks in `evals`": "do_bench_eval bench_dataset bench_split do_causal_lm_eval",
        "weights are always saved as safetensors": "save_safetensors",
        # other ways to train
        "all weights are trained, or an adapter": "unfrozen_parameters",
        "ORPO, SimPO and CPO have no stage": "orpo_alpha simpo_gamma cpo_alpha",
        "KTO has no stage": "kto_desirable_weight kto_undesirable_weight",
        "energy-based tuning has no stage": "ebft",
        "not supported: weights are trained as they are loaded": "qat",
        "not a part of training; `llmkit export` writes GGUF, Ollama's and vLLM's folders": "quantization export",
        "llmkit has trainers of its own": "trainer_cls",
        "llmkit has no plugins; liger is `use_liger_kernel`": "plugins",
        "of the server that axolotl starts; `vllm_*` in `trainer` say where yours is": "vllm",
        _INTERNAL: ("is_preprocess preprocess_iterable total_num_tokens total_supervised_tokens axolotl_config_path"),
    }
)
"""Keys without a place -> what llmkit does instead."""

FAMILIES = {
    "comet_": "comet reads it from its own settings and the environment: COMET_... in `launch.env`",
    "trackio_": "set `trackio_*` in `trainer`",
    "use_otel_": "curves lie in the stage's folder",
    "otel_": "curves lie in the stage's folder",
    "gradio_": "`llmkit serve` has a page to chat",
    "use_ray": "llmkit starts its workers itself",
    "ray_": "llmkit starts its workers itself",
    "resources_per_worker": "llmkit starts its workers itself",
    "generation_": _PROMPTS,
    "unsloth_": _KERNELS,
    "cut_cross_entropy": _KERNELS,
    "use_pose": _LENGTH,
    "pose_": _LENGTH,
    "relora": "not supported: an adapter is trained once, and merged at the end",
    "jagged_restart_": "not supported: an adapter is trained once, and merged at the end",
    "lisa_": "all weights are trained, or an adapter",
    "spectrum_": "all weights are trained, or an adapter",
    "dion_": _OPTIMIZER,
    "qgalore_": _OPTIMIZER,
    "grokfast_": _OPTIMIZER,
    "kd_": "distillation from a teacher's probabilities has no stage",
    "lm_eval_": "list lm-eval tasks in `evals`",
    "swanlab_": "set `report_to` in `trainer`",
    "use_swanlab": "set `report_to` in `trainer`",
}
"""First letters of keys of which llmkit has none -> what it does instead."""

TRL_LISTED = by_key(
    {
        "today's TRL has no such option": "vllm_enable_prefix_caching",
        "answers are sampled by llmkit, batch by batch, before they are trained": (
            "rollout_func use_data_producer async_prefetch prefetch_depth vllm_sync_interval streaming_partial_batch "
            "streaming_min_groups vllm_lora_sync"
        ),
        "rewards are checked functions, one call a batch": "reward_num_workers",
        "set `sampling.resample`: groups of one reward are replaced": (
            "replay_buffer_size replay_recompute_logps reroll_start_fraction reroll_max_groups "
            "skip_zero_advantage_batches"
        ),
    }
)
"""The same, of keys under `trl`."""

SWITCHES = ("context_parallel_size", "sequence_parallel_degree", "tensor_parallel_size")
"""Sizes that are off at 1."""

WORDS = {
    "base_model", "revision_of_model", "datasets", "test_datasets", "pretraining_dataset", "chat_template", "rl", "trl",
    "chat_template_jinja", "adapter", "load_in_4bit", "load_in_8bit", "lora_r", "lora_alpha", "lora_dropout",
    "output_dir", "lora_target_modules", "lora_target_linear", "peft_use_dora", "val_set_size", "micro_batch_size",
    "deepspeed", "fsdp", "fsdp_config", "flash_attention", "sdp_attention", "eager_attention", "flex_attention",
    "attn_implementation", "gradient_checkpointing", "saves_per_epoch", "reward_model", "process_reward_model",
    "attention", "batch_size", "torch_dtype", "excess_length_strategy", "train_on_inputs", "cosine_min_lr_ratio",
    "rpo_alpha", "reinit_weights", "use_dft", "activation_offloading", "tf32", "torch_compile", "group_by_length",
}  # fmt: skip
"""Keys that the converter reads by itself."""
