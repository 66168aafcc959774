"""`llmkit import`: what becomes of every key of other projects' recipes, and what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmkit.cli.import_recipe import import_recipe
from llmkit.errors import RecipeError
from llmkit.importing.convert import Imported, convert
from llmkit.importing.draft import Options
from llmkit.importing.write import to_yaml, write
from llmkit.recipe.load import load
from llmkit.recipe.trainer_keys import CONFIG_CLASSES, _class_fields, declared, package_dir

FOREIGN = Path(__file__).parent / "foreign"
NO_STAGE = {"zephyr-141b-A35b-orpo-config_full", "qlora-1b-kto", "llama3_lora_kto", "llama3_lora_ppo"}
REFUSED = {*NO_STAGE, "Qwen2.5-Coder-7B-codeforces-grpo", "mtp_config"}
FILES = sorted(FOREIGN.glob("*/*.yaml"))
TAKEN = [path for path in FILES if path.stem not in REFUSED]


BASE = "model_name_or_path: a/b\ndataset_name: c/d\n"
AXOLOTL = "base_model: a/b\ndatasets: [{path: c/d, type: alpaca}]\n"


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Places of all values, read by another YAML library and walked by other code than llmkit's."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from keys(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for index, item in enumerate(value):
            yield from keys(item, f"{path}[{index}]")
    else:
        yield path


def stands(recipe: dict[str, Any], place: str) -> bool:
    """Whether a place that the account names is there; `[]` is any item."""
    top, _, rest = place.partition(".")
    nodes = [recipe[top]] if top in ("run", "model") else [recipe["stages"][0]]
    for part in (rest if top in ("run", "model") else place).replace("[", ".[").split("."):
        if part.startswith("["):
            index = part.strip("[]")
            nodes = [item for node in nodes for item in (node if not index else node[int(index) : int(index) + 1])]
        else:
            nodes = [node[part] for node in nodes if isinstance(node, dict) and part in node]
    return bool(nodes)


def imported(path: Path, **options: Any) -> Imported:
    stage = "sft" if path.stem == "example_config" else None
    sharded = re.search(r"^(deepspeed|fsdp|fsdp_config):", path.read_text(), re.MULTILINE)
    return convert(path, Options(**{"stage": stage, "num_processes": 8 if sharded else None, **options}))


def from_text(tmp_path: Path, text: str, system: str | None = None, **options: Any) -> Imported:
    path = tmp_path / "sft.yaml"
    path.write_text(text)
    return convert(path, Options(**options), system)


def problem(tmp_path: Path, text: str, system: str | None = None, **options: Any) -> str:
    with pytest.raises(RecipeError) as error:
        from_text(tmp_path, text, system, **options)
    return str(error.value).replace(str(tmp_path), "")


def test_there_are_the_handbook_s_recipes() -> None:
    assert len(list((FOREIGN / "alignment-handbook").glob("*.yaml"))) == 25


@pytest.mark.parametrize("path", TAKEN, ids=lambda path: path.stem)
def test_no_key_vanishes(path: Path) -> None:
    made = imported(path)
    given = Counter(keys(yaml.safe_load(path.read_text(encoding="utf-8"))))
    assert Counter(entry.key for entry in made.entries) == given
    for entry in made.entries:
        assert entry.to or entry.fate == "listed", entry
        assert entry.why or entry.fate != "listed", entry


@pytest.mark.parametrize("path", TAKEN, ids=lambda path: path.stem)
def test_what_is_written_is_a_valid_recipe(path: Path, tmp_path: Path) -> None:
    made = imported(path)
    target = tmp_path / "recipe.yaml"
    write(made, path, target)
    recipe = load([target]).recipe
    assert recipe.stages[0].kind in ("pretrain", "sft", "dpo", "grpo", "reward")
    written = yaml.safe_load(target.read_text(encoding="utf-8"))
    for entry in made.entries:
        assert not entry.to or stands(written, entry.to), f"{entry} is not in the recipe"


@pytest.mark.parametrize("stem", sorted(NO_STAGE))
def test_a_stage_without_counterpart_is_refused_with_its_reason(stem: str) -> None:
    (path,) = FOREIGN.glob(f"*/{stem}.yaml")
    with pytest.raises(RecipeError, match="has no stage in llmkit"):
        imported(path)


def test_unknown_keys_are_refused_at_once_with_the_nearest_name() -> None:
    path = FOREIGN / "trl/mtp_config.yaml"
    with pytest.raises(RecipeError) as error:
        imported(path, stage="sft")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert lines[2] == f"{path}:10: lerning_rate: unknown key; did you mean 'learning_rate'?"
    made = imported(path, stage="sft", allow_unknown=True)
    assert {e.key for e in made.entries if "unknown" in e.why} == {"mtp_enabled", "mtp_num_predictions", "lerning_rate"}


SWITCHED_OFF = ("rl", "process_reward_model", "kd_trainer", "reinit_weights", "train_from_scratch")
NUMBERS = "seed val_set_size val_size micro_batch_size batch_size per_device_train_batch_size rpo_alpha num_epochs "
NUMBERS += "gradient_accumulation_steps saves_per_epoch cosine_min_lr_ratio warmup_steps lora_rank max_samples pref_ftx"
FITTING: dict[str, Any] = {
    **dict.fromkeys(SWITCHED_OFF, False),
    **dict.fromkeys(NUMBERS.split(), 1),
    "adapter": "lora",
    "attn_implementation": "sdpa",
    "bnb_4bit_quant_type": "nf4",
    "chat_template": "chatml",
    "chat_template_jinja": "chat.jinja",
    "data_files": "a.json",
    "dataset_mixture": None,
    "deepspeed": "zero3.json",
    "eval_dataset": "c/d",
    "excess_length_strategy": "drop",
    "lr_scheduler_kwargs": {"min_lr_rate": 1},
    "finetuning_type": "lora",
    "pref_loss": "sigmoid",
    "pretraining_dataset": "",
    "reward_weights": [1.0],
    "save_steps": 0.5,
    "test_datasets": [],
}
"""Values of keys that cannot be `true`."""


def of_keys(name: str) -> list[str]:
    """Of a list of names in `foreign/keys`."""
    lines = (FOREIGN / "keys" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [key for line in lines if not line.startswith("#") for key in line.split()]


def of_trl() -> list[str]:
    """Of the classes that the TRL here reads from a file."""
    places = ("trainer/model_config.py", "ModelConfig"), ("scripts/utils.py", "ScriptArguments")
    fields = [_class_fields(package_dir("trl") / file, name) for file, name in places]
    return [key for group in (*fields, *map(declared, CONFIG_CLASSES)) for key in group]


@pytest.mark.parametrize(
    ("system", "kind", "keys_of"),
    [
        ("axolotl", "sft", "axolotl"),
        ("axolotl", "dpo", "axolotl"),
        ("axolotl", "grpo", "axolotl-trl"),
        ("axolotl", "sft", "axolotl-datasets"),
        ("axolotl", "dpo", "axolotl-datasets"),
        ("llamafactory", "sft", "llamafactory"),
        ("llamafactory", "dpo", "llamafactory"),
        ("open-r1", "sft", "open-r1"),
        ("open-r1", "grpo", "open-r1"),
        ("trl", "sft", "trl"),
        ("trl", "dpo", "trl"),
        ("trl", "grpo", "trl"),
        ("trl", "grpo", ""),
    ],
)
def test_every_key_of_the_other_programs_is_known(tmp_path: Path, system: str, kind: str, keys_of: str) -> None:
    """All of them in one file: each is in the account, and once."""
    data: dict[str, Any] = {"model_name_or_path": "a/b", "dataset_name": "c/d"}
    data |= {"reward_funcs": "accuracy"} if kind == "grpo" else {}
    if system == "axolotl":
        data = {"base_model": "a/b", "datasets": [{"path": "c/d", "type": "chat_template"}]}
        data |= {} if kind == "sft" else {"rl": kind}
        data |= {"trl": {"reward_funcs": ["my.reward"]}} if kind == "grpo" else {}
    elif system == "llamafactory":
        data = {"model_name_or_path": "a/b", "stage": kind, "dataset": "c/d", "template": "chatml"}
    node: Any = {"axolotl-trl": data.get("trl"), "axolotl-datasets": data.get("datasets", [0])[0]}.get(keys_of, data)
    given = of_keys(keys_of) if keys_of else of_trl()
    node |= {key: FITTING.get(key, True) for key in given if key not in node}
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    made = convert(tmp_path / "file.yaml", Options(stage=kind, num_processes=2), system)
    assert Counter(entry.key for entry in made.entries) == Counter(keys(data))


def test_values_that_are_empty_or_off_are_in_the_account(tmp_path: Path) -> None:
    text = AXOLOTL + "lr_groups: []\nplugins:\nvllm: {}\ndeepspeed: ''\nrelora: false\ncontext_parallel_size: 1\n"
    said = {entry.key: entry.why for entry in from_text(tmp_path, text).entries}
    empty = "is empty: nothing to set"
    assert (said["lr_groups"], said["plugins"], said["vllm"]) == (empty, empty, empty)
    assert (said["relora"], said["context_parallel_size"]) == ("false: it is off", "1: it is off")
    assert "whole sequences" in from_text(tmp_path, AXOLOTL + "context_parallel_size: 2\n").entries[-1].why


@pytest.mark.parametrize(
    ("how", "share", "noted"),
    [("", 1.0, False), ("drop", 1.0, True), ("truncate", 1.0, False), ("raise", 0.0, False)],
)
def test_axolotl_s_long_rows(tmp_path: Path, how: str, share: float, noted: bool) -> None:
    text = AXOLOTL + "chat_template: chatml\n" + (f"excess_length_strategy: {how}\n" if how else "")
    made = from_text(tmp_path, text)
    assert made.recipe["stages"][0]["max_truncated"] == share
    assert [entry.to for entry in made.notes] == (["max_truncated"] if noted else [])
    assert [entry for entry in made.added if "left out there" in entry.key] == (
        [] if how else made.added[-1:]
    ) or not how


def test_axolotl_s_trackers_batches_and_pairs(tmp_path: Path) -> None:
    stage = from_text(tmp_path, AXOLOTL + "use_tensorboard: true\nwandb_project: p\n").recipe["stages"][0]
    assert stage["trainer"]["report_to"] == ["tensorboard", "wandb"] and stage["trainer"]["project"] == "p"
    stage = from_text(tmp_path, AXOLOTL + "batch_size: 12\nmicro_batch_size: 4\n", num_processes=2).recipe["stages"][0]
    assert stage["global_batch_size"] == 24
    text = "base_model: a/b\nrl: dpo\ndpo_use_weighting: true\nrpo_alpha: 0.5\n"
    text += "datasets: [{path: c/d, type: {field_chosen: c}}]\n"
    stage = from_text(tmp_path, text).recipe["stages"][0]
    assert (stage["trainer"]["loss_type"], stage["trainer"]["loss_weights"]) == (["sigmoid", "sft"], [1.0, 0.5])
    assert stage["trainer"]["use_weighting"] is True
    columns = {"prompt": "prompt", "chosen": "c", "rejected": "rejected"}
    assert stage["data"] == [{"path": "c/d", "format": "preference", "columns": columns}]
    text = AXOLOTL + "adapter: lora\npeft: {backend: bnb, weight_dtype: nf4}\n"
    assert from_text(tmp_path, text).recipe["stages"][0]["peft"]["quantization"] == "nf4"


def test_names_without_llama_factory_s_list_are_to_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "model_name_or_path: a/b\nstage: sft\ntemplate: chatml\ndataset: identity,alpaca_en_demo\nval_size: 0.1\n"
    (tmp_path / "sft.yaml").write_text(text)
    monkeypatch.setenv("COLUMNS", "300")
    import_recipe(str(tmp_path / "sft.yaml"), None, str(tmp_path / "made.yaml"), Options())
    for said in (capsys.readouterr().out, (tmp_path / "made.yaml").read_text()):
        words = " ".join(re.sub(r"[#\u2502]", " ", said).split())
        assert "identity, alpaca_en_demo are names in it, not paths" in words and "dataset_info.json" in words
    assert not from_text(tmp_path, text + "dataset_dir: ONLINE\n").notes
    held = from_text(tmp_path, text.replace("val_size: 0.1", "eval_dataset: alpaca_en")).notes
    assert [entry.to for entry in held] == ["data", "heldout.test"]


def test_old_names_become_today_s() -> None:
    made = imported(FOREIGN / "alignment-handbook/zephyr-7b-gemma-sft-config_full.yaml")
    stage, model = made.recipe["stages"][0], made.recipe["model"]
    assert (stage["trainer"]["max_length"], stage["trainer"]["warmup_steps"]) == (2048, 0.1)
    assert "max_seq_length" not in stage["trainer"] and "warmup_ratio" not in stage["trainer"]
    assert (model["dtype"], model["attn_implementation"]) == ("bfloat16", "flash_attention_2")
    assert stage["heldout"]["test"][0]["split"] == "test_sft"
    assert stage["trainer"]["packing"] is True, "the handbook's older script packed rows"
    stage = imported(FOREIGN / "alignment-handbook/smollm3-sft-sft.yaml").recipe["stages"][0]
    assert stage["trainer"]["packing_strategy"] == "bfd", "ffd is gone"


@pytest.mark.parametrize(("processes", "total"), [(None, 128), (8, 1024)])
def test_batch_arithmetic(processes: int | None, total: int) -> None:
    made = imported(FOREIGN / "alignment-handbook/gpt2-nl-dpo-config_full.yaml", num_processes=processes)
    stage = made.recipe["stages"][0]
    rows = 8 * 8 * (processes or 1)
    assert stage["global_batch_size"] == rows
    assert stage["trainer"]["per_device_train_batch_size"] == 8
    assert total == 2 * rows


def test_an_accelerate_config_says_the_processes_and_the_sharding(tmp_path: Path) -> None:
    config = tmp_path / "zero3.yaml"
    config.write_text("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3}\nnum_processes: 8\n")
    made = imported(FOREIGN / "alignment-handbook/gpt2-nl-dpo-config_full.yaml", accelerate=str(config))
    stage = made.recipe["stages"][0]
    assert stage["launch"] == {"accelerate": "zero3", "num_processes": 8} and stage["global_batch_size"] == 512
    said = {entry.key: entry.fate for entry in made.entries if entry.key.startswith("accelerate: ")}
    assert len(said) == 3
    config.write_text("learning_rate: 1\n")
    with pytest.raises(RecipeError, match="is no Accelerate config"):
        imported(FOREIGN / "alignment-handbook/gpt2-nl-dpo-config_full.yaml", accelerate=str(config))


def test_shares_of_a_mixture_and_rows_set_aside() -> None:
    made = imported(FOREIGN / "alignment-handbook/smollm-sft-config.yaml")
    splits = [source["split"] for source in made.recipe["stages"][0]["data"]]
    assert splits[0] == "train_sft[5%:]" and "train_sft[:1%]" in splits
    said = {entry.key: entry.why for entry in made.entries}
    assert "0.001 is rounded to 1 %" in said["dataset_mixture.datasets[4].weight"]
    held = [source["split"] for source in made.recipe["stages"][0]["heldout"]["test"]]
    assert set(held) == {"train_sft[:5%]", "test_sft[:5%]"} and len(held) == 8


def test_adapters_and_their_quantisation() -> None:
    stage = imported(FOREIGN / "alignment-handbook/zephyr-7b-beta-dpo-config_qlora.yaml").recipe["stages"][0]
    assert stage["peft"]["quantization"] == "nf4" and stage["peft"]["r"] == 16
    stage = imported(FOREIGN / "axolotl/qlora-fsdp-70b.yaml").recipe["stages"][0]
    assert stage["peft"].pop("target_modules") == "all-linear"
    assert stage["peft"] == {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "quantization": "nf4"}
    assert stage["launch"]["accelerate"] == "fsdp2"
    stage = imported(FOREIGN / "llamafactory/llama3_lora_dpo.yaml").recipe["stages"][0]
    assert stage["peft"] == {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "all-linear"}
    assert (stage["trainer"]["beta"], stage["trainer"]["loss_type"]) == (0.1, "sigmoid")


def test_data_sets_of_llama_factory_are_found_in_its_list(tmp_path: Path) -> None:
    made = imported(FOREIGN / "llamafactory/llama3_full_sft_ds3.yaml")
    data = made.recipe["stages"][0]["data"]
    assert [Path(source["path"]).name for source in data] == ["identity.json", "alpaca_en_demo.json"]
    assert data[0]["format"] == "alpaca" and data[0]["split"] == "train[10%:]"
    assert made.recipe["stages"][0]["launch"]["accelerate"] == "zero3"
    base = "model_name_or_path: a/b\nstage: sft\nfinetuning_type: full\ntemplate: chatml\n"
    (tmp_path / "dataset_info.json").write_text((FOREIGN / "llamafactory/dataset_info.json").read_text())
    assert "did you mean 'identity'?" in problem(tmp_path, base + "dataset: identiti\n")
    assert "llmkit trains on text alone" in problem(tmp_path, base + "dataset: mllm_demo\n")
    stage = from_text(tmp_path, base + "dataset: openorca\n").recipe["stages"][0]
    assert stage["data"][0]["columns"] == {"instruction": "question", "output": "response", "system": "system_prompt"}
    mixed = "dataset: slimorca,identity\nmix_strategy: interleave_under\ninterleave_probs: 3,1\n"
    stage = from_text(tmp_path, base + mixed).recipe["stages"][0]
    assert [source["fraction"] for source in stage["data"]] == [0.75, 0.25]


@pytest.mark.parametrize(
    ("stage", "entry", "found"),
    [
        ("dpo", {"columns": {"prompt": "a", "query": "b", "chosen": "c", "rejected": "d"}}, "in such rows: query"),
        ("dpo", {"columns": {"chosen": "chosen", "rejected": "rejected"}}, {"prompt": "instruction"}),
        (
            "rm",
            {"formatting": "sharegpt", "columns": {"chosen": "good", "rejected": "bad"}},
            {"prompt": "conversations"},
        ),
        (
            "sft",
            {"columns": {"prompt": "q", "response": "a", "history": "h", "tools": "t"}},
            "such rows: history, tools",
        ),
        ("sft", {"formatting": "sharegpt", "columns": {"system": "s", "tools": "t"}}, {"system": "s", "tools": "t"}),
        ("sft", {"formatting": "sharegpt", "tags": {"role_tag": "role"}, "columns": {"system": "s"}}, "rows: system"),
        ("pt", {"columns": {"prompt": "text", "query": "more"}}, "in such rows: query"),
    ],
)
def test_no_column_of_llama_factory_s_list_vanishes(tmp_path: Path, stage: str, entry: Any, found: Any) -> None:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "mine.json", **entry}}))
    text = f"model_name_or_path: a/b\nstage: {stage}\nfinetuning_type: full\ntemplate: chatml\ndataset: mine\n"
    if isinstance(found, str):
        assert found in problem(tmp_path, text)
    else:
        columns = from_text(tmp_path, text).recipe["stages"][0]["data"][0]["columns"]
        assert found.items() <= columns.items()


def test_rewards_by_llmkit_s_names() -> None:
    stage = imported(FOREIGN / "open-r1/Qwen2.5-Math-7B-grpo.yaml").recipe["stages"][0]
    assert [(reward["name"], reward.get("weight", 1.0)) for reward in stage["rewards"]] == [
        ("math", 1.0),
        ("regex", 0.5),
    ]
    assert stage["data"][0]["columns"] == {"prompt": "problem", "answer": "solution"}
    made = imported(FOREIGN / "open-r1/Qwen2.5-1.5B-Instruct-grpo.yaml")
    assert made.recipe["stages"][0]["global_batch_size"] == 16 * 16 * 7
    with pytest.raises(RecipeError, match="none of these rewards: cf_code, code_format"):
        imported(FOREIGN / "open-r1/Qwen2.5-Coder-7B-codeforces-grpo.yaml")
    stage = imported(FOREIGN / "trl/grpo.yaml").recipe["stages"][0]
    assert stage["rewards"][2] == {"path": "my_lib.rewards:brief"}


def test_two_keys_for_one_option(tmp_path: Path) -> None:
    said = problem(tmp_path, BASE + "max_seq_length: 5\nmax_length: 6\n")
    assert "/sft.yaml:4: max_length: sets `max_length`, which another key sets too; keep the one that counts" in said
    for steps, kept, lost in ((7, 7, "warmup_ratio"), (0, 0.1, "warmup_steps")):
        made = from_text(tmp_path, BASE + f"warmup_ratio: 0.1\nwarmup_steps: {steps}\n")
        assert made.recipe["stages"][0]["trainer"]["warmup_steps"] == kept
        assert [entry.key for entry in made.entries if "counts" in entry.why] == [lost]


@pytest.mark.parametrize("sharding", ["deepspeed: zero3.json\n", "fsdp: [full_shard]\n"])
def test_sharding_needs_a_number_of_processes(tmp_path: Path, sharding: str) -> None:
    assert "add --num-processes N" in problem(tmp_path, AXOLOTL + sharding)
    made = from_text(tmp_path, AXOLOTL + sharding, num_processes=4)
    assert made.recipe["stages"][0]["launch"]["num_processes"] == 4


@pytest.mark.parametrize("text", [BASE + "use_peft: true\n", AXOLOTL + "adapter: lora\n"])
def test_adapters_without_named_modules_get_peft_s_own(tmp_path: Path, text: str) -> None:
    made = from_text(tmp_path, text)
    assert made.recipe["stages"][0]["peft"]["target_modules"] == ["q_proj", "v_proj"]
    assert ["peft's default" in entry.why for entry in made.added if entry.to == "peft.target_modules"] == [True]


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("eval_strategy: steps\ndataset_test_split: dev\n", "dev"),
        ("eval_strategy: steps\n", "test"),
        ("eval_strategy: no\n", None),
        ("", None),
    ],
)
def test_trl_evaluates_on_its_test_split(tmp_path: Path, text: str, held: str | None) -> None:
    stage = from_text(tmp_path, BASE + text).recipe["stages"][0]
    assert [source["split"] for source in stage.get("heldout", {}).get("test", [])] == ([held] if held else [])


def test_a_field_of_documents_beside_chat_and_half_precision(tmp_path: Path) -> None:
    sets = "base_model: a/b\ndatasets: [{path: c/d, type: alpaca}, {path: e/f, type: completion, field: content}]\n"
    assert from_text(tmp_path, sets).recipe["stages"][0]["data"][1]["columns"] == {"text": "content"}
    factory = "model_name_or_path: a/b\nstage: sft\nfinetuning_type: lora\ntemplate: chatml\ndataset: c/d\n"
    assert from_text(tmp_path, factory + "fp16: true\n").recipe["model"]["dtype"] == "float16"
    assert from_text(tmp_path, factory + "bf16: true\n").recipe["model"]["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "/sft.yaml:2: not valid YAML"),
        ("- a\n- b\n", "is no mapping of keys to values"),
        ("", "is no mapping"),
        ("run: {name: a}\nstages: []\n", "is a recipe of llmkit already"),
        ("a: 1\nb: 2\n", "none of the programs that llmkit knows"),
        (BASE + "seed: 1\nseed: 2\n", "/sft.yaml:4: found duplicate key \"seed\""),
        ("model_name_or_path: {{ model }}\ndataset_name: c/d\n", "is a template"),
        ("{% if big %}\nmodel_name_or_path: a/b\n{% endif %}\n", "is a template"),
        (BASE + "output_dir: ${HOME}/x\n", "/sft.yaml:3: output_dir: is a template"),
        (BASE + "output_dir: '{{ out }}'\n", "/sft.yaml:3: output_dir: is a template"),
        ("model_name_or_path: os:system\ndataset_name: c/d\n", "/sft.yaml:1: model_name_or_path: 'os:system' is no"),
        ("model_name_or_path: a/b\ndataset_name: os:system\n", "/sft.yaml:2: dataset_name: 'os:system' is no Hub id"),
        ("model_name_or_path: a/b\n", "names no data set"),
        (BASE + "seed: !!python/object:os.system x\n", "has the YAML tag"),
        (BASE + "gradient_accumulation_steps: many\n", "must be a number, got 'many'"),
        (BASE + "gradient_accumulation_steps: 0\n", "must be a whole number above 0"),
        (BASE + "load_in_4bit: true\n", "4-bit weights without an adapter"),
        ("a: " + "[" * 30 + "]" * 30 + "\nmodel_name_or_path: a/b\n", "nested deeper"),
        ("base_model: a/b\nrl: kto\n", "is for kto: KTO"),
        ("base_model: a/b\nadapter: llama-adapter\ndatasets: [{path: c/d, type: alpaca}]\n", "no adapter 'llama-ad"),
        ("base_model: a/b\ndatasets: [{path: c/d, type: reflection}]\n", "reads no rows of type 'reflection'"),
        ("base_model: a/b\ndatasets: [{type: alpaca}]\n", "is no data set with a path"),
        (AXOLOTL + "excess_length_strategy: cut\n", "'cut' is no way to treat long rows; use one of drop, truncate"),
        (AXOLOTL + "reinit_weights: true\n", "reinit_weights: starts from random weights"),
        (AXOLOTL + "kd_trainer: true\n", "is for gkd: distillation"),
        (AXOLOTL + "attn_implementation: 3\n", "attn_implementation: 3 is no value that llmkit can read"),
        (AXOLOTL + "export_tools: 2\n", "export_tools: unknown key; take it out"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in problem(tmp_path, text)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"output_dir: Universit\xe9\n")
    for path, said in (
        (tmp_path, "is a folder; give the YAML file"),
        (tmp_path / "latin.yaml", "is no text in UTF-8;"),
    ):
        with pytest.raises(RecipeError, match=f"{path}: {said}") as error:
            convert(path, Options())
        assert "Errno" not in str(error.value) and "codec" not in str(error.value)


def test_many_values_by_aliases_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "no recipe" in problem(tmp_path, "\n".join(lines) + "\nmodel_name_or_path: a/b\n")


def test_systems_by_name(tmp_path: Path) -> None:
    assert from_text(tmp_path, BASE, "handbook").system == "alignment-handbook"
    assert "did you mean 'axolotl'?" in problem(tmp_path, BASE, "axlotl")
    (tmp_path / "other.yaml").write_text(BASE)
    with pytest.raises(RecipeError, match="add --stage, one of sft"):
        convert(tmp_path / "other.yaml", Options())
    assert convert(tmp_path / "other.yaml", Options(stage="dpo")).recipe["stages"][0]["kind"] == "dpo"


def test_what_yaml_1_1_reads_as_booleans_and_text(tmp_path: Path) -> None:
    made = from_text(tmp_path, BASE + "save_strategy: no\nlearning_rate: 2e-5\nbf16: yes\nrun_name: 'no'\n")
    trainer = made.recipe["stages"][0]["trainer"]
    assert (trainer["save_strategy"], trainer["learning_rate"], trainer["bf16"]) == ("no", 2e-5, True)
    text = to_yaml(made, Path("x.yaml"))
    assert "learning_rate: 2.0e-5\n" in text and "save_strategy: 'no'\n" in text
    assert yaml.safe_load(text)["stages"][0]["trainer"]["learning_rate"] == 2e-5


FACTORY = "model_name_or_path: a/b\nfinetuning_type: full\ndataset_dir: ONLINE\ndataset: c/d\n"
ALPACA, TEXT = "{path: c/d, type: alpaca}", "{path: c/d, type: completion}"


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        (f"base_model: a/b\ndatasets: [{ALPACA}]\n", True),
        (f"base_model: a/b\ndatasets: [{TEXT}, {ALPACA}]\n", True),
        (f"base_model: a/b\ndatasets: [{TEXT}]\n", False),
        (f"base_model: a/b\ndatasets: [{ALPACA}]\nchat_template: chatml\n", False),
        (f"base_model: a/b\ndatasets: [{ALPACA}]\nchat_template: llama3\n", False),
        (f"base_model: a/b\ndatasets: [{ALPACA}]\nchat_template:\n", True),
        (f"{BASE}packing: true\n", True),
        (f"{BASE}packing: true\nchat_template_path: x.jinja\n", False),
        (f"{BASE}precompute_ref_log_probs: true\n", True),
        (f"{BASE}reward_funcs: accuracy_reward\n", False),
        (f"{FACTORY}stage: rm\n", True),
        (f"{FACTORY}stage: sft\ntemplate: llama3\n", False),
        (f"{FACTORY}stage: pt\n", False),
    ],
)
def test_conversations_without_a_template_are_noted(tmp_path: Path, text: str, noted: bool) -> None:
    (tmp_path / "run.yaml").write_text(text)
    made = convert(tmp_path / "run.yaml", Options())
    assert [entry.to for entry in made.notes] == (["model.chat_template"] if noted else [])


def test_a_note_stands_in_the_account_with_the_templates_to_choose_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "recipe.yaml"
    monkeypatch.setenv("COLUMNS", "200")
    import_recipe(str(FOREIGN / "axolotl/lora-1b.yaml"), None, str(target), Options())
    told, _, rest = target.read_text().partition("# to check before it runs:\n")
    for text in (rest, capsys.readouterr().out):
        words = " ".join(re.sub(r"[#\u2502]", " ", text).split())
        assert "model.chat_template (not set: NousResearch/Llama-3.2-1B may have no chat template of its own" in words
        assert "chatml, chatml_search, chatml_sep, chatml_think, chatml_tools" in words
    assert "chatml" not in told


def test_a_hostile_key_stays_in_its_comment(tmp_path: Path) -> None:
    text = BASE + '"evil\\nrun: {name: mine}\\u2028\\e[31m": 1\nchat_template: "{{ x }}\\n"\n'
    made = from_text(tmp_path, text, allow_unknown=True)
    written = to_yaml(made, Path("a\nb.yaml"))
    assert yaml.safe_load(written)["run"] == {"name": "sft"}
    assert "\x1b" not in written and "\u2028" not in written


def test_nothing_is_written_over(tmp_path: Path) -> None:
    made = from_text(tmp_path, BASE)
    (tmp_path / "recipe.yaml").write_text("mine\n")
    with pytest.raises(RecipeError, match="is there already"):
        write(made, Path("sft.yaml"), tmp_path / "recipe.yaml")
    assert (tmp_path / "recipe.yaml").read_text() == "mine\n"


ODD: list[Any] = [5, "x:y", [1, {"a": [2]}], {"a": 1}]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("axolotl/qlora-1b-gdpo", "rl trl datasets optimizer val_set_size bf16 seed"),
        ("axolotl/qlora-fsdp-70b", "datasets adapter lora_r saves_per_epoch deepspeed fsdp_config plugins"),
        ("llamafactory/llama3_lora_dpo", "dataset template lora_target pref_loss interleave_probs flash_attn val_size"),
        ("open-r1/Qwen2.5-Math-7B-grpo", "dataset_name reward_funcs reward_weights num_processes system_prompt"),
        ("trl/mixture-sft", "datasets test_split_size env use_peft eval_strategy loss_type"),
        ("alignment-handbook/zephyr-7b-gemma-dpo-config_full", "dataset_mixer dataset_splits beta loss_type"),
    ],
)
def test_odd_values_are_taken_or_refused_and_no_key_vanishes(tmp_path: Path, name: str, names: str) -> None:
    data = yaml.safe_load((FOREIGN / f"{name}.yaml").read_text(encoding="utf-8"))
    for key in names.split():
        for value in ODD:
            changed = {**data, key: value}
            try:
                made = from_text(tmp_path, yaml.safe_dump(changed, sort_keys=False), name.partition("/")[0])
            except RecipeError:
                continue
            assert Counter(entry.key for entry in made.entries) == Counter(keys(changed)), (key, value)
