"""The same loss whichever way the work is spread; the same weights after being killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def recipe(folder: Path, name: str, model_dir: Path, chats: Path, kind: str = "sft", **stage: Any) -> Path:
    trainer = {
        "max_steps": 12,
        "learning_rate": 3e-3,
        "max_length": 128,
        "bf16": False,
        "gradient_checkpointing": False,
    }
    trainer |= {"logging_steps": 1, "per_device_train_batch_size": 1, "save_steps": 2} | stage.pop("trainer", {})
    data = {
        "run": {"name": name, "output_dir": str(folder), "seed": 3},
        "model": {"name_or_path": str(model_dir), "chat_template": "chatml"},
        "stages": [
            {
                "name": "s",
                "kind": kind,
                "data": [{"path": str(chats)}],
                "global_batch_size": 8,
                "trainer": trainer,
                **stage,
            }
        ],
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(data))
    return path


def run(path: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "llmkit.cli.main", "run", str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return path.with_suffix("") / "01-s"


def losses(stage: Path) -> list[float]:
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["phase"] == "train" and "loss" in line]


WAYS = {
    "accumulation": {"trainer": {"per_device_train_batch_size": 1}},
    "ddp": {"launch": {"accelerate": "cpu/ddp", "num_processes": 2}},
    "zero2": {"launch": {"accelerate": "cpu/zero2", "num_processes": 2}},
    "zero3": {"launch": {"accelerate": "cpu/zero3", "num_processes": 2}},
    "fsdp2": {"launch": {"accelerate": "cpu/fsdp2", "num_processes": 2}},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parallel")


@pytest.mark.parametrize("kind", ["sft", "pretrain"])
@pytest.mark.parametrize("way", WAYS)
def test_the_way_of_spreading_does_not_change_the_loss(
    way: str, kind: str, shared: Path, model_dir: Path, chats: Path, documents: Path
) -> None:
    rows = chats if kind == "sft" else documents
    reference = shared / f"one-{kind}" / "01-s"
    kept = shared / f"rows-{kind}.jsonl"
    fields = {"heldout": {"some": [{"path": str(kept), "split": "train[:20]"}]}}
    if not reference.is_dir():
        kept.write_bytes(rows.read_bytes())
        trainer = {"per_device_train_batch_size": 8}
        run(recipe(shared, f"one-{kind}", model_dir, kept, kind, trainer=trainer, **fields))
    stage = run(recipe(shared, f"{way}-{kind}", model_dir, kept, kind, **fields, **WAYS[way]))
    expected, found = losses(reference), losses(stage)
    assert len(found) == len(expected) == 12
    assert found[-1] == pytest.approx(expected[-1], rel=1e-3)
    assert found[0] == pytest.approx(expected[0], rel=1e-3)
    assert (stage / "model" / "model.safetensors").is_file(), "sharded weights must be gathered when saved"
    one, other = (json.loads((path / "manifest.json").read_text())["heldout"]["some"] for path in (reference, stage))
    for when in ("before", "after"):
        assert other[when]["loss"] == pytest.approx(one[when]["loss"], rel=1e-2), when


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_killed_at_five_random_moments_and_resumed_it_ends_with_the_same_weights(
    shared: Path, model_dir: Path, chats: Path
) -> None:
    kept = shared / "rows.jsonl"
    kept.write_bytes(chats.read_bytes())
    trainer = {"max_steps": 1500, "save_steps": 30, "per_device_train_batch_size": 8, "logging_steps": 5}
    whole = run(recipe(shared, "whole", model_dir, kept, trainer=trainer))
    path = recipe(shared, "killed", model_dir, kept, trainer=trainer)
    stage = path.with_suffix("") / "01-s"
    chance = random.Random(0)
    for _ in range(5):
        seen = num_lines(stage / "metrics.jsonl")
        process = subprocess.Popen(
            [sys.executable, "-m", "llmkit.cli.main", "run", str(path)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # it trains again once it has logged a few steps more than it had
        while num_lines(stage / "metrics.jsonl") < seen + 5 and process.poll() is None:
            time.sleep(0.02)
        time.sleep(chance.uniform(0.0, 2.0))
        assert process.poll() is None, "it was to be killed while it trained"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1)  # the workers end with their launcher
        assert not (stage / "manifest.json").exists()
    run(path)
    assert "resuming from checkpoint-" in (stage / "log.txt").read_text()
    a, b = load_file(whole / "model" / "model.safetensors"), load_file(stage / "model" / "model.safetensors")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
