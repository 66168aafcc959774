"""Practice on the embedded model.

1. steps per second of a `grpo` stage against a bare GRPOTrainer script with the same model, problems, reward and
   settings: at least 1 / 1.05
2. tokens sampled until greedy answers to held-out problems are right three times in four, without and with `resample`
   and `screen`: at least 1.5 times fewer

Both start from the same assistant, which an `sft` stage makes first.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from common import accumulated, report, run_in, run_script

REPEATS = 3
STEPS = 8
MAX_STEPS = 40
LEVEL = 0.75
SEEDS = (42, 43, 44)

BARE = """
import json, sys
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from llmkit.rewards.exact import make_exact
from llmkit.tiny.sources import problems
options, path = json.loads(sys.argv[1]), sys.argv[2]
exact = make_exact()
def reward(prompts, completions, answer, **columns):
    return exact(completions, answer)
def asked(row):
    return {"prompt": [{"role": "user", "content": row["prompt"]}], "answer": row["answer"]}
rows = [asked(row) for row in problems(num_rows=1000)]
args = GRPOConfig(
    output_dir="/tmp/bare", use_cpu=True, save_strategy="no", disable_tqdm=True, report_to="none", **options)
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), reward_funcs=reward, args=args,
    train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(path))
result = trainer.train()
print(json.dumps({"seconds": result.metrics["train_runtime"] / result.global_step}))
"""
OPTIONS: dict[str, Any] = {
    "num_generations": 16,
    "max_completion_length": 80,
    "learning_rate": 2e-4,
    "per_device_train_batch_size": 64,
    "gradient_checkpointing": False,
    "bf16": False,
    "logging_steps": 1,
    "scale_rewards": "none",
    "mask_truncated_completions": True,
}
PROBLEMS = "llmkit.tiny.sources:problems"
BATCH = 128
"""Answers per optimizer step."""


def recipe(stages: list[dict[str, Any]], model: str = "llmkit.tiny:base", seed: int = 42) -> dict[str, Any]:
    return {
        "run": {"name": "bench", "seed": seed},
        "model": {"name_or_path": model, "chat_template": "chatml"},
        "stages": stages,
    }


def assistant(folder: Path) -> str:
    """One that mostly guesses, as in recipes/tiny/practice.yaml."""
    stage = {
        "kind": "sft",
        "data": [
            {"path": "llmkit.tiny.sources:conversations", "args": {"num_rows": 9000}, "fraction": 0.6},
            {"path": "llmkit.tiny.sources:documents", "args": {"num_rows": 7000}},
        ],
        "global_batch_size": 14,
        "max_truncated": 0.001,
        "trainer": {
            "learning_rate": 8e-4,
            "max_steps": 240,
            "max_length": 288,
            "per_device_train_batch_size": 14,
            "gradient_checkpointing": False,
        },
    }
    (made,) = run_in(folder, recipe([stage]))
    return str(made / "model")


def grpo(model: str, steps: int, seed: int = 42, **fields: Any) -> Path:
    """A finished stage."""
    stage = {
        "kind": "grpo",
        "from": "base",
        "data": [{"path": PROBLEMS, "args": {"num_rows": 3000}}],
        "rewards": ["exact"],
        "global_batch_size": BATCH,
        "trainer": {**OPTIONS, "max_steps": steps, "save_strategy": "no"},
        **fields,
    }
    (made,) = run_in(Path(tempfile.mkdtemp()), recipe([stage], model, seed))
    return made


def step_time(model: str) -> None:
    ours, bare = [], []
    given = json.dumps({**OPTIONS, **accumulated(BATCH, OPTIONS), "max_steps": STEPS})
    for _ in range(REPEATS):
        manifest = json.loads((grpo(model, STEPS) / "manifest.json").read_text())
        ours.append(STEPS / manifest["metrics"]["train_seconds"])
        bare.append(1 / run_script(BARE, given, model)["seconds"])
    report("GRPO steps of a stage against bare GRPOTrainer", ours, bare, "steps/s", 1 / 1.05)


def tokens(model: str) -> None:
    plain, chosen = [], []
    for seed in SEEDS:
        held = {"heldout": {"problems": [{"path": PROBLEMS, "args": {"split": "heldout", "num_rows": 150}}]}}
        held |= {"measure": {"num_samples": 0, "every": 1 / MAX_STEPS}}
        plain.append(spent(grpo(model, MAX_STEPS, seed, **held)))
        chosen.append(spent(grpo(model, MAX_STEPS, seed, **held, sampling={"resample": 3, "screen": 4})))
    print(json.dumps({"plain": plain, "resample and screen": chosen}))
    # fewer is better: the ratio of what was spent
    report("tokens until right three times in four, without and with choice", plain, chosen, "tokens", 1.5)


def spent(stage: Path) -> float:
    """Tokens sampled until the mean of three measures in a row is high enough."""
    sampled: dict[int, float] = {}
    measured: list[tuple[int, float]] = []
    for line in map(json.loads, (stage / "metrics.jsonl").read_text().splitlines()):
        if "practice/sampled_tokens" in line:
            sampled[line["step"]] = line["practice/sampled_tokens"]
        if "problems/accuracy" in line:
            measured.append((line["step"], line["problems/accuracy"]))
    for place in range(2, len(measured)):
        if sum(value for _, value in measured[place - 2 : place + 1]) / 3 >= LEVEL:
            return sampled[measured[place - 1][0]]
    raise SystemExit(f"{stage}: {LEVEL:.0%} were never reached: {measured[-3:]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        start = assistant(Path(made))
        step_time(start)
        tokens(start)
