"""Pretraining throughput of a stage against a hand-written PyTorch loop: same model, same packed rows, same batch.

Target: at least 0.85.
"""

from __future__ import annotations

from common import report, run_recipe, run_script

STEPS = 40
REPEATS = 3

LOOP = """
import json, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from llmkit.artifacts.shipped import in_package
from llmkit.tiny.sources import documents
torch.manual_seed(0)
path = in_package("llmkit.tiny:base")
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
rows, current = [], ([], [])
for row in documents(num_rows=4000):
    ids = tokenizer(row["text"])["input_ids"] + [tokenizer.eos_token_id]
    if len(current[0]) + len(ids) > 256:
        rows.append(current)
        current = ([], [])
    current = (current[0] + ids[:256], current[1] + list(range(len(ids[:256]))))
def batch(step):
    picked = [rows[(step * 16 + i) % len(rows)] for i in range(16)]
    pad = lambda xs, value: torch.tensor([x + [value] * (256 - len(x)) for x in xs])
    ids, positions = [r[0] for r in picked], [r[1] for r in picked]
    return pad(ids, tokenizer.pad_token_id), pad(ids, -100), pad(positions, 0)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
num_tokens = sum(len(rows[i % len(rows)][0]) for i in range(16 * int(sys.argv[1])))
start = time.perf_counter()
for step in range(int(sys.argv[1])):
    ids, labels, positions = batch(step)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=ids, labels=labels, position_ids=positions, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
print(json.dumps({"tokens_per_second": num_tokens / (time.perf_counter() - start)}))
"""

RECIPE = {
    "run": {"name": "bench", "seed": 0},
    "model": {"name_or_path": "llmkit.tiny:base"},
    "stages": [
        {
            "kind": "pretrain",
            "data": [{"path": "llmkit.tiny.sources:documents", "args": {"num_rows": 4000}}],
            "global_batch_size": 16,
            "trainer": {
                "max_length": 256,
                "per_device_train_batch_size": 16,
                "max_steps": STEPS,
                "learning_rate": 1e-4,
                "bf16": True,
                "gradient_checkpointing": False,
                "save_strategy": "no",
            },
        }
    ],
}


def main() -> None:
    ours, loop = [], []
    for _ in range(REPEATS):
        ours.append(float(run_recipe(RECIPE)[0]["tokens_per_second"]))
        loop.append(float(run_script(LOOP, str(STEPS))["tokens_per_second"]))
    report("pretrain stage against a hand-written loop", ours, loop, "tokens/s", 0.85)


if __name__ == "__main__":
    main()
