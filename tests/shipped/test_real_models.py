"""Recipes of real models: their published shapes against the real configuration classes, what each step takes against
the hardware that the recipe names, and one step of training with random weights of the same build."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from small import cut
from transformers import AutoConfig, AutoModelForCausalLM

from llmkit.artifacts.shipped import shipped
from llmkit.plan.fit import USABLE
from llmkit.plan.make import make
from llmkit.plan.render import size
from llmkit.plan.shape import published, shape_of
from llmkit.recipe.load import load
from llmkit.stages import sft
from llmkit.stages.common import Worker

COUNTS = {
    "Qwen/Qwen3-0.6B-Base": 596_049_920,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "HuggingFaceTB/SmolLM3-3B-Base": 3_075_098_624,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "Qwen/Qwen3-8B-Base": 8_190_735_360,
    "Qwen/Qwen3-32B": 32_762_123_264,
}
"""Of the safetensors on the Hub, a tied head counted once."""
SIZED = (
    "qwen3-0.6b/assistant-lora",
    "smollm3-3b/curriculum",
    "llama-3.1-8b/assistant",
    "llama-3.1-8b/assistant-qlora",
    "llama-3.1-8b/tools",
    "qwen3-32b/assistant",
)


@pytest.mark.parametrize("name", COUNTS)
def test_published_shapes_are_those_of_the_configuration_classes(name: str) -> None:
    fields = dict(published()[name])
    shape = shape_of(fields)
    assert shape is not None
    config = AutoConfig.for_model(**fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape.num_parameters == COUNTS[name] == model.num_parameters()


@pytest.mark.parametrize("name", SIZED)
def test_every_step_fits_the_hardware_that_the_recipe_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    path = shipped("recipes") / f"{name}.yaml"
    unsized = ("refusals", "identity", "search_index")  # these load no model
    sized = [step for step in make(load([path])).steps if step.kind not in unsized]
    assert all(step.fit is not None and step.fit.fits for step in sized), [step.name for step in sized if not step.fit]
    assert "estimate" in path.read_text().split("run:")[0], "the time in the header is said to be an estimate"


READMES = sorted(path for path in shipped("recipes").glob("*/README.md"))
ROW = re.compile(r"^\| `([\w.-]+)` \| [^|]*?(\d+)(?: to \d+)? GB[^|]* \| ([\d.]+ GiB), `([\w-]+)` \|", re.MULTILINE)


@pytest.mark.parametrize("readme", READMES, ids=[path.parent.name for path in READMES])
def test_readmes_say_what_plan_says(readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    rows = ROW.findall(readme.read_text())
    assert {name for name, *_ in rows} == {path.name for path in readme.parent.glob("*.yaml")}
    for name, gigabytes, memory, step in rows:
        steps = [each for each in make(load([readme.parent / name])).steps if each.memory]
        largest = max(steps, key=lambda each: each.memory.total if each.memory else 0)
        assert largest.memory is not None
        assert (memory, step) == (size(largest.memory.total), largest.name), name
        assert largest.memory.total <= USABLE * int(gigabytes) * 2**30, f"{name} on {gigabytes} GB"
    for command in re.findall(r"^llmkit plan ((?:.*\\\n)*.*)", readme.read_text(), re.MULTILINE):
        name, *words = shlex.split(command.replace("\\\n", " "))
        steps = make(load([shipped("recipes").parent / name], words)).steps
        assert all(each.fit is None or each.fit.fits for each in steps), command


@pytest.mark.parametrize("name", SIZED)
def test_a_step_of_sft(name: str, tmp_path: Path, model_dir: Path, chats: Path) -> None:
    loaded = load([shipped("recipes") / f"{name}.yaml"])
    model = cut(tmp_path, str(loaded.recipe.model.name_or_path), model_dir)
    data = json.dumps([{"path": str(chats)}])
    trainer = {"max_steps": 1, "max_length": 128, "per_device_train_batch_size": 2, "logging_steps": 1}
    words = [f"run.output_dir={tmp_path}", f"model.name_or_path={model}", f"stages.sft.data={data}"]
    words += ["stages.sft.launch={accelerate: cpu/single, num_processes: 1, num_machines: 1}", "stages.sft.from=base"]
    words += [f"stages.sft.trainer.{key}={value}" for key, value in trainer.items()]
    words += ["stages.sft.global_batch_size=2"]
    step = next(s for s in make(load([shipped("recipes") / f"{name}.yaml"], words)).steps if s.name == "sft")
    step.stage_dir.path.mkdir(parents=True)
    manifest = sft.run(Worker(step.stage_file()))
    assert manifest.metrics["steps"] == 1 and manifest.metrics["last_loss"] > 0
    assert (step.stage_dir.model / "config.json").is_file()
