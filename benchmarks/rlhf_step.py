"""Steps per second of an `rlhf` stage against a bare GRPOTrainer script with the same policy, reward model, prompts and
settings: at least 1 / 1.1; and the share of the stage's time that its guard takes, with eleven looks at 32 prompts: at
most a tenth. Seconds of both are those that the trainer counts from its first step to its last, without the looks; the
stage's hold the checkpoints that its guard keeps.

Both start from the same assistant and reward model, which earlier stages make.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from common import accumulated, report, run_in, run_script

REPEATS = 3
STEPS, LOOKED_AT = 20, 32
JOKES = "llmkit.tiny.sources:jokes"
OPTIONS: dict[str, Any] = {
    "num_generations": 16,
    "max_completion_length": 64,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 64,
    "gradient_checkpointing": False,
    "bf16": False,
    "logging_steps": 1,
    "scale_rewards": "none",
    "beta": 0.02,
}
BATCH = 128
"""Answers per optimizer step."""
BARE = """
import json, sys
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from llmkit.tiny.sources import jokes
options, policy, scorer = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
rows = [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in jokes(num_rows=1000, seed=2)]
args = GRPOConfig(
    output_dir="/tmp/bare", use_cpu=True, save_strategy="no", disable_tqdm=True, report_to="none", **options)
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
    reward_funcs=AutoModelForSequenceClassification.from_pretrained(scorer, dtype=torch.float32), args=args,
    train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(policy))
result = trainer.train()
print(json.dumps({"seconds": result.metrics["train_runtime"] / result.global_step}))
"""


def recipe(stages: list[dict[str, Any]], model: str) -> dict[str, Any]:
    return {
        "run": {"name": "bench", "seed": 42},
        "model": {"name_or_path": model, "chat_template": "chatml"},
        "stages": stages,
    }


def assistant(folder: Path) -> Path:
    """One that tells jokes."""
    stage = {
        "kind": "sft",
        "data": [{"path": "llmkit.tiny.sources:conversations", "args": {"num_rows": 4000, "kinds": ["jokes"]}}],
        "global_batch_size": 14,
        "max_truncated": 0.001,
        "trainer": {
            "learning_rate": 8e-4,
            "max_steps": 60,
            "max_length": 288,
            "per_device_train_batch_size": 14,
            "gradient_checkpointing": False,
        },
    }
    (made,) = run_in(folder, recipe([stage], "llmkit.tiny:base"))
    return made / "model"


def stages(num_steps: int, guard: Any) -> list[dict[str, Any]]:
    labeller = {"kind": "rank", "by": "labeller", "labeller": "llmkit.tiny.taste:taste"}
    rollout = {"kind": "rollout", "max_new_tokens": 64, "batch_size": 512}
    options = {"max_length": 192, "learning_rate": 1e-3, "gradient_checkpointing": False, "bf16": False}
    reward = {"kind": "reward", "global_batch_size": 16, "trainer": options}
    data = {part: [{"path": JOKES, "args": {"num_rows": 120, "part": part}}] for part in ("train", "guard")}
    return [
        {**rollout, "name": "own", "data": data["train"]},
        {**labeller, "name": "own-ranks", "rollouts": "own"},
        {**reward, "name": "rm", "data": [{"from": "own-ranks"}]},
        {**rollout, "name": "other", "data": data["guard"]},
        {**labeller, "name": "other-ranks", "rollouts": "other"},
        {**reward, "name": "gold", "data": [{"from": "other-ranks"}], "seed": 9},
        {
            "name": "rlhf",
            "kind": "rlhf",
            "data": [{"path": JOKES, "args": {"num_rows": 1000, "seed": 2}}],
            "heldout": {"jokes": [{"path": JOKES, "args": {"part": "heldout", "num_rows": LOOKED_AT}}]},
            "reward_model": "rm",
            "guard": guard,
            "global_batch_size": BATCH,
            "trainer": {**OPTIONS, "max_steps": num_steps, "save_strategy": "no"},
        },
    ]


def main() -> None:
    ours, bare, shares = [], [], []
    guard = {"gold": "gold", "num_prompts": LOOKED_AT}
    with tempfile.TemporaryDirectory() as folder:
        policy = assistant(Path(folder) / "assistant")
        for repeat in range(REPEATS):
            made = run_in(Path(folder) / str(repeat), recipe(stages(STEPS, guard), str(policy)))
            metrics = json.loads((made[-1] / "manifest.json").read_text())["metrics"]
            ours.append(metrics["steps"] / (metrics["train_seconds"] - metrics["guard_seconds"]))
            shares.append(metrics["guard_share"])
            given = json.dumps({**OPTIONS, **accumulated(BATCH, OPTIONS), "max_steps": STEPS})
            bare.append(1 / run_script(BARE, given, str(policy), str(made[2] / "model"))["seconds"])
    report("rlhf against GRPOTrainer with a reward model", ours, bare, "steps/s", 1 / 1.1)
    print(json.dumps({"benchmark": "share of the guard", "shares": [round(each, 3) for each in shares], "target": 0.1}))


if __name__ == "__main__":
    main()
