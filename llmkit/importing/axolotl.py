"""axolotl's YAML. Its defaults are its own, so those that differ from TRL's are written out."""

from __future__ import annotations

from llmkit.importing import common, deepspeed
from llmkit.importing.aside import set_aside
from llmkit.importing.axolotl_data import sources
from llmkit.importing.axolotl_keys import DPO, LISTED, RENAMED, REPORTERS, TRL_LISTED, WORDS
from llmkit.importing.axolotl_options import defaults, list_absent, options
from llmkit.importing.draft import Draft, Entry
from llmkit.importing.foreign import as_number
from llmkit.importing.trl import template
from llmkit.importing.trl_stage import kind_of
from llmkit.recipe.trainer_keys import PRACTICE

_LORA = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
_ATTENTION = {"flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "eager_attention": "eager"}
_ATTENTION |= {"flex_attention": "flex_attention"}
_OWN_TRAINERS = {"process_reward_model": "prm", "kd_trainer": "gkd"}
"""Switches of trainers that llmkit does not have."""
_TOO_LONG = {
    "drop": "longer rows are left out there",
    "truncate": "longer rows are cut",
    "raise": "a longer row stops the stage",
}


def convert(draft: Draft, system: str) -> None:
    """Fills the draft. Raises RecipeError for what no recipe of llmkit can mean."""
    draft.kind = draft.stage["kind"] = _kind(draft)
    common.model(draft, "base_model")
    common.from_scratch(draft, "reinit_weights")
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
    _long_rows(draft)
    _aside(draft)
    _rewards(draft)
    common.batch(draft, "micro_batch_size", "gradient_accumulation_steps", 1, "batch_size")
    options(draft)
    list_absent(draft)
    common.trainer(draft, RENAMED)
    defaults(draft)
    common.without_effect(draft)
    common.finish(draft, WORDS | set(LISTED) | set(RENAMED) | set(DPO) | set(REPORTERS))


def _kind(draft: Draft) -> str:
    """`rl` or `reward_model` say it; else documents alone make it pretraining."""
    rl = draft.get("rl")
    for key, word in _OWN_TRAINERS.items():
        if draft.get(key) is True and not rl:
            return kind_of(word, draft.place((key,)))
    if rl:
        kind = {"ipo": "dpo", "gdpo": "grpo"}.get(str(rl), str(rl))
        found = kind_of(kind, draft.place(("rl",)))
        draft.moved(("rl",), "kind", f"{found}, loss_type: ipo" if rl == "ipo" else found)
    elif draft.get("reward_model") is True:
        found = "reward"
        draft.moved(("reward_model",), "kind", found)
    else:
        found = _tuned(draft)
    draft.list_absent(dict.fromkeys(("rl", "reward_model", *_OWN_TRAINERS), "`rl` counts"))
    return found


def _tuned(draft: Draft) -> str:
    """Documents, or chats."""
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
        else:
            draft.listed((key,), f"`{name}` counts")


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
    four = draft.get("load_in_4bit") is True or kind == "qlora" or _by_bitsandbytes(draft)
    common.quantize(draft, 4 if four else 0, ("load_in_4bit",))
    common.quantize(draft, 8 if draft.get("load_in_8bit") is True else 0, ("load_in_8bit",))


def _by_bitsandbytes(draft: Draft) -> bool:
    """Today's way to say `load_in_4bit`."""
    wanted = {"backend": "bnb", "weight_dtype": "nf4"}
    for key in ("peft", "model_quantization_config"):
        if isinstance(value := draft.get(key), dict) and wanted.items() <= value.items():
            for name in wanted:
                draft.moved((key, name), "peft.quantization", "NF4")
            return True
    return False


def _long_rows(draft: Draft) -> None:
    """Rows above `sequence_len` are left out there unless `excess_length_strategy` says otherwise."""
    key, how = ("excess_length_strategy",), draft.get("excess_length_strategy")
    if how is not None and how not in _TOO_LONG:
        raise draft.refuse(key, f"'{how!s:.40}' is no way to treat long rows", f"use one of {', '.join(_TOO_LONG)}")
    if draft.kind in PRACTICE:
        draft.listed(key, "prompts that leave no room for an answer stop the stage: `max_truncated`")
        return
    here = "; here they are cut" if draft.kind in ("sft", "dpo") else ""
    draft.stage["max_truncated"] = 0.0 if how == "raise" else 1.0
    if how is None:
        why = f"1.0, since longer rows are left out there without a word{here}"
        draft.added.append(Entry(why, "mapped", "max_truncated"))
        return
    draft.moved(key, "max_truncated", _TOO_LONG[how])
    if how == "drop" and here:
        draft.note(
            "max_truncated", f"longer rows are left out there{here}: take them out of the data to train the same"
        )


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
    draft.list_all({"chat_template": f"'{name}': {why}", "chat_template_jinja": "`chat_template` counts"})


def _aside(draft: Draft) -> None:
    if "heldout" in draft.stage:
        draft.list_all({"val_set_size": "`test_datasets` are held out"})
    else:
        set_aside(draft, draft.stage["data"], draft.get("val_set_size", 0), ("val_set_size",))


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
    common.nested(draft, "trl", TRL_LISTED)
