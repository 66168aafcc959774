"""A short trial of an imported recipe: the embedded model instead of its model, a few rows instead of its data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = ROOT / "tests/control/foreign"
TRAINER = {"max_steps": 2, "bf16": False, "max_length": 256, "report_to": "none", "save_strategy": "no"}
"""What two steps on a CPU need, whatever the recipe says."""


def rows(kind: str) -> list[dict[str, Any]]:
    """Small data of the shape that a stage reads. Each conversation has an exchange of two turns."""
    said = [(f"What is {n} and {n}?", f"It is {2 * n}.", "No idea.") for n in range(24)]
    if kind == "pretrain":
        return [{"text": f"{question} {right} " * 8} for question, right, _ in said]
    if kind in ("dpo", "reward"):
        sides = [(_turn("assistant", right), _turn("assistant", wrong)) for _, right, wrong in said]
        asked = [_turn("user", question) for question, _, _ in said]
        return [{"prompt": q, "chosen": [q, a], "rejected": [q, b]} for q, (a, b) in zip(said, sides, strict=True)] and [
            {"chosen": [q, a], "rejected": [q, b]} for q, (a, b) in zip(asked, sides, strict=True)
        ]
    turns = [[_turn("user", q), _turn("assistant", a), _turn("user", "Sure?"), _turn("assistant", "Yes.")] for q, a, _ in said]
    return [{"messages": messages} for messages in turns]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def llmkit(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "llmkit.cli.main", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)


def overlay(folder: Path, recipe: Path) -> Path:
    """Writes the rows, and the overlay that swaps model, data and what needs a GPU; the rest stays as imported."""
    stage = YAML(typ="safe").load(recipe.read_text())["stages"][0]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(stage["kind"])))
    keep = {key: value for key, value in stage["data"][0].items() if key == "format"}
    source = {"path": "rows.jsonl", **keep}
    trainer = {**TRAINER, **({"optim": "adamw_torch"} if "bit" in str(stage["trainer"].get("optim")) else {})}
    trainer |= {"use_liger_kernel": False} if stage["trainer"].get("use_liger_kernel") else {}
    changed: dict[str, Any] = {"name": stage["name"], "data": [source], "trainer": trainer}
    changed |= {"global_batch_size": 4, "launch": {"accelerate": "single", "num_processes": 1}}
    changed["trainer"]["per_device_train_batch_size"] = 2
    if "heldout" in stage:
        changed["heldout"] = {"test": [source]}
    if stage.get("peft", {}).get("quantization"):
        changed["peft"] = {"quantization": None}
    model = {"name_or_path": "llmkit.tiny:base", "revision": None, "dtype": "float32", "attn_implementation": None}
    given = YAML(typ="safe").load(recipe.read_text())["model"]
    if stage["kind"] != "pretrain" and not given.get("chat_template"):
        model["chat_template"] = "chatml"
    path = folder / "trial.yaml"
    with path.open("w") as file:
        YAML().dump({"run": {"output_dir": "runs"}, "model": model, "stages": [changed]}, file)
    return path


def import_and_run(folder: Path, foreign: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Both commands. Returns what the run said, or the import where that failed."""
    done = llmkit(folder, "import", str(foreign), "--out", "recipe.yaml", *words)
    if done.returncode:
        return done
    overlay(folder, folder / "recipe.yaml")
    return llmkit(folder, "run", "recipe.yaml", "trial.yaml")
