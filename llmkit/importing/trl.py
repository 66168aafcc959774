"""alignment-handbook, open-r1 and the TRL command line: three dialects of TRL's own options."""

from __future__ import annotations

from typing import Any

from llmkit.importing import common
from llmkit.importing.draft import Draft
from llmkit.importing.foreign import Loc, as_number
from llmkit.importing.trl_practice import practise
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
    sources = _sources(draft, system)
    _evaluated(draft, sources)
    if draft.kind in PRACTICE:
        practise(draft, sources, system)
    common.batch(draft, "per_device_train_batch_size", "gradient_accumulation_steps")
    _rest(draft, system)


def _rest(draft: Draft, system: str) -> None:
    packed = system == "alignment-handbook" and "dataset_mixer" in draft.given
    common.trainer(draft, {"wandb_project": "project"})
    draft.list_all(_LISTED)
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
        source, problem = marked(text)
        name = draft.foreign.path.stem if not draft.options.target else draft.options.target.rpartition("/")[2]
        file = f"{name.removesuffix('.yaml').removesuffix('.yml')}.jinja"
        draft.files[file] = source
        folder = draft.options.target.rpartition("/")[0]
        draft.model["chat_template"] = f"{folder}/{file}" if folder else file
        same = "as it is" if source == text else "with {% generation %} marks, proved to render the same"
        draft.moved((key,), "model.chat_template", f"a file beside the recipe, {UNMARKED if problem else same}")


def _sources(draft: Draft, system: str) -> list[dict[str, Any]]:
    """Training sources, from whichever of the four ways to name data the file uses. Fills `data` and `heldout`."""
    if "dataset_mixer" in draft.given:
        sources = _mixer(draft)
    elif isinstance(draft.get("dataset_mixture"), dict):
        sources = _mixture(draft)
    elif isinstance(draft.get("datasets"), list):
        sources = _listed_sets(draft, ("datasets",), draft.given["datasets"], "path", "name")
    elif draft.get("dataset_name"):
        sources = [_named(draft)]
    else:
        raise draft.refuse((), "names no data set", "add dataset_name, datasets, dataset_mixture or dataset_mixer")
    draft.stage["data"] = sources
    common.cut_silently(draft)
    return sources


def _format(draft: Draft, columns: Any = None) -> dict[str, str]:
    """Sets such as ultrafeedback have conversations beside their pairs: the stage says which are meant."""
    if draft.kind in ("dpo", "reward"):
        return {"format": "preference"}
    if draft.kind == "pretrain":
        return {"format": "text"}
    return {"format": "messages"} if isinstance(columns, list) and "messages" in columns else {}


def _mixer(draft: Draft) -> list[dict[str, Any]]:
    mixer = draft.given["dataset_mixer"]
    if not isinstance(mixer, dict) or not mixer:
        raise draft.refuse(("dataset_mixer",), "is no mapping of data sets to shares")
    splits = [str(split) for split in _list(draft.get("dataset_splits", ["train", "test"]))]
    configs = _list(draft.get("dataset_configs", []))
    sources, tests = [], []
    for index, (name, share) in enumerate(mixer.items()):
        base: dict[str, Any] = {"path": common.safe_path(draft, ("dataset_mixer", name), name)}
        if index < len(configs):
            base["name"] = configs[index]
        for split in splits:
            source = {**base, "split": split, **_format(draft)}
            if "train" in split:
                sources += weighted(draft, source, share, ("dataset_mixer", name), f"data[{index}].path")
            elif "test" in split:
                tests.append(source)
    draft.moved(("dataset_splits",), "data[].split")
    draft.moved(("dataset_configs",), "data[].name")
    if tests:
        draft.stage["heldout"] = {"test": tests}
    return sources


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def weighted(draft: Draft, source: dict[str, Any], share: Any, loc: Loc, to: str) -> list[dict[str, Any]]:
    """A source of which a share of the rows is used: a slice of whole percents, at least 1."""
    share = 1.0 if share is None else as_number(share)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or share < 0:
        raise draft.refuse(loc, f"{share!r:.40} is no share of the rows")
    if share == 0:
        draft.listed(loc, "a share of 0: the data set is left out")
        return []
    percent = max(1, round(share * 100))
    exact = "" if abs(percent / 100 - share) < 1e-9 or share > 1 else f"; {share:g} is rounded to {percent} %"
    if share < 1:
        source["split"] = f"{source['split']}[:{percent}%]"
    draft.moved(loc, to, f"{'all rows' if share >= 1 else f'the first {percent} % of the rows'}{exact}")
    return [source]


def _mixture(draft: Draft) -> list[dict[str, Any]]:
    mixture, loc = draft.given["dataset_mixture"], ("dataset_mixture",)
    sets = mixture.get("datasets")
    if not isinstance(sets, list):
        raise draft.refuse(loc, "has no list of datasets")
    sources = _listed_sets(draft, (*loc, "datasets"), sets, "id", "config")
    draft.listed((*loc, "seed"), "rows are shuffled by `run.seed`")
    return sources


def _listed_sets(draft: Draft, loc: Loc, sets: list[Any], path: str, config: str) -> list[dict[str, Any]]:
    sources: list[dict[str, Any]] = []
    for index, item in enumerate(sets):
        here, to = (*loc, index), f"data[{len(sources)}]"
        if not isinstance(item, dict) or path not in item:
            raise draft.refuse(here, f"is no data set with '{path}'")
        source: dict[str, Any] = {"path": common.safe_path(draft, (*here, path), item[path])}
        if item.get(config) not in (None, "default"):
            source["name"] = str(item[config])
        source["split"] = str(item.get("split") or "train")
        source |= _format(draft, item.get("columns"))
        kept = weighted(draft, source, item.get("weight"), (*here, "weight"), f"{to}.split")
        if item.get("fraction") is not None:
            source["fraction"] = item["fraction"]
        fates = {path: f"{to}.path", config: f"{to}.name", "split": f"{to}.split", "fraction": f"{to}.fraction"}
        for key, place in fates.items():
            if not kept:
                draft.listed((*here, key), "its weight is 0")
            elif key == config and "name" not in source:
                draft.listed((*here, key), "'default' is what llmkit takes")
            else:
                draft.moved((*here, key), place)
        draft.moved((*here, "columns"), f"{to}.format", "the format says which columns are read")
        draft.listed((*here, "data_dir"), "not supported: name the files in `path`")
        sources += kept
    if not sources:
        raise draft.refuse(loc, "leaves no data set to train on")
    _normalise(sources)
    return sources


def _normalise(sources: list[dict[str, Any]]) -> None:
    """TRL makes fractions sum to 1."""
    total = sum(float(source.get("fraction", 0)) for source in sources)
    for source in sources:
        if "fraction" in source and len(sources) == 1:
            del source["fraction"]
        elif "fraction" in source and all("fraction" in other for other in sources):
            source["fraction"] = round(float(source["fraction"]) / total, 6)


def _named(draft: Draft) -> dict[str, Any]:
    source: dict[str, Any] = {"path": common.safe_path(draft, ("dataset_name",), draft.given["dataset_name"])}
    draft.moved(("dataset_name",), "data[0].path")
    configs = _list(draft.get("dataset_config", draft.get("dataset_configs", [])))
    for key in ("dataset_config", "dataset_configs"):
        if (configs and str(configs[0]) not in ("default", "all")) or (
            configs[:1] == ["all"] and key == "dataset_config"
        ):
            draft.moved((key,), "data[0].name")
            source["name"] = str(configs[0])
        else:
            draft.listed((key,), f"'{configs[0] if configs else ''}': the data set's own default is read")
    source["split"] = str(draft.get("dataset_train_split", draft.get("dataset_split", "train")))
    for key in ("dataset_train_split", "dataset_split"):
        draft.moved((key,), "data[0].split")
    return source | _format(draft)


def _evaluated(draft: Draft, sources: list[dict[str, Any]]) -> None:
    """Held-out rows, where the file evaluates at all."""
    strategy = draft.get("eval_strategy", draft.get("evaluation_strategy"))
    wanted = strategy not in ("no", False) and (strategy is not None or draft.get("do_eval") is True)
    sizes: dict[Loc, Any] = {("test_split_size",): draft.get("test_split_size")}
    if isinstance(draft.get("dataset_mixture"), dict):
        sizes[("dataset_mixture", "test_split_size")] = draft.given["dataset_mixture"].get("test_split_size")
    if not wanted:
        draft.stage.pop("heldout", None)
        for loc in (*sizes, ("dataset_test_split",)):
            draft.listed(loc, "nothing is evaluated: `eval_strategy` is no")
        return
    for loc, size in sizes.items():
        if size is not None:
            said = common.set_aside(draft, sources, float(as_number(size)))
            draft.moved(loc, "heldout.test", said or "nothing could be set aside: give `heldout` by hand")
    test = draft.get("dataset_test_split")
    if test is not None and draft.get("dataset_name"):
        draft.stage["heldout"] = {"test": [{**sources[0], "split": str(test)}]}
        draft.moved(("dataset_test_split",), "heldout.test")
