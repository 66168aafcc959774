"""SFT throughput of a stage on the embedded model and the demo's chats, in trained-on tokens per second.

1. against a bare SFTTrainer script with the same settings (packing, batch, length, precision): at least 0.95
2. llmkit's defaults against TRL's defaults: at least 2
"""

from __future__ import annotations

import json
from typing import Any

from common import report, run_recipe, run_script

MODEL = "llmkit.tiny:base"
NUM_ROWS = 4000
REPEATS = 3

BARE = """
import itertools, json, sys, time
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
from llmkit.artifacts.shipped import in_package, shipped
from llmkit.tiny.sources import conversations
options = json.loads(sys.argv[1])
path = in_package("llmkit.tiny:base")
tokenizer = AutoTokenizer.from_pretrained(path)
tokenizer.chat_template = (shipped("chat_templates") / "chatml.jinja").read_text()
tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
model.resize_token_embeddings(len(tokenizer))
rows = list(conversations(num_rows=int(sys.argv[2])))
data = Dataset.from_list(rows)
args = SFTConfig(output_dir="/tmp/bare", use_cpu=True, save_strategy="no", disable_tqdm=True, report_to="none",
                 assistant_only_loss=True, max_steps=int(sys.argv[3]), **options)
trainer = SFTTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer)
result = trainer.train()
num_tokens = [len(row["input_ids"]) for row in trainer.train_dataset]
per_row = sum(num_tokens) / len(num_tokens)
rows_seen = result.global_step * args.per_device_train_batch_size * args.gradient_accumulation_steps
print(json.dumps({"tokens_per_second": rows_seen * per_row / result.metrics["train_runtime"]}))
"""


def stage(trainer: dict[str, Any], global_batch_size: int) -> float:
    recipe = {
        "run": {"name": "bench", "seed": 0},
        "model": {"name_or_path": MODEL, "chat_template": "chatml"},
        "stages": [
            {
                "kind": "sft",
                "data": [{"path": "llmkit.tiny.sources:conversations", "args": {"num_rows": NUM_ROWS}}],
                "global_batch_size": global_batch_size,
                "trainer": {"save_strategy": "no", **trainer},
            }
        ],
    }
    return float(run_recipe(recipe)[0]["tokens_per_second"])


def same_settings() -> None:
    same = {"packing": True, "max_length": 256, "bf16": True, "gradient_checkpointing": False, "logging_steps": 10}
    options = {**same, "per_device_train_batch_size": 16, "learning_rate": 1e-4}
    ours, bare = [], []
    for _ in range(REPEATS):
        ours.append(stage({**options, "max_steps": 40}, 16))
        bare.append(run_script(BARE, json.dumps(options), str(NUM_ROWS), "40")["tokens_per_second"])
    report("SFT stage against bare SFTTrainer, same settings", ours, bare, "tokens/s", 0.95)


def defaults() -> None:
    """`max_length` is what the model reads at most; no row is that long."""
    ours, bare = [], []
    for _ in range(REPEATS):
        ours.append(stage({"max_length": 512, "max_steps": 12}, 32))
        bare.append(run_script(BARE, "{}", str(NUM_ROWS), "60")["tokens_per_second"])
    report("SFT stage with llmkit's defaults against TRL's defaults", ours, bare, "tokens/s", 2.0)


if __name__ == "__main__":
    same_settings()
    defaults()
