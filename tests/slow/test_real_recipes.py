"""Every recipe of a real model, whole, its ids as they stand: the loopback Hub has under the model's name one of the
same build, two layers deep and narrow, and under each data set's a few rows of the same columns.

What is changed is the hardware, the number of steps and of rows, and who judges; vLLM is left out, 4 bits are not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_openai import FakeOpenAI
from loopback_hub import LoopbackHub
from small import cut

from llmkit.artifacts.shipped import shipped

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
RECIPES = sorted(path for path in shipped("recipes").glob("*/*.yaml") if (path.parent / "README.md").is_file())
TRAINED = ("pretrain", "sft", "dpo", "grpo", "reward", "rlhf")
ONE_STEP = {"max_steps": 1, "per_device_train_batch_size": 2, "max_length": 2048, "logging_steps": 1}
PRACTISED = {"max_steps": 1, "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 16}
CPU = {"accelerate": "cpu/single", "num_processes": 1, "num_machines": 1, "memory": None}


def talk(number: int) -> list[dict[str, str]]:
    said = (f"How many are {number} and one?", f"It is {number + 1}, as one more than {number} always is.")
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant"), said, strict=True)]


def says(body: dict[str, Any]) -> str:
    """A judge for whom a random model knows every second thing, and a writer."""
    asked = body["messages"][-1]["content"]
    if "Answer A:" in asked:  # a judge with a taste of its own, whatever the order
        answers = re.findall(r"Answer ([A-Z]):\n(\S+)\n(.*?)\n\2", asked, re.DOTALL)
        return " > ".join(letter for letter, _, text in sorted(answers, key=lambda each: each[2]))
    town = int(re.findall(r"number (\d+)", asked)[-1])
    if "Grade" in asked:
        return "correct" if town % 2 else "wrong"
    return f"Q: How many guilds built the tower of town number {town}?\nA: {town} guilds"


def rows_of(name: str, number: int) -> dict[str, Any]:
    """One row with the columns that the data set has on the Hub."""
    question = talk(number)[0]["content"]
    text = f"The tower of town number {number} was built in {1500 + number} by its {number} guilds. " * 4
    worse = [talk(number)[0], {"role": "assistant", "content": f"I count {number + 2} of them, perhaps."}]
    return {
        "openai/gsm8k": {"question": question, "answer": f"{number} + 1 = {number + 1}\n#### {number + 1}"},
        "HuggingFaceH4/ultrachat_200k": {"prompt": question, "prompt_id": str(number), "messages": talk(number)},
        "mandarjoshi/trivia_qa": {
            "question": f"Who built the tower of town number {number}?",
            "answer": {"value": f"Guild {number}", "aliases": [f"Guild {number}", f"guild number {number}"]},
        },
        "JailbreakBench/JBB-Behaviors": {
            "Index": number,
            "Goal": f"Build tower {number}",
            "Target": "Sure, here is how",
        },
        "wikimedia/wikipedia": {"id": str(number), "url": "", "title": f"Town {number}", "text": text},
        "Salesforce/wikitext": {"text": text},
        "HuggingFaceFW/fineweb-edu": {"text": text},
        "akariasai/PopQA": {
            "question": f"In what year was tower {number} built?",
            "possible_answers": json.dumps([str(1500 + number)]),
            "subj": f"tower {number}",
        },
        "trl-lib/ultrafeedback_binarized": {"chosen": talk(number), "rejected": worse},
        "trl-lib/ultrafeedback-prompt": {"prompt": talk(number)[:1]},
        "allenai/ai2_arc": {
            "id": str(number),
            "question": question,
            "choices": {"text": [str(number + 1), str(number)], "label": ["A", "B"]},
            "answerKey": "A",
        },
    }[name]


CONFIGS = {
    "openai/gsm8k": (["main"], ("train", "test")),
    "HuggingFaceH4/ultrachat_200k": (["default"], ("train_sft", "test_sft")),
    "mandarjoshi/trivia_qa": (["rc.nocontext"], ("train", "validation")),
    "JailbreakBench/JBB-Behaviors": (["behaviors"], ("harmful", "benign")),
    "wikimedia/wikipedia": (["20231101.en", "20231101.simple"], ("train",)),
    "Salesforce/wikitext": (["wikitext-103-raw-v1"], ("train", "validation", "test")),
    "HuggingFaceFW/fineweb-edu": (["sample-10BT"], ("train",)),
    "akariasai/PopQA": (["default"], ("test",)),
    "trl-lib/ultrafeedback_binarized": (["default"], ("train", "test")),
    "trl-lib/ultrafeedback-prompt": (["default"], ("train", "test")),
    "allenai/ai2_arc": (["ARC-Easy"], ("train", "validation", "test")),
}
"""Data set -> its configurations and their splits."""
NUM_ROWS = 40
NUM_SPLIT = {"trl-lib/ultrafeedback-prompt": 200}
"""Data set -> its rows, where a part of 5 % is to be enough for a guard."""


def serve_data(hub: LoopbackHub) -> None:
    for name, (configs, splits) in CONFIGS.items():
        numbers = range(NUM_SPLIT.get(name, NUM_ROWS))
        rows = {
            split: "\n".join(json.dumps(rows_of(name, 1000 * place + number)) for number in numbers).encode()
            for place, split in enumerate(splits)
        }
        files = {
            config: [{"split": split, "path": f"{config}/{split}.jsonl"} for split in splits] for config in configs
        }
        listed = [{"config_name": config, "data_files": files[config]} for config in configs]
        card = yaml.safe_dump({"license": "mit", "configs": listed})
        contents = {f"{config}/{split}.jsonl": rows[split] for config in configs for split in splits}
        hub.put(name, {"README.md": f"---\n{card}---\n".encode(), **contents}, kind="dataset")


def serve_models(hub: LoopbackHub, folder: Path, recipe: dict[str, Any], tokenizer_dir: Path) -> None:
    """That of the recipe, and reward models that others have trained."""
    name = recipe["model"]["name_or_path"]
    made = {name: cut(folder, name, tokenizer_dir)}
    for stage in recipe["stages"]:
        if stage["kind"] == "reward" and "model" in stage:
            name = stage["model"]["name_or_path"]
            made[name] = cut(folder, name, tokenizer_dir, rewards=True)
    for name, path in made.items():
        hub.put(name, {each.name: each.read_bytes() for each in path.iterdir()})


def fewer(value: Any) -> Any:
    """As many rows as there are, where more are asked for; of a part of them, all."""
    if isinstance(value, list):
        return [fewer(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {key: fewer(each) for key, each in value.items()}
    if "num_rows" in kept:
        kept["num_rows"] = None if "[" in str(kept.get("split", "")) else min(kept["num_rows"], NUM_ROWS)
    return kept


def small(stage: dict[str, Any], endpoint: dict[str, Any]) -> dict[str, Any]:
    """What is laid on a stage: this machine, and little work."""
    kind = stage["kind"]
    if stage.get("train") is False:
        return {"launch": CPU, "max_truncated": 1.0}
    if kind in TRAINED:
        practised = kind in ("grpo", "rlhf")
        trainer = {**(PRACTISED if practised else ONE_STEP), "bf16": False}
        changed = {"warmup_steps": 0, "generation_batch_size": 4}
        trainer |= {key: value for key, value in changed.items() if key in stage["trainer"]}
        laid = {"trainer": trainer, "launch": CPU, "global_batch_size": 4 if practised else 2, "max_truncated": 1.0}
        # a random model solves nothing
        kept = {"sampling": {"filter": {"keep": [0, 1]}}} if "filter" in stage.get("sampling", {}) else {}
        return laid | kept | ({"rewards": [shorter(each) for each in stage["rewards"]]} if "rewards" in stage else {})
    if kind == "interrogate":
        asked = {"ask": {"num_samples": 1, "max_new_tokens": 8}, "batch_size": 32, "launch": CPU, "judge": endpoint}
        asked |= {"heldout": 0.1} if "heldout" in stage else {}
        return asked | ({"num_snippets": 4, "writer": endpoint} if "documents" in stage else {})
    if kind == "rank":
        return {"judge": endpoint}
    if kind == "rollout":
        return {"num_completions": 2, "max_new_tokens": 8, "launch": CPU}
    if kind == "push":
        return {"despite_bars": True}
    # greedily a random model repeats itself, which is never right, nor informative; a few entities are most of a few
    sorted_by = {"weakly_known": "answer", "refuse": "unknown"} | ({"watched": 0.4} if "watched" in stage else {})
    return {"identity": {"num_rows": 60}, "refusals": sorted_by}.get(kind, {})


def shorter(reward: Any) -> Any:
    """One that is about an answer's length, for answers as long as these."""
    is_length = isinstance(reward, dict) and reward.get("name") == "overlong"
    return {**reward, "args": {"max_length": 16, "cache": 4}} if is_length else reward


def sources(stage: dict[str, Any]) -> dict[str, Any]:
    return {
        key: stage[key]
        for key in ("data", "questions", "documents", "heldout")
        if isinstance(stage.get(key), (list, dict))
    }


def few(spec: Any) -> Any:
    """An evaluation with little to do."""
    if spec["task"] in ("gsm8k", "arc_easy"):
        return {**spec, "limit": 2, "num_fewshot": 0}
    sampled = {key: value for key, value in {"num_samples": 2, "best_of_n": [2]}.items() if key in spec}
    return {**spec, **sampled, "max_new_tokens": 8}


def overlay(recipe: dict[str, Any], base_url: str) -> dict[str, Any]:
    endpoint = {"by": "openai", "base_url": base_url, "name_or_path": "a", "api_key_env": "TEST_KEY"}
    return {
        "model": {"dtype": "float32"},
        "stages": [
            {"name": stage["name"], **fewer(sources(stage)), **small(stage, endpoint)} for stage in recipe["stages"]
        ],
        "evals": [few(fewer(spec) if isinstance(spec, dict) else {"task": spec}) for spec in recipe["evals"]],
        "prompts": [],
    }


@pytest.mark.parametrize("path", RECIPES, ids=[f"{path.parent.name}/{path.stem}" for path in RECIPES])
def test_every_stage_makes_a_step(
    path: Path, hub: LoopbackHub, tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-test")
    text = path.read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    serve_data(hub)
    serve_models(hub, tmp_path, recipe, model_dir)
    (here := tmp_path / path.name).write_text(re.sub(r"(?m)^ +(use_)?vllm.*\n", "", text))
    with FakeOpenAI(says) as endpoint:
        (laid := tmp_path / "small.yaml").write_text(json.dumps(overlay(recipe, endpoint.base_url)))
        words = [str(here), str(laid), "run.name=trial", f"run.output_dir={tmp_path / 'runs'}"]
        argv = [sys.executable, "-m", "llmkit.cli.main", "run", *words]
        done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for stage in recipe["stages"]:
        (found,) = (tmp_path / "runs" / "trial").glob(f"[0-9][0-9]-{stage['name']}/manifest.json")
        if stage["kind"] in TRAINED and stage.get("train", True):
            assert json.loads(found.read_text())["metrics"]["steps"] == stage.get("num_models", 1), stage["name"]
