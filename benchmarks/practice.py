"""Practice on the embedded model.

1. steps per second of a `grpo` stage against a bare GRPOTrainer script with the same model, problems, reward and
   settings: at least 1 / 1.05
2. tokens sampled until answers to held-out problems are right as often as the run without `resample` and `screen` ends,
   without and with them: at least 1.5 times fewer

Both start from the same assistant, which an `sft` stage makes first: one that guesses three long calculations in five.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from common import accumulated, report, run_in, run_script

from llmkit.tiny.problems import equation, long_calculation
from llmkit.tiny.world import Split

REPEATS = 3
STEPS = 8
LONG = 40
EVERY = 2
"""Steps between measures."""
NUM_ROWS = {"train": 2000, "heldout": 200}
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
    """One that mostly guesses, as in recipes/tiny/reasoning-gym.yaml."""
    source = "llmkit.tiny.sources:conversations"
    stage = {
        "kind": "sft",
        "data": [
            {"path": source, "args": {"num_rows": 9000}, "fraction": 0.5},
            {"path": source, "args": {"num_rows": 3000, "kinds": ["calculations"], "multi_turn": 0}, "fraction": 0.2},
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


def written(folder: Path, split: Split) -> str:
    """A file of long calculations and equations, each once."""
    rng, rows = random.Random(f"benchmark {split}"), dict[str, int]()
    while len(rows) < NUM_ROWS[split]:
        problem = rng.choice((long_calculation, equation))(rng, split)
        rows[problem.question] = problem.answer
    path = folder / f"{split}.jsonl"
    path.write_text("".join(json.dumps({"prompt": asked, "answer": answer}) + "\n" for asked, answer in rows.items()))
    return str(path)


def tokens(model: str, folder: Path) -> None:
    plain, chosen = [], []
    shared: dict[str, Any] = {
        "data": [{"path": written(folder, "train")}],
        "heldout": {"calculations": [{"path": written(folder, "heldout")}]},
        "measure": {"num_samples": 0, "every": EVERY / LONG},
    }
    for seed in SEEDS:
        without = curve(grpo(model, LONG, seed, **shared))
        choosing = curve(grpo(model, LONG, seed, **shared, sampling={"resample": 3, "screen": 4}))
        level = without[-1][1]
        print(json.dumps({"seed": seed, "level": level, "plain": without, "resample and screen": choosing}), flush=True)
        plain.append(spent(without, level))
        chosen.append(spent(choosing, level))
    # fewer is better: the ratio of what was spent
    report("tokens until right as often as without choice, without and with it", plain, chosen, "tokens", 1.5)


def curve(stage: Path) -> list[tuple[float, float]]:
    """Tokens sampled so far, and the accuracy as the mean of three measures in a row."""
    sampled, found = 0.0, list[tuple[float, float]]()
    for line in map(json.loads, (stage / "metrics.jsonl").read_text().splitlines()):
        sampled = line.get("practice/sampled_tokens", sampled)
        if "calculations/accuracy" in line:
            found.append((sampled, line["calculations/accuracy"]))
    return [(found[at][0], sum(value for _, value in found[at - 2 : at + 1]) / 3) for at in range(2, len(found))]


def spent(curve: list[tuple[float, float]], level: float) -> float:
    """Tokens when the level is first reached.

    Raises:
        SystemExit: it never is.
    """
    for sampled, value in curve:
        if value >= level:
            return sampled
    raise SystemExit(f"{level:.1%} are never reached: {curve}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        start = assistant(Path(made))
        step_time(start)
        tokens(start, Path(made))
