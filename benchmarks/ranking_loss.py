"""Prompts per second of a reward model on rankings of five answers: llmkit's trainer, which reads every answer once,
against TRL's RewardTrainer on the same rankings as ten pairs a prompt. Same model, prompts per step, and settings; at
least 3 times as many."""

from __future__ import annotations

import json
from typing import Any

from common import report, run_script

REPEATS = 5
OPTIONS: dict[str, Any] = {"learning_rate": 3e-4, "gradient_checkpointing": False, "bf16": False, "max_steps": 8}
PROMPTS = 8
"""A step; ten times as many pairs."""

COMMON = """
import json, random, sys
from datasets import Dataset
from trl import RewardConfig, RewardTrainer
from llmkit.chat.template import load_template
from llmkit.data.pairs import split_answer
from llmkit.modeling.load import load_tokenizer
from llmkit.modeling.reward_model import load_scorer
from llmkit.modeling.tokens import fit_model, prepare_tokenizer
from llmkit.tiny import jokes
options, prompts = json.loads(sys.argv[1]), int(sys.argv[2])
tokenizer = load_tokenizer("llmkit.tiny:base")
new = prepare_tokenizer(tokenizer, load_template("chatml"))
model = load_scorer("llmkit.tiny:base", seed=1)
fit_model(model, tokenizer, new)
rng, rows = random.Random(0), []
for _ in range(prompts * options["max_steps"]):
    asked = jokes.drawn(rng, ("train",))
    prompt = [{"role": "user", "content": jokes.request(rng, asked)}]
    told = [[{"role": "assistant", "content": jokes.told(rng, asked)}] for _ in range(5)]
    split = [split_answer(tokenizer, prompt, answer) for answer in told]
    rows.append({"prompt_ids": split[0][0], "answers_ids": [ids for _, ids in split], "rankings": [[1, 2, 3, 4, 5]]})
def args(size):
    return RewardConfig(
        output_dir="/tmp/bench", use_cpu=True, save_strategy="no", disable_tqdm=True, report_to="none", max_length=None,
        remove_unused_columns=False, per_device_train_batch_size=size, **options)
"""
OURS = """
from llmkit.recipe.preference import RankingLossSpec
from llmkit.stages.ranking_trainer import RankingCollator, RankingTrainer
trainer = RankingTrainer(
    model=model, args=args(prompts), train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
    data_collator=RankingCollator(tokenizer.pad_token_id), loss=RankingLossSpec())
"""
PAIRS = """
pairs = [
    {"chosen_ids": row["prompt_ids"] + row["answers_ids"][i], "rejected_ids": row["prompt_ids"] + row["answers_ids"][j]}
    for row in rows for i in range(5) for j in range(i + 1, 5)]
trainer = RewardTrainer(
    model=model, args=args(10 * prompts), train_dataset=Dataset.from_list(pairs), processing_class=tokenizer)
"""
RUN = """
result = trainer.train()
print(json.dumps({"rate": prompts * result.global_step / result.metrics["train_runtime"]}))
"""


def rate(trainer: str) -> float:
    found = run_script(COMMON + trainer + RUN, json.dumps(OPTIONS), str(PROMPTS))
    return float(found["rate"])


def main() -> None:
    ours, pairs = [], []
    for _ in range(REPEATS):
        ours.append(rate(OURS))
        pairs.append(rate(PAIRS))
    report("reward model on rankings of five", ours, pairs, "prompts/s", 3.0)


if __name__ == "__main__":
    main()
