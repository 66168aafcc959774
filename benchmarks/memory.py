"""Peak memory that `llmkit plan` estimates against what a worker took, for every way of training: within 15 % on a CPU.

    python benchmarks/memory.py [WAY ...] [BUDGET ...]

Each way runs twice: with a random model of 32 million parameters, and with one of a million that takes all that
the framework takes. The difference of their largest resident sets is measured, the difference of the plans estimated.
glibc keeps freed blocks of up to 32 MB for later; its limit is set low, so that what is freed is gone.
Of a budget (`400MiB`) full training is planned, and every change that the plan proposes is run: does it stay below?
The models' files are in bfloat16, as published ones are: of a file in the type that is asked for, weights are views,
and all that was read of it counts as resident until the kernel wants the room, also what 4 bits have replaced.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import ENV, ROOT, run_in, run_script

from llmkit.recipe.parts import num_bytes

TARGET = 0.15
BUDGETS = ("500MiB", "400MiB", "300MiB")
LARGE = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
SMALL = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
COMMON = {"model_type": "qwen3", "num_key_value_heads": 1, "head_dim": 64, "tie_word_embeddings": True}
NEW_MODEL = """
import json, sys
from llmkit.modeling.load import load_tokenizer
from llmkit.modeling.scratch import new_model
tokenizer = load_tokenizer("llmkit.tiny:base")
tokenizer.model_max_length = 2048
model = new_model(json.loads(sys.argv[1]), tokenizer, seed=0)
model.resize_token_embeddings(16384, mean_resizing=False)
model.bfloat16().save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
print("{}")
"""
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
TRAINER = {"max_steps": 2, "max_length": 256, "per_device_train_batch_size": 2, "save_strategy": "no", "bf16": False}
PRACTISED = {"max_completion_length": 128, "num_generations": 4, "per_device_train_batch_size": 4}
PRACTISED |= {"max_steps": 2, "save_strategy": "no", "bf16": False}
FULL, BF16 = {"gradient_checkpointing": False}, {"bf16": True, "gradient_checkpointing": False}


def way(
    kind: str = "sft", launch: str = "single", peft: Any = None, dtype: str = "float32", steps: int = 1, **options: Any
) -> Any:
    """One row of the table. Args: steps: of accumulation."""
    processes = 1 if launch == "single" else 2
    stage = {"kind": kind, "global_batch_size": 2 * processes * steps, "trainer": {**TRAINER, **options}, "peft": peft}
    stage["launch"] = {"accelerate": f"cpu/{launch}", "num_processes": processes, "env": MALLOC}
    return stage, dtype


def practice(kind: str, **options: Any) -> Any:
    stage, dtype = way(kind)
    return {**stage, "global_batch_size": 8, "trainer": {**PRACTISED, **options}}, dtype


def asked(kind: str, **settings: Any) -> Any:
    """A stage that asks the model, 32 answers at a time."""
    stage, dtype = way(kind)
    shared = {"kind": kind, "batch_size": 32, "launch": stage["launch"]}
    return {**shared, **settings}, dtype


LORA, QLORA = {"r": 16, "merge": False}, {"r": 16, "quantization": "nf4", "merge": False}
WAYS = {
    "full": way(**FULL),
    "full, accumulated": way(steps=2, **FULL),
    "full, bf16": way(**BF16),
    "full, bf16, accumulated": way(steps=2, **BF16),
    "full, checkpointing": way(),
    "full, bfloat16 weights": way(dtype="bfloat16", **BF16),
    "LoRA": way(peft=LORA, **FULL),
    "LoRA, checkpointing": way(peft=LORA),
    "QLoRA": way(peft=QLORA, **FULL),
    "QLoRA, checkpointing": way(peft=QLORA),
    "DDP": way(launch="ddp", **FULL),
    "ZeRO-2": way(launch="zero2", **FULL),
    "ZeRO-3": way(launch="zero3", **FULL),
    "FSDP2": way(launch="fsdp2", **FULL),
    "pretrain": way("pretrain", **FULL),
    "pretrain, bf16": way("pretrain", **BF16),
    "dpo": way("dpo", **FULL),
    "dpo, LoRA": way("dpo", peft=LORA, **FULL),
    "reward": way("reward", **FULL),
    "grpo": practice("grpo", **FULL),
    "grpo, beta": practice("grpo", beta=0.1, **FULL),
    "grpo, checkpointing": practice("grpo"),
    "rloo": practice("rloo", **FULL),
    "rlhf": practice("rlhf", **FULL),
    "interrogate": asked("interrogate", ask={"num_samples": 4, "max_new_tokens": 128}),
    "rollout": asked("rollout", num_completions=4, max_new_tokens=128),
    "best_of_n": asked("best_of_n", num_samples=4, max_new_tokens=128, rewards=["random"]),
    "evaluate": asked("evaluate", evals=[{"task": "problems", "num_samples": 7, "max_new_tokens": 128}]),
}


def digits(number: int, seed: int) -> str:
    """So many tokens: every digit is one."""
    chance = random.Random(seed)
    return "".join(chance.choice("0123456789") for _ in range(number))


def rows(kind: str) -> list[dict[str, Any]]:
    """Rows that are as long as the plan takes them to be."""
    length = TRAINER["max_length"]
    if kind == "pretrain":
        return [{"text": digits(3000, seed)} for seed in range(16)]
    if kind == "sft":
        talk = [(digits(20, seed), digits(length - 40, -seed)) for seed in range(40)]
        return [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in talk]
    if kind == "dpo":
        sides = {side: place for place, side in enumerate(("chosen", "rejected"))}
        return [
            {"prompt": digits(20, seed), **{side: digits(length - 40, 100 * seed + n) for side, n in sides.items()}}
            for seed in range(40)
        ]
    if kind == "reward":
        return [
            {
                "prompt": digits(20, seed),
                "answers": [digits(length - 40, 100 * seed + n) for n in range(5)],
                "rankings": [[1, 2, 3, 4, 5]],
            }
            for seed in range(40)
        ]
    if kind == "interrogate":
        return [{"question": digits(56, seed), "answers": ["7"]} for seed in range(64)]
    return [{"prompt": digits(240, seed), "answer": "7"} for seed in range(60)]


def recipe(folder: Path, model: Path, stage: dict[str, Any], dtype: str) -> dict[str, Any]:
    kind = stage["kind"]
    plain = kind not in ("pretrain", "sft", "dpo", "reward")  # its model has never seen the tokens of a template
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(kind)))
    source = [{"path": str(path)}]
    stages = [{**stage, "data": source}]
    if kind == "reward":
        stages[0] |= {"heldout_fraction": 0.0}
    if kind in ("grpo", "rloo"):
        stages[0] |= {"rewards": ["random"]}
    if kind == "interrogate":
        stages = [{**stage, "questions": source}]
    if kind == "evaluate":
        stages = [{**stage, "evals": [{**spec, "problems": source} for spec in stage["evals"]]}]
    if kind == "rlhf":
        ranked, _ = WAYS["reward"]
        (folder / "reward.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows("reward")))
        (folder / "asked.jsonl").write_text(json.dumps({"prompt": digits(240, 999)}) + "\n")
        stages[0] |= {
            "reward_model": "rm",
            "guard": "off",
            "heldout": {"asked": [{"path": str(folder / "asked.jsonl")}]},
        }
        stages.insert(0, {**ranked, "name": "rm", "data": [{"path": str(folder / "reward.jsonl")}]})
    return {
        "run": {"name": "memory"},
        "model": {"name_or_path": str(model), "dtype": dtype, **({} if plain else {"chat_template": "chatml"})},
        "stages": stages,
    }


def planned(path: Path) -> dict[str, Any]:
    """The plan of the last step."""
    argv = [sys.executable, "-m", "llmkit.cli.main", "plan", "--json", str(path)]
    plan = json.loads(subprocess.run(argv, env=ENV, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    step: dict[str, Any] = plan["steps"][-1]
    return step


def peak(name: str, model: Path, *words: str) -> tuple[int, dict[str, int]]:
    """Bytes that one way took with a model, and the plan's terms. Args: words: `key=value`, laid on its recipe."""
    with tempfile.TemporaryDirectory() as folder:
        made = run_in(Path(folder), recipe(Path(folder), model, *WAYS[name]), *words)
        taken: int = json.loads((made[-1] / "manifest.json").read_text())["peak_memory_bytes"]
        return taken, planned(made[-1].parent / "recipe.yaml")["memory"]


def proposed(budget: str, model: Path) -> list[list[str]]:
    """The changes that the plan proposes for full training that does not fit."""
    stage, dtype = WAYS["full"]
    with tempfile.TemporaryDirectory() as folder:
        limited = {**stage, "launch": {**stage["launch"], "memory": budget}}
        (path := Path(folder) / "recipe.yaml").write_text(json.dumps(recipe(Path(folder), model, limited, dtype)))
        step = planned(path)
    found: list[list[str]] = step["changes"]
    return found


def measure_budget(budget: str, models: dict[str, Path]) -> Iterator[dict[str, Any]]:
    for words in proposed(budget, models["large"]):
        (large, _), (small, plan) = (peak("full", models[size], *words) for size in ("large", "small"))
        taken = (large - small + plan["total"]) / 2**20
        line = {"budget": budget, "change": words, "measured_MiB": round(taken)}
        yield {**line, "met": taken <= num_bytes(budget) / 2**20}


def measure(name: str, models: dict[str, Path], around: dict[str, Any]) -> dict[str, Any]:
    """Estimated and measured MiB of one way, large less small. Args: around: what the small model took before."""
    stage, dtype = WAYS[name]
    trainer = stage.get("trainer", {})
    alike = json.dumps([stage["kind"], stage["launch"], stage.get("peft"), trainer.get("bf16"), dtype])
    if alike not in around:
        around[alike] = peak(name, models["small"])
    peaks, plans = zip(peak(name, models["large"]), around[alike], strict=True)
    terms = {term: round((bytes_ - plans[1].get(term, 0)) / 2**20) for term, bytes_ in plans[0].items()}
    measured = (peaks[0] - peaks[1]) / 2**20
    ratio = terms["total"] / measured
    line = {"way": name, "estimate_MiB": terms.pop("total"), "measured_MiB": round(measured), "ratio": round(ratio, 3)}
    return {**line, "met": abs(ratio - 1) <= TARGET, "terms": terms}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = {"large": Path(folder) / "large", "small": Path(folder) / "small"}
        for size, shape in (("large", LARGE), ("small", SMALL)):
            run_script(NEW_MODEL, json.dumps({**COMMON, **shape, "max_position_embeddings": 2048}), str(models[size]))
        around: dict[str, Any] = {}
        for name in sys.argv[1:] or [*WAYS, *BUDGETS]:
            for line in [measure(name, models, around)] if name in WAYS else measure_budget(name, models):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
