"""Rollouts, a reward model and practice against it on the embedded model, in one process and in two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SHORT = [
    *(f"stages.{name}.data.0.args.num_rows={rows}" for name, rows in (("rollouts", 96), ("guard-rollouts", 64))),
    "stages.sft.trainer.max_steps=40",
    "stages.rm.trainer.per_device_train_batch_size=4",
    "stages.rlhf.trainer.max_steps=6",
    "stages.rlhf.guard={gold: gold, num_prompts: 32, every: 0.34}",
    "stages.rlhf.global_batch_size=32",
    "stages.rlhf.trainer.per_device_train_batch_size=16",
    "stages.rlhf.trainer.bf16=false",  # as DeepSpeed on a CPU, and so that the start is at a distance of 0
    "evals=[]",
    "prompts=[]",
]
WAYS: dict[str, list[str]] = {
    "one": [],
    "ddp": [f"stages.{name}.launch={{accelerate: cpu/ddp, num_processes: 2}}" for name in ("rollouts", "rm", "rlhf")],
    "zero2": ["stages.rlhf.launch={accelerate: cpu/zero2, num_processes: 2}"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run of each way; all start from one assistant."""
    folder = tmp_path_factory.mktemp("rlhf")
    made = {}
    for way, words in WAYS.items():
        argv = [sys.executable, "-m", "llmkit.cli.main", "run", "recipes/tiny/rlhf.yaml", *SHORT, *words]
        argv += [f"run.output_dir={folder}", f"run.name={way}"]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        made[way] = folder / way
    return made


def rows_of(run: Path, stage: str, file: str) -> list[dict[str, Any]]:
    (path,) = run.glob(f"[0-9][0-9]-{stage}/{file}")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_do_not_depend_on_the_processes(runs: dict[str, Path]) -> None:
    texts = {
        way: [[one["text"] for one in row["completions"]] for row in rows_of(run, "rollouts", "data/rollouts.jsonl")]
        for way, run in runs.items()
    }
    assert texts["ddp"] == texts["one"]


def test_a_reward_model_of_two_processes_ranks_as_that_of_one(runs: dict[str, Path]) -> None:
    """The batches are the same; sums over processes round differently."""
    found = {}
    for way in ("one", "ddp"):
        (path,) = runs[way].glob("[0-9][0-9]-rm/manifest.json")
        found[way] = json.loads(path.read_text())["metrics"]["heldout/accuracy"]
    assert found["ddp"] == pytest.approx(found["one"], abs=0.1)


@pytest.mark.parametrize("way", WAYS)
def test_the_guard_looks_the_same_for_any_number_of_processes(way: str, runs: dict[str, Path]) -> None:
    looks = rows_of(runs[way], "rlhf", "guard.jsonl")
    assert [row["step"] for row in looks] == [0, 2, 4, 6]
    assert looks[0]["kl"] < 0.01
    assert looks[-1]["kl"] > looks[0]["kl"]
    assert all(len(row["gold"]) == 32 for row in looks)
    if way == "zero2":
        first = rows_of(runs["one"], "rlhf", "guard.jsonl")[0]
        assert np.allclose(first["gold"], looks[0]["gold"], atol=1e-3)
