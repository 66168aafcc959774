"""Memory terms and parameter counts, against published figures and arithmetic."""

from __future__ import annotations

from typing import Any

import pytest

from llmkit.artifacts.stagefile import Batch
from llmkit.plan.activations import Setting, per_token
from llmkit.plan.command import AccelerateConfig, accelerate_config
from llmkit.plan.memory import Memory, estimate, num_trained
from llmkit.plan.shape import Shape, read_config, shape_of
from llmkit.recipe.parts import LaunchSpec, ModelSpec
from llmkit.recipe.schema import KINDS
from llmkit.recipe.stages import GrpoStage, PretrainStage, SftStage, TrainStage
from llmkit.recipe.stages_preference import RlhfStage

# From the config.json of each model on the Hub; the counts are those of its safetensors.
QWEN3_06B = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
QWEN2_05B = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
LLAMA32_1B = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
MISTRAL_7B = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}


@pytest.mark.parametrize(
    ("config", "count"),
    [(QWEN3_06B, 596_049_920), (QWEN2_05B, 494_032_768), (LLAMA32_1B, 1_235_814_400), (MISTRAL_7B, 7_241_732_096)],
)
def test_published_parameter_counts(config: dict[str, Any], count: int) -> None:
    shape = shape_of(config)
    assert shape is not None
    assert shape.num_parameters == count


def test_unknown_architectures_are_not_guessed() -> None:
    assert shape_of({"model_type": "mamba"}) is None
    assert shape_of({}) is None


def test_fields_left_out_have_upstream_defaults() -> None:
    shape = shape_of({"model_type": "qwen3", "head_dim": None})
    assert shape is not None
    assert (shape.hidden_size, shape.head_dim, shape.num_layers) == (4096, 128, 32)


def memory(
    kind: type[TrainStage] = SftStage,
    accelerate: str = "single",
    world: int = 1,
    dtype: Any = "float32",
    peft: dict[str, Any] | None = None,
    rows: int = 1,
    steps: int = 2,
    fields: dict[str, Any] | None = None,
    **trainer: Any,
) -> Memory:
    name = next(name for name, known in KINDS.items() if known is kind)
    given = {"kind": name, "data": [{"path": "x"}], "trainer": trainer, "peft": peft, **(fields or {})}
    stage = kind.model_validate(given)
    config = accelerate_config(LaunchSpec(accelerate=accelerate, num_processes=world))
    shape = shape_of(QWEN3_06B)
    assert isinstance(config, AccelerateConfig)
    assert isinstance(shape, Shape)
    batch = Batch(
        global_batch_size=rows * world * steps,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=steps,
        world_size=world,
    )
    trained = num_trained(stage, shape)
    assert trained is not None
    return estimate(stage, ModelSpec(name_or_path="x", dtype=dtype), shape, config, batch, trained)


P = 596_049_920


def test_full_training_in_float32() -> None:
    terms = memory(bf16=False).terms
    assert (terms["weights"], terms["gradients"], terms["optimizer"]) == (4 * P, 4 * P, 8 * P)
    assert "autocast copies" not in terms


def test_full_training_in_bfloat16() -> None:
    terms = memory(dtype="bfloat16").terms
    assert (terms["weights"], terms["gradients"], terms["optimizer"]) == (2 * P, 2 * P, 4 * P)


@pytest.mark.parametrize(
    ("accelerate", "weights", "gradients", "optimizer"),
    [("ddp", 4 * P, 4 * P, 8 * P), ("zero2", 2 * P, P, 6 * P), ("zero3", P, P, 6 * P), ("fsdp2", 2 * P, 2 * P, 4 * P)],
)
def test_sharding_over_two(accelerate: str, weights: int, gradients: int, optimizer: int) -> None:
    terms = memory(accelerate=accelerate, world=2, bf16=True).terms
    assert (terms["weights"], terms["gradients"], terms["optimizer"]) == (weights, gradients, optimizer)


def test_lora_trains_little_and_nf4_stores_little() -> None:
    full, lora = memory(), memory(peft={"r": 16})
    qlora, dora = memory(peft={"r": 16, "quantization": "nf4"}), memory(peft={"r": 16, "method": "dora"})
    linears = (1024, 2048), (1024, 1024), (1024, 1024), (2048, 1024), (1024, 3072), (1024, 3072), (3072, 1024)
    adapters = 28 * sum(16 * (rows + columns) for rows, columns in linears)
    assert 0 < lora.num_trained - adapters < 10 * 1024, "and the rows of chat tokens"
    assert lora.terms["optimizer"] == 8 * lora.num_trained
    assert dora.num_trained - lora.num_trained == 28 * sum(columns for _, columns in linears)
    assert qlora.terms["weights"] < lora.terms["weights"] / 2 < full.terms["weights"]
    assert lora.total < full.total


def test_lora_targets() -> None:
    few = memory(peft={"r": 8, "target_modules": ["q_proj", "v_proj"]})
    assert few.num_trained < memory(peft={"r": 8}).num_trained / 3
    stage = SftStage.model_validate({"kind": "sft", "data": [{"path": "x"}], "peft": {"target_modules": ".*odd"}})
    shape = shape_of(QWEN3_06B)
    assert shape is not None
    assert num_trained(stage, shape) is None


def test_optimizers() -> None:
    assert memory(optim="adamw_8bit").terms["optimizer"] == 2 * P
    assert memory(optim="lion_32bit", bf16=False).terms["optimizer"] == 4 * P
    assert "optimizer" not in memory(optim="sgd").terms


def test_activations_grow_with_tokens_and_shrink_with_checkpointing() -> None:
    whole = {"gradient_checkpointing": False}
    small, large = memory(max_length=512, **whole), memory(max_length=1024, **whole)
    assert large.terms["activations"] == 2 * small.terms["activations"]
    assert memory(rows=2, **whole).terms["activations"] == 2 * memory(**whole).terms["activations"]
    assert large.terms["activations"] > 5 * memory().terms["activations"]


def test_gradients_are_freed_after_a_step() -> None:
    """Without accumulation they do not meet all activations: the larger of the two counts."""
    many = {"rows": 16, "gradient_checkpointing": False, "bf16": False}
    assert "gradients" not in memory(steps=1, **many).terms
    assert memory(steps=2, **many).total - memory(steps=1, **many).total == 4 * P
    few = memory(steps=1, max_length=16, gradient_checkpointing=False, bf16=False).terms
    assert few["gradients"] == 4 * P and few["activations"] < 2**21


def test_what_strategies_hold_around_the_weights() -> None:
    assert memory(accelerate="ddp", world=2).terms["DDP buckets"] == 4 * P
    zero2, zero3 = (memory(accelerate=name, world=8).terms for name in ("zero2", "zero3"))
    assert zero3["ZeRO buckets"] == 2 * 500_000_000, "DeepSpeed's default, on a GPU"
    assert zero2["ZeRO buckets"] == 4 * 500_000_000, "a full bucket is copied to reduce it"
    assert zero3["gathered weights"] == 2 * P, "a small model is gathered whole"
    assert memory(accelerate="cpu/zero2", world=2, bf16=False).terms["optimizer"] == 6 * P
    assert memory(accelerate="cpu/zero3", world=2, bf16=False).terms["optimizer"] == 4 * P


def test_the_guard_reads_answers_with_whole_logits() -> None:
    """As many answers at a time as are trained on, and two copies of one in float32."""
    options = {"max_completion_length": 4096, "num_generations": 2}
    fields = {"reward_model": "rm", "guard": "gold", "batch_size": 1}
    terms = memory(RlhfStage, rows=2, fields=fields, **options).terms
    assert terms["guard's logits"] == 4096 * QWEN3_06B["vocab_size"] * (2 * 4 + 8)
    assert "guard's logits" not in memory(GrpoStage, rows=2, fields={"rewards": ["exact"]}, **options).terms


def test_logits() -> None:
    full, chunked = memory(PretrainStage, bf16=False), memory(SftStage, bf16=False, rows=8)
    assert full.terms["logits"] == 1024 * 151936 * 12
    assert chunked.terms["logits"] < 8 * full.terms["logits"] / 4, "TRL's head works in tiles"


MEASURED = [
    ({}, 12336),
    ({"half": True}, 8752 - 384),
    ({"half": True, "weight_bytes": 2}, 7088),
    ({"adapter": "lora", "r": 16}, 10992),
    ({"adapter": "lora", "r": 16, "half": True}, 7900 - 384 - 76),
    ({"adapter": "lora", "r": 16, "half": True, "weight_bytes": 2}, 7516 - 76),
    ({"adapter": "dora", "r": 16}, 22279),
]
"""Bytes per token and layer that `saved_tensors_hooks` saw, 16-bit copies of weights taken off."""


@pytest.mark.parametrize(("given", "measured"), MEASURED)
def test_activations_match_what_autograd_saves(given: dict[str, Any], measured: int) -> None:
    config = {**QWEN3_06B, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "vocab_size": 512}
    shape = shape_of({**config, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32})
    assert shape is not None
    plain = {"weight_bytes": 4, "half": False, "adapter": None}
    setting = Setting(**{**plain, **given}, deepspeed=False, use_cpu=True, tokens=1024, checkpointing=False)
    assert per_token(shape, setting) == pytest.approx(measured, rel=0.06 if "dora" in given.values() else 0.01)


def test_config_of_a_cached_hub_model(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--org--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "config.json").write_text('{"model_type": "qwen3"}')
    assert read_config("org/name", None) == {"model_type": "qwen3"}
    assert read_config("org/name", "abc") == {"model_type": "qwen3"}
    assert read_config("org/name", "other") is None
    assert read_config("org/none", None) is None
