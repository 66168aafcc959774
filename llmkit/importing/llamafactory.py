"""LLaMA-Factory's YAML. Its data sets are names in a dataset_info.json, which is read where it lies beside the file."""

from __future__ import annotations

from typing import Any

from llmkit.importing import common, deepspeed
from llmkit.importing.draft import Draft, Entry
from llmkit.importing.llamafactory_data import sources
from llmkit.importing.trl_stage import kind_of

RENAMED = {
    "cutoff_len": "max_length",
    "pref_beta": "beta",
    "dpo_label_smoothing": "label_smoothing",
    "enable_liger_kernel": "use_liger_kernel",
    "simpo_gamma": "",
}
_ROWS = "rows are prepared by llmkit, once, and kept"
_OPTIMIZER = "not supported: the optimizers of `optim` in `trainer` are"
LISTED = {
    "trust_remote_code": "llmkit runs no code from model repositories",
    "overwrite_cache": _ROWS,
    "preprocessing_batch_size": _ROWS,
    "tokenized_path": _ROWS,
    "buffer_size": _ROWS,
    "data_shared_file_system": _ROWS,
    "data_seed": "rows are shuffled by `run.seed`",
    "dataset_dir": "data sets are named by their paths",
    "media_dir": "text only",
    "plot_loss": "the report shows every curve",
    "include_tokens_per_second": "tokens per second are always measured",
    "include_effective_tokens_per_second": "tokens per second are always measured",
    "cache_dir": "the Hub's own cache is used: HF_HOME in `launch.env`",
    "use_fast_tokenizer": "fast tokenizers only",
    "resize_vocab": "embedding rows are added for new tokens by themselves",
    "split_special_tokens": "special tokens that a message spells stay text",
    "add_tokens": "tokens of the chat template are added by themselves",
    "add_special_tokens": "tokens of the chat template are added by themselves",
    "new_special_tokens": "tokens of the chat template are added by themselves",
    "new_special_tokens_config": "tokens of the chat template are added by themselves",
    "low_cpu_mem_usage": "transformers decides it",
    "use_unsloth": "set `use_liger_kernel` in `trainer`",
    "use_unsloth_gc": "set `gradient_checkpointing` in `trainer`",
    "shift_attn": "attention is transformers': `model.attn_implementation`",
    "rope_scaling": "set it in the model's own configuration",
    "upcast_layernorm": "set `model.dtype`",
    "upcast_lmhead_output": "set `model.dtype`",
    "pure_bf16": "set `model.dtype: bfloat16`",
    "use_cache": "",
    "infer_backend": "llmkit trains by this recipe; `llmkit chat` talks to the model",
    "infer_dtype": "llmkit trains by this recipe; `llmkit chat` talks to the model",
    "predict_with_generate": "set `prompts` or `evals`",
    "max_new_tokens": "set `prompts` or `evals`",
    "top_p": "only stages that sample answers read it",
    "top_k": "only stages that sample answers read it",
    "eval_dataset": "",
    "eval_on_each_dataset": "each set in `heldout` is measured by itself",
    "compute_accuracy": "loss is measured on `heldout`; list tasks in `evals` for accuracy",
    "use_galore": _OPTIMIZER,
    "use_apollo": _OPTIMIZER,
    "use_badam": _OPTIMIZER,
    "use_adam_mini": _OPTIMIZER,
    "use_muon": _OPTIMIZER,
    "use_llama_pro": "all weights are trained, or an adapter",
    "create_new_adapter": "an adapter is always new; start from a stage that merged one",
    "adapter_name_or_path": "start from a stage that made the adapter: `from`",
    "ref_model": "the reference is the model that training starts from",
    "ref_model_adapters": "the reference is the model that training starts from",
    "additional_target": "rows of new tokens are trained by themselves; other modules are not",
    "use_rslora": "not supported: updates are scaled by lora_alpha / r",
    "loraplus_lr_ratio": "not supported",
    "pissa_init": "not supported",
    "quantization_type": "NF4 is the one that llmkit has",
    "quantization_method": "bitsandbytes is the one that llmkit has",
    "double_quantization": "4-bit constants are always quantised again",
    "disable_shuffling": "rows are always shuffled, by `run.seed`",
    "mask_history": "every answer of a conversation is trained",
    "ray_run_name": "llmkit starts its workers itself",
    "ray_storage_path": "llmkit starts its workers itself",
    "ray_num_workers": "set `launch.num_processes`",
    "resources_per_worker": "llmkit starts its workers itself",
    "placement_strategy": "llmkit starts its workers itself",
    "neat_packing": "rows are always packed without attention across them",
    "ignore_pad_token_for_loss": "padding is never trained",
    "streaming": "set a source's `streaming`",
    "enable_thinking": "reasoning stays in `reasoning_content`",
    "report_to_project": "set `project` in `trainer`",
}  # fmt: skip
_WORDS = {
    "model_name_or_path", "model_revision", "stage", "finetuning_type", "dataset", "template", "cutoff_len",
    "max_samples",
    "val_size", "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "use_dora", "quantization_bit", "flash_attn",
    "mix_strategy", "interleave_probs", "train_on_prompt", "packing", "pref_loss", "pref_ftx", "deepspeed", "fsdp",
    "disable_gradient_checkpointing", "output_dir", "default_system", "reward_model", "bf16", "fp16", "do_train",
}  # fmt: skip
_LORA = {"lora_rank": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
_ATTENTION = {"fa2": "flash_attention_2", "sdpa": "sdpa", "disabled": "eager"}
_LOSSES = ("sigmoid", "hinge", "ipo")


def convert(draft: Draft, system: str) -> None:
    """Fills the draft. Raises RecipeError for what no recipe of llmkit can mean."""
    draft.kind = draft.stage["kind"] = kind_of(str(draft.get("stage", "sft")), draft.place(("stage",)))
    draft.moved(("stage",), "kind", draft.kind)
    if draft.get("do_train") is False:
        raise draft.refuse(("do_train",), "this file does not train", "import one that trains; evaluate with `evals`")
    common.model(draft)
    common.run_folder(draft)
    common.seed(draft)
    deepspeed.launch(draft)
    _tuning(draft)
    _template(draft)
    draft.stage["data"] = sources(draft)
    common.cut_silently(draft)
    _aside(draft)
    common.batch(draft, "per_device_train_batch_size", "gradient_accumulation_steps")
    _options(draft)
    common.trainer(draft, RENAMED)
    _defaults(draft)
    draft.list_all({key: why or "llmkit decides it by the kind of stage" for key, why in LISTED.items()})
    common.without_effect(draft)
    common.finish(draft, _WORDS | set(LISTED) | set(RENAMED))


def _tuning(draft: Draft) -> None:
    """All weights, or LoRA. Other ways to tune have no counterpart."""
    how = draft.get("finetuning_type", "lora")
    if how not in ("lora", "full"):
        raise draft.refuse(("finetuning_type",), f"llmkit does not tune by '{how!s:.40}'", "use lora or full")
    if how == "lora":
        rank = draft.count("lora_rank", 8)
        common.adapter(draft, _LORA, {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0})
        target = draft.get("lora_target", "all")
        names = [name.strip() for name in target.split(",")] if isinstance(target, str) else target
        draft.stage["peft"]["target_modules"] = "all-linear" if names in ("all", ["all"]) else names
        draft.moved(("lora_target",), "peft.target_modules", "all-linear" if names == ["all"] else "")
        half = "float16" if draft.get("fp16") is True else "bfloat16"
        draft.model["dtype"] = half
        draft.added.append(Entry(f"{half}, as frozen weights are there", "mapped", "model.dtype"))
        if draft.get("use_dora") is True:
            draft.stage["peft"]["method"] = "dora"
            draft.moved(("use_dora",), "peft.method")
        draft.moved(("finetuning_type",), "peft", "lora")
    draft.list_all({"finetuning_type": "full: all weights are trained"})
    draft.list_all(dict.fromkeys([*_LORA, "lora_target", "use_dora"], "not in use here"))
    common.quantize(draft, draft.get("quantization_bit"), ("quantization_bit",))


def _template(draft: Draft) -> None:
    """Names of templates are LLaMA-Factory's own; chatml alone is one of llmkit's."""
    name = draft.get("template")
    if draft.kind == "pretrain":
        draft.list_all({"template": "documents have no chat template"})
    elif name in ("chatml", "qwen"):
        draft.model["chat_template"] = "chatml"
        draft.moved(("template",), "model.chat_template", "without a system prompt of its own")
    why = "the tokenizer's own template is used; set `model.chat_template` if it has no {% generation %} marks"
    draft.list_all({"template": f"'{name}': {why}", "default_system": "put a system message into the rows"})


def _aside(draft: Draft) -> None:
    if draft.kind == "reward" or "heldout" in draft.stage:
        draft.list_all({"val_size": "`heldout_fraction` sets prompts aside, or `eval_dataset` is held out"})
    else:
        common.set_aside(draft, draft.stage["data"], draft.get("val_size", 0), ("val_size",))


def _options(draft: Draft) -> None:
    """Options whose values have other names."""
    attention = draft.get("flash_attn")
    if isinstance(attention, str) and attention in _ATTENTION:
        draft.model["attn_implementation"] = _ATTENTION[attention]
        draft.moved(("flash_attn",), "model.attn_implementation")
    draft.list_all({"flash_attn": "transformers chooses"})
    if draft.get("disable_gradient_checkpointing") is not None:
        off = draft.given["disable_gradient_checkpointing"] is True
        draft.set_trainer("gradient_checkpointing", not off, ("disable_gradient_checkpointing",))
    _loss(draft)
    if draft.kind == "sft" and draft.get("train_on_prompt") is not None:
        whole = draft.given["train_on_prompt"] is True
        draft.set_trainer("assistant_only_loss", not whole, ("train_on_prompt",))
    draft.list_all({"train_on_prompt": "only `sft` reads it"})


def _loss(draft: Draft) -> None:
    loss: Any = draft.get("pref_loss", "sigmoid")
    if draft.kind != "dpo":
        draft.list_all(dict.fromkeys(("pref_loss", "pref_beta", "pref_ftx"), "only `dpo` reads it"))
        return
    if loss in ("orpo", "simpo"):
        kind_of(str(loss), draft.place(("pref_loss",)))
    if loss not in _LOSSES:
        raise draft.refuse(("pref_loss",), f"llmkit has no loss '{loss!s:.40}'", f"use one of {', '.join(_LOSSES)}")
    share = draft.number("pref_ftx", 0)
    if share:
        draft.set_trainer("loss_type", [loss, "sft"], ("pref_loss",))
        draft.set_trainer("loss_weights", [1.0, float(share)], ("pref_ftx",))
    else:
        draft.set_trainer(
            "loss_type", loss, ("pref_loss",) if "pref_loss" in draft.given else None, "the default there"
        )
    draft.list_all({"pref_ftx": "0: no loss on the chosen answers alone"})


def _defaults(draft: Draft) -> None:
    """transformers' and LLaMA-Factory's own, where TRL's or llmkit's are others."""
    draft.default_trainer(learning_rate=5e-5, gradient_checkpointing=True, logging_steps=500, bf16=False)
    if draft.kind != "pretrain":
        draft.default_trainer(max_length=2048)
    if draft.kind == "sft":
        draft.default_trainer(packing=draft.get("neat_packing") is True, assistant_only_loss=True)
    if draft.kind == "reward":
        draft.default_trainer(num_train_epochs=3)
