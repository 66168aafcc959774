"""LLaMA-Factory's YAML. Its data sets are names in a dataset_info.json, which is read where it lies beside the file."""

from __future__ import annotations

from typing import Any

from llmkit.importing import common, deepspeed
from llmkit.importing.aside import set_aside
from llmkit.importing.draft import Draft, Entry
from llmkit.importing.llamafactory_data import sources
from llmkit.importing.llamafactory_keys import FAMILIES, GENERATION, LISTED, RENAMED, WORDS
from llmkit.importing.trl_stage import kind_of

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
    common.from_scratch(draft, "train_from_scratch")
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
    draft.list_absent({**GENERATION, **LISTED})
    draft.list_families(FAMILIES)
    common.trainer(draft, RENAMED)
    _defaults(draft)
    common.without_effect(draft)
    common.finish(draft, WORDS | set(LISTED) | set(RENAMED))


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
        set_aside(draft, draft.stage["data"], draft.get("val_size", 0), ("val_size",))


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
    if draft.get("use_reentrant_gc") is not None:
        how = {"use_reentrant": draft.given["use_reentrant_gc"] is True}
        draft.set_trainer("gradient_checkpointing_kwargs", how, ("use_reentrant_gc",))
    if draft.kind == "sft" and draft.get("use_dft_loss") is True:
        draft.set_trainer("loss_type", "dft", ("use_dft_loss",))
    draft.list_absent({"use_dft_loss": "only `sft` has this loss"})
    draft.list_all({"do_train": "every stage trains", "reward_model": "of PPO, which has no stage"})
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
        common.with_answers(draft, "pref_ftx", loss, float(share))
        draft.moved(("pref_loss",), "trainer.loss_type")
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
