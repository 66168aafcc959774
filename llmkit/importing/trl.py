"""alignment-handbook, open-r1 and the TRL command line: three dialects of TRL's own options."""

from __future__ import annotations

from typing import Any

from llmkit.importing import common
from llmkit.importing.draft import Draft
from llmkit.importing.trl_data import evaluated, sources_of
from llmkit.importing.trl_practice import LISTED, SAMPLED, practise
from llmkit.importing.trl_stage import find_kind
from llmkit.recipe.trainer_keys import PRACTICE

_LORA = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
_LISTED = {
    "use_peft": "false: all weights are trained",
    "lora_task_type": "it follows from the stage",
    "lora_modules_to_save": "rows of new tokens are trained by themselves; other modules are not",
    "lora_target_parameters": "set `peft.target_modules`",
    "use_rslora": "not supported: updates are scaled by lora_alpha / r",
    "bnb_4bit_quant_storage": "it follows from `model.dtype`",
    "use_bnb_nested_quant": "4-bit constants are always quantised again",
    "ignore_bias_buffers": "llmkit sets it where it is needed",
    "text_column": "set a source's `columns`",
    "auto_insert_empty_system_msg": "nothing is put into a conversation that is not in its row",
    "callbacks": "evaluations and reports are llmkit's own",
    "benchmarks": "list lm-eval tasks in `evals`",
    "dataset_streaming": "set a source's `streaming`",
    "dataset_id_column": "rows are told apart by their text",
}
_WORDS = {
    "model_name_or_path", "model_revision", "torch_dtype", "dtype", "attn_implementation", "use_flash_attention_2",
    "output_dir", "num_processes", "chat_template", "dataset_mixer", "dataset_mixture", "dataset_splits",
    "dataset_configs", "dataset_config", "dataset_name", "dataset_train_split", "dataset_test_split", "datasets",
    "test_split_size", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_dora", "load_in_4bit",
    "load_in_8bit", "reward_funcs", "reward_weights", "system_prompt", "dataset_prompt_column", "wandb_project", "env",
}  # fmt: skip


def convert(draft: Draft, system: str) -> None:
    """Fills the draft. Raises RecipeError for what no recipe of llmkit can mean."""
    draft.kind = draft.stage["kind"] = find_kind(draft)
    common.model(draft)
    common.dtype(draft, "torch_dtype", "dtype")
    common.attention(draft)
    common.run_folder(draft)
    common.seed(draft)
    _environment(draft)
    _adapter(draft)
    template(draft)
    sources = sources_of(draft)
    evaluated(draft, sources)
    if draft.kind in PRACTICE:
        practise(draft, sources, system)
    common.batch(draft, "per_device_train_batch_size", "gradient_accumulation_steps")
    _rest(draft, system)


def _rest(draft: Draft, system: str) -> None:
    packed = system == "alignment-handbook" and "dataset_mixer" in draft.given
    if draft.kind == "dpo" and (share := draft.number("rpo_alpha", 0)):
        common.with_answers(draft, "rpo_alpha", draft.get("loss_type", "sigmoid"), float(share))
        draft.moved(("loss_type",), "trainer.loss_type")
    draft.list_all(
        {"rpo_alpha": "0: no loss on the chosen answers alone" if draft.kind == "dpo" else "only `dpo` reads it"}
    )
    common.trainer(draft, {"wandb_project": "project"})
    draft.list_all({**_LISTED, **LISTED, **dict.fromkeys(SAMPLED, "only stages that sample answers read it")})
    if draft.kind == "sft":
        draft.default_trainer(packing=packed, assistant_only_loss=False)
    elif draft.kind in PRACTICE:
        draft.default_trainer(mask_truncated_completions=False, disable_dropout=False)
        if draft.kind == "grpo":
            draft.default_trainer(scale_rewards="group")
    common.without_effect(draft)
    common.finish(draft, _WORDS | set(_LISTED))


def _environment(draft: Draft) -> None:
    """TRL's `env:` is what workers find in their environment."""
    common.launch(draft)
    if isinstance(draft.get("env"), dict):
        launch = draft.stage.setdefault("launch", {})
        launch["env"] = {str(name): str(value) for name, value in draft.given["env"].items()}
        draft.moved(("env",), "launch.env")


def _adapter(draft: Draft) -> None:
    if draft.get("use_peft") is True:
        common.adapter(draft, _LORA, {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05})
        draft.moved(("use_peft",), "peft")
        targets = draft.get("lora_target_modules")
        if targets is not None:
            draft.stage["peft"]["target_modules"] = _one(targets, "all-linear")
            draft.moved(("lora_target_modules",), "peft.target_modules")
        else:
            common.default_targets(draft)
        if draft.get("use_dora") is True:
            draft.stage["peft"]["method"] = "dora"
            draft.moved(("use_dora",), "peft.method")
    else:
        draft.list_all(dict.fromkeys([*_LORA, "lora_target_modules", "use_dora"], "has no effect without `use_peft`"))
    common.quantize(draft, 4 if draft.get("load_in_4bit") else 0, ("load_in_4bit",))
    common.quantize(draft, 8 if draft.get("load_in_8bit") else 0, ("load_in_8bit",))
    kind = draft.get("bnb_4bit_quant_type")
    if kind not in (None, "nf4"):
        raise draft.refuse(("bnb_4bit_quant_type",), f"'{kind}' is not supported", "use nf4")
    draft.list_all({"bnb_4bit_quant_type": "NF4 is the one that llmkit has", "use_dora": "false"})


def _one(value: Any, name: str) -> Any:
    return name if value in (name, [name]) else value


def template(draft: Draft, key: str = "chat_template") -> None:
    """An inline template becomes a file beside the recipe, with marks around what the assistant writes."""
    from llmkit.importing.template import UNMARKED, marked

    text = draft.get(key)
    if not isinstance(text, str):
        return
    if draft.kind == "pretrain":
        draft.listed((key,), "documents have no chat template")
    elif "{" not in text:
        draft.listed((key,), f"'{text}': set `model.chat_template` to a shipped template or a .jinja file")
    else:
        source, problem = marked(text, draft.get("eos_token") if isinstance(draft.get("eos_token"), str) else None)
        name = draft.foreign.path.stem if not draft.options.target else draft.options.target.rpartition("/")[2]
        file = f"{name.removesuffix('.yaml').removesuffix('.yml')}.jinja"
        draft.files[file] = source
        folder = draft.options.target.rpartition("/")[0]
        draft.model["chat_template"] = f"{folder}/{file}" if folder else file
        own = "as it is" if source == text else "with a header that names its stop token"
        same = own if "generation" in text else "with {% generation %} marks, proved to render the same"
        draft.moved((key,), "model.chat_template", f"a file beside the recipe, {UNMARKED if problem else same}")
