"""A short trial of an imported recipe: the embedded model instead of its model, a few rows instead of its data."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.importing.convert import convert
from llmkit.importing.draft import Options
from llmkit.importing.write import write
from llmkit.plan.make import make
from llmkit.recipe.load import load

FOREIGN = Path(__file__).resolve().parent / "control/foreign"
SMALL = {"max_steps": 2, "bf16": False, "max_length": 128, "report_to": "none", "save_strategy": "no"}
"""What two steps on a CPU need, whatever the recipe says."""


def rows(kind: str) -> list[dict[str, Any]]:
    """Two dozen rows of the shape that a stage reads."""
    said = [(f"What is {n} and {n}?", f"It is {2 * n}.", f"It is {2 * n + 1}.") for n in range(24)]
    if kind == "pretrain":
        return [{"text": f"{question} {right} " * 8} for question, right, _ in said]
    asked = [
        ({"role": "user", "content": q}, *({"role": "assistant", "content": a} for a in both)) for q, *both in said
    ]
    if kind == "sft":
        return [
            {"messages": [question, right, {"role": "user", "content": "Sure?"}, right]} for question, right, _ in asked
        ]
    return [{"chosen": [question, right], "rejected": [question, wrong]} for question, right, wrong in asked]


def overlay(folder: Path, recipe: Path) -> Path:
    """Writes the rows, and the overlay that swaps model, data and what needs a GPU; the rest stays as imported."""
    data = YAML(typ="safe").load(recipe.read_text(encoding="utf-8"))
    stage, path = data["stages"][0], folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(stage["kind"])))
    source = {"path": str(path), **{key: value for key, value in stage["data"][0].items() if key == "format"}}
    options = stage["trainer"]
    small: dict[str, Any] = {**SMALL, "per_device_train_batch_size": 2}
    small |= {"optim": "adamw_torch"} if "bit" in options.get("optim", "") else {}
    small |= {"use_liger_kernel": False} if "use_liger_kernel" in options else {}
    changed = {"name": stage["name"], "data": [source], "trainer": small, "global_batch_size": 4}
    changed |= {"heldout": {"test": [source]}} if "heldout" in stage else {}
    changed |= {"peft": {"quantization": None}} if stage.get("peft", {}).get("quantization") else {}
    model = {"name_or_path": "llmkit.tiny:base", "revision": None, "dtype": "float32", "attn_implementation": None}
    if stage["kind"] != "pretrain" and "chat_template" not in data["model"]:
        model["chat_template"] = "chatml"
    trial = folder / "trial.yaml"
    with trial.open("w") as file:
        YAML().dump({"run": {"output_dir": str(folder / "runs")}, "model": model, "stages": [changed]}, file)
    return trial


def run_trial(folder: Path, foreign: Path, options: Options | None = None) -> Manifest:
    """Imports, validates, and trains for two steps in this process."""
    target = folder / "recipe.yaml"
    given = options or Options()
    imported = convert(foreign, Options(given.stage, given.num_processes, target=str(target)))
    write(imported, foreign, target)
    (step,) = make(load([target, overlay(folder, target)])).steps
    file = step.stage_file()
    file.dir.path.mkdir(parents=True)
    stages = importlib.import_module("llmkit.stages.common")
    worker = stages.Worker(file)
    manifest: Manifest = importlib.import_module(f"llmkit.stages.{step.kind}").run(worker)
    write_manifest(file.dir.path, manifest)
    return manifest
