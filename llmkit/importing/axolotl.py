"""axolotl's YAML. Its defaults are its own, so those that differ from TRL's are written out."""

from __future__ import annotations

import math
import re

from llmkit.importing import common, deepspeed
from llmkit.importing.axolotl_data import sources
from llmkit.importing.axolotl_keys import LISTED, RENAMED, WORDS
from llmkit.importing.draft import Draft, Entry
from llmkit.importing.foreign import as_number
from llmkit.importing.trl import template
from llmkit.importing.trl_stage import kind_of
from llmkit.recipe.trainer_keys import PRACTICE

_LORA = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
_OPTIMIZERS = {"adamw_hf": "adamw_torch", "paged_adamw": "paged_adamw_32bit"}
_ATTENTION = {"flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "eager_attention": "eager"}
_LIGER = re.compile(r"liger_\w+")


def convert(draft: Draft, system: str) -> None:
    """Fills the draft. Raises RecipeError for what no recipe of llmkit can mean."""
    draft.kind = draft.stage["kind"] = _kind(draft)
    common.model(draft, "base_model")
    if draft.get("revision_of_model") is not None:
        draft.model["revision"] = str(draft.given["revision_of_model"])
        draft.moved(("revision_of_model",), "model.revision")
    common.run_folder(draft)
    common.seed(draft)
    _types(draft)
    _attention(draft)
    deepspeed.launch(draft)
    _adapter(draft)
    _template(draft)
    draft.stage["data"] = sources(draft)
    common.cut_silently(draft)
    _aside(draft)
    _rewards(draft)
    common.batch(draft, "micro_batch_size", "gradient_accumulation_steps", 1)
    _options(draft)
    common.trainer(draft, RENAMED)
    _defaults(draft)
    draft.list_all({key: why or "llmkit decides it by the kind of stage" for key, why in LISTED.items()})
    common.without_effect(draft)
    common.finish(draft, WORDS | set(LISTED) | set(RENAMED))


def _kind(draft: Draft) -> str:
    """`rl` or `reward_model` say it; else documents alone make it pretraining."""
    rl = draft.get("rl")
    if draft.get("reward_model") is True:
        draft.moved(("reward_model",), "kind", "reward")
        return "reward"
    if draft.get("process_reward_model") is True:
        return kind_of("prm", draft.place(("process_reward_model",)))
    if rl:
        kind = {"ipo": "dpo", "gdpo": "grpo"}.get(str(rl), str(rl))
        found = kind_of(kind, draft.place(("rl",)))
        draft.moved(("rl",), "kind", f"{found}, loss_type: ipo" if rl == "ipo" else found)
        return found
    sets = draft.get("datasets", [])
    sets = sets if isinstance(sets, list) else []
    plain = [isinstance(item, dict) and item.get("type") in ("completion", "pretrain") for item in sets]
    return "pretrain" if draft.get("pretraining_dataset") or (plain and all(plain)) else "sft"


def _types(draft: Draft) -> None:
    """`bf16: auto` is true on today's GPUs; weights are loaded in the same type."""
    common.dtype(draft, "torch_dtype")
    if "dtype" not in draft.model and draft.get("bf16", draft.get("bfloat16")) not in (None, False):
        draft.model["dtype"] = "bfloat16"
        draft.added.append(Entry("bfloat16, since bf16 is on there", "mapped", "model.dtype"))
    for key in ("bf16", "bfloat16", "fp16", "float16"):
        value, name = draft.get(key), {"bfloat16": "bf16", "float16": "fp16"}.get(key, key)
        if value is None:
            continue
        if value in ("auto", "full"):
            draft.set_trainer(name, True, (key,), f"'{value}': set it to false where the device has no {name}")
        elif name not in draft.stage.get("trainer", {}):
            draft.set_trainer(name, value, (key,))


def _attention(draft: Draft) -> None:
    value = draft.get("attention")
    common.attention(draft)
    if isinstance(value, str):
        draft.model["attn_implementation"] = {"flash": "flash_attention_2"}.get(value, value)
        draft.moved(("attention",), "model.attn_implementation")
    for key, name in _ATTENTION.items():
        if draft.get(key) is True:
            draft.model["attn_implementation"] = name
            draft.moved((key,), "model.attn_implementation", name)
        draft.list_all({key: "false: transformers chooses"})
    if draft.get("flex_attention") is True:
        draft.model["attn_implementation"] = "flex_attention"
        draft.moved(("flex_attention",), "model.attn_implementation")


def _adapter(draft: Draft) -> None:
    kind = draft.get("adapter")
    if kind not in (None, "lora", "qlora"):
        raise draft.refuse(("adapter",), f"llmkit has no adapter '{kind}'", "use lora or qlora")
    if kind is not None:
        common.adapter(draft, _LORA, {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0})
        targets = draft.get("lora_target_modules")
        if draft.get("lora_target_linear") is True:
            draft.stage["peft"]["target_modules"] = "all-linear"
            draft.moved(("lora_target_linear",), "peft.target_modules", "all-linear")
        elif targets:
            draft.stage["peft"]["target_modules"] = targets
            draft.moved(("lora_target_modules",), "peft.target_modules")
        else:
            common.default_targets(draft)
        if draft.get("peft_use_dora") is True:
            draft.stage["peft"]["method"] = "dora"
            draft.moved(("peft_use_dora",), "peft.method")
        draft.moved(("adapter",), "peft")
    draft.list_all(
        dict.fromkeys([*_LORA, "lora_target_modules", "lora_target_linear", "peft_use_dora"], "not in use here")
    )
    four = draft.get("load_in_4bit") is True or kind == "qlora"
    common.quantize(draft, 4 if four else 0, ("load_in_4bit",))
    common.quantize(draft, 8 if draft.get("load_in_8bit") is True else 0, ("load_in_8bit",))


def _template(draft: Draft) -> None:
    """axolotl's names: `tokenizer_default`, `jinja` with `chat_template_jinja`, or a family's."""
    name = draft.get("chat_template")
    path = draft.get("chat_template_jinja")
    if name == "chatml":
        draft.model["chat_template"] = "chatml"
        draft.moved(("chat_template",), "model.chat_template")
    elif path is not None and "{" not in str(path):
        draft.model["chat_template"] = common.safe_path(draft, ("chat_template_jinja",), path)
        draft.moved(("chat_template_jinja",), "model.chat_template", "it needs {% generation %} marks")
    elif path is not None:
        template(draft, "chat_template_jinja")
    why = "the tokenizer's own template is used; set `model.chat_template` if it has no {% generation %} marks"
    draft.list_all({"chat_template": f"'{name}': {why}"})


def _aside(draft: Draft) -> None:
    if "heldout" in draft.stage:
        draft.list_all({"val_set_size": "`test_datasets` are held out"})
    else:
        common.set_aside(draft, draft.stage["data"], draft.get("val_set_size", 0), ("val_set_size",))


def _rewards(draft: Draft) -> None:
    """`trl:` holds the options of GRPO."""
    inner = draft.get("trl")
    if not isinstance(inner, dict) or draft.kind not in PRACTICE:
        draft.list_all({"trl": "only GRPO reads it"})
        return
    names = inner.get("reward_funcs")
    names = names if isinstance(names, list) else [names] if names else []
    weights = inner.get("reward_weights") or [1.0] * len(names)
    if (
        not names
        or not isinstance(weights, list)
        or len(names) != len(weights)
        or not all("." in str(name) for name in names)
    ):
        raise draft.refuse(("trl", "reward_funcs"), "needs functions, written module.function, and a weight for each")
    paths = [f"{str(name).rpartition('.')[0]}:{str(name).rpartition('.')[2]}" for name in names]
    draft.stage["rewards"] = [{"path": path, "weight": as_number(w)} for path, w in zip(paths, weights, strict=True)]
    draft.moved(("trl", "reward_funcs"), "rewards", "functions are imported from your own package")
    draft.moved(("trl", "reward_weights"), "rewards[].weight")
    common.nested(draft, "trl")


def _options(draft: Draft) -> None:
    """Options whose values have other names."""
    optimizer = draft.get("optimizer")
    if isinstance(optimizer, str) and optimizer in _OPTIMIZERS:
        draft.set_trainer("optim", _OPTIMIZERS[optimizer], ("optimizer",))
    if draft.get("gradient_checkpointing") in ("unsloth", "offload", "offload_disk"):
        draft.set_trainer("gradient_checkpointing", True, ("gradient_checkpointing",), "without offloading")
    if draft.get("rl") == "ipo":
        draft.stage.setdefault("trainer", {})["loss_type"] = "ipo"
    per_epoch = draft.get("saves_per_epoch")
    if per_epoch is not None:
        epochs = max(1.0, draft.number("num_epochs", 1))
        share = round(1 / math.ceil(draft.count("saves_per_epoch", 1) * epochs), 4)
        draft.set_trainer("save_steps", share if share < 1 else 0.5, ("saves_per_epoch",), "a share of all steps")
    elif draft.get("save_strategy") is None and draft.get("save_steps") is None:
        draft.set_trainer("save_strategy", "epoch", None, "the default there")
    if draft.get("group_by_length") is True:
        draft.set_trainer("train_sampling_strategy", "group_by_length", ("group_by_length",))
    draft.list_all({"group_by_length": "false: rows are shuffled", "cosine_min_lr_ratio": _cosine(draft)})
    for key in [key for key in draft.given if _LIGER.fullmatch(key)]:
        if draft.given[key] is True:
            draft.set_trainer("use_liger_kernel", True, (key,), "liger's own choice of kernels")
    plugins = [str(name) for name in draft.get("plugins", [])] if isinstance(draft.get("plugins", []), list) else []
    if plugins:
        draft.listed(("plugins",), "llmkit has no plugins; liger is `use_liger_kernel`")


def _cosine(draft: Draft) -> str:
    if draft.get("cosine_min_lr_ratio") is not None:
        draft.set_trainer("lr_scheduler_type", "cosine_with_min_lr", ("lr_scheduler",))
        ratio = {"min_lr_rate": draft.number("cosine_min_lr_ratio", 0)}
        draft.set_trainer("lr_scheduler_kwargs", ratio, ("cosine_min_lr_ratio",))
    return ""


def _defaults(draft: Draft) -> None:
    """axolotl's own, where TRL's or llmkit's are others."""
    draft.default_trainer(num_train_epochs=1, lr_scheduler_type="cosine", optim="adamw_torch_fused")
    draft.default_trainer(gradient_checkpointing=False, logging_steps=500)
    if draft.get("wandb_project"):
        draft.default_trainer(report_to="wandb")
    if not {"warmup_steps", "warmup_ratio"} & set(draft.given):
        draft.default_trainer(warmup_steps=0.03)
    if draft.kind == "sft":
        draft.default_trainer(packing=False)
        all_tokens = draft.get("train_on_inputs") is True
        why = "it trains everything" if all_tokens else "answers alone are trained"
        if "train_on_inputs" in draft.given:
            draft.set_trainer("assistant_only_loss", not all_tokens, ("train_on_inputs",), why)
        else:
            draft.default_trainer(assistant_only_loss=True)
    if draft.kind in PRACTICE:
        draft.default_trainer(mask_truncated_completions=False, disable_dropout=False)
    if draft.kind not in PRACTICE:
        draft.default_trainer(max_length=512)
