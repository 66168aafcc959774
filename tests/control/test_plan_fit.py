"""Whether a step fits, and that what `plan` says would make it fit does."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from llmkit.cli.new import recipes
from llmkit.errors import RecipeError
from llmkit.plan.fit import USABLE
from llmkit.plan.make import make
from llmkit.plan.render import print_plan, to_json
from llmkit.plan.step import Step
from llmkit.recipe.load import load
from llmkit.recipe.parts import num_bytes

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
TRAINER = {"gradient_checkpointing": False, "per_device_train_batch_size": 8, "max_length": 2048}
STAGES: dict[str, dict[str, Any]] = {
    "sft": {"trainer": TRAINER, "global_batch_size": 64},
    "dpo": {"trainer": TRAINER, "global_batch_size": 64},
    "pretrain": {"trainer": TRAINER, "global_batch_size": 64},
    "grpo": {
        "trainer": {"gradient_checkpointing": False, "per_device_train_batch_size": 16, "max_completion_length": 1024},
        "rewards": ["exact"],
        "batch_size": 512,
    },
    "best_of_n": {"rewards": ["exact"], "batch_size": 512},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA_8B))
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return tmp_path


def planned(folder: Path, kind: str, memory: str, *words: str, **launch: Any) -> Step:
    stage = {"kind": kind, "data": [{"path": str(folder / "rows.jsonl")}], **STAGES[kind]}
    stage["launch"] = {"memory": memory, **launch}
    model = {"name_or_path": str(folder / "model"), "dtype": "bfloat16", "chat_template": "chatml"}
    recipe = {"run": {"name": "r", "output_dir": str(folder)}, "model": model, "stages": [stage]}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return make(load([folder / "recipe.yaml"], words)).steps[0]


@pytest.mark.parametrize(
    ("kind", "memory", "launch"),
    [
        ("sft", "24GiB", {}),
        ("sft", "80GiB", {}),
        ("sft", "80GiB", {"accelerate": "ddp", "num_processes": 8}),
        ("sft", "40GiB", {"accelerate": "zero3", "num_processes": 8}),
        ("dpo", "24GiB", {}),
        ("pretrain", "80GiB", {"accelerate": "zero2", "num_processes": 4}),
        ("grpo", "48GiB", {}),
        ("best_of_n", "24GiB", {}),
    ],
)
def test_what_is_suggested_makes_it_fit(folder: Path, kind: str, memory: str, launch: dict[str, Any]) -> None:
    before = planned(folder, kind, memory, **launch)
    assert before.fit is not None and before.memory is not None
    assert not before.fit.fits and before.memory.total > USABLE * num_bytes(memory)
    assert before.fit.changes, "there is a way"
    for words in before.fit.changes:
        after = planned(folder, kind, memory, *words, **launch)
        assert after.fit is not None and after.memory is not None
        assert after.fit.fits and after.memory.total <= USABLE * num_bytes(memory), words
        for word in words if len(words) > 1 else ():
            # none of them is said in vain
            fewer = [other for other in words if other != word]
            try:
                less = planned(folder, kind, memory, *fewer, **launch)
            except RecipeError:
                continue
            assert less.fit is not None and not less.fit.fits, (word, words)


def test_the_gentlest_comes_first(folder: Path) -> None:
    eight = planned(folder, "sft", "40GiB", accelerate="zero3", num_processes=8).fit
    assert eight is not None and "trainer.optim" not in " ".join(eight.changes[0]), "no other optimizer without need"
    card = planned(folder, "sft", "24GiB").fit
    assert card is not None
    text = [" ".join(words) for words in card.changes]
    assert any("quantization: nf4" in words for words in text), "8 billion weights on 24 GiB: QLoRA"
    lora = planned(folder, "sft", "16GiB").fit
    assert lora is not None and not any("{method: lora}" in " ".join(words) for words in lora.changes), (
        "15 GiB of weights"
    )


def test_one_suggestion_of_a_kind(folder: Path) -> None:
    fit = planned(folder, "best_of_n", "24GiB").fit
    assert fit is not None
    [[word]] = fit.changes
    rows = int(word.removeprefix("stages.best_of_n.batch_size="))
    twice = planned(folder, "best_of_n", "24GiB", f"stages.best_of_n.batch_size={2 * rows}").fit
    assert twice is not None and not twice.fits, "the most rows that fit"


def test_nothing_helps(folder: Path) -> None:
    tiny = planned(folder, "sft", "2GiB").fit
    assert tiny is not None and not tiny.fits and tiny.changes == ()


def test_a_change_that_the_recipe_refuses_is_none() -> None:
    """A model from scratch takes no adapter."""
    [base] = [path for name, path in recipes().items() if name == "tiny/base"]
    step = make(load([base], ["stages.pretrain.launch.memory=20MiB"])).steps[0]
    assert step.fit is not None and not step.fit.fits
    assert not any("peft" in word for words in step.fit.changes for word in words)


def test_without_a_given_memory_nothing_is_said(folder: Path) -> None:
    planned(folder, "sft", "24GiB")
    stage = make(load([folder / "recipe.yaml"], ["stages.sft.launch.memory=null"])).steps[0]
    assert stage.fit is None


def test_a_memory_that_is_none(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"launch\.memory: must be a number with a unit, such as 24GiB"):
        planned(folder, "sft", "lots")
    assert (num_bytes("1.5GiB"), num_bytes("80 GB"), num_bytes("512MiB")) == (3 * 2**29, 80 * 10**9, 2**29)


def test_it_is_shown(folder: Path) -> None:
    planned(folder, "sft", "24GiB")
    plan, out = make(load([folder / "recipe.yaml"])), io.StringIO()
    print_plan(plan, Console(file=out, width=200))
    step = json.loads(to_json(plan))["steps"][0]
    assert "no: 24.0 GiB a process" in out.getvalue() and step["fits"] is False
    assert all(word in out.getvalue() for words in step["changes"] for word in words)
