"""Parameter counts and caches of a plan against the models that transformers builds."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from llmkit.plan.inference import Pass, _terms
from llmkit.plan.shape import shape_of

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "pad_token_id": None,
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("mistral", {"head_dim": 16}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("qwen3", {"head_dim": 16, "attention_bias": True}),
        ("smollm3", {}),
    ],
)
def test_counts_are_exact(kind: str, extra: dict[str, object], tied: bool) -> None:
    fields = {**SMALL, **extra, "tie_word_embeddings": tied}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields))
    for config in ({"model_type": kind, **fields}, model.config.to_dict()):
        shape = shape_of(config)
        assert shape is not None
        assert shape.num_parameters == sum(p.numel() for p in model.parameters())
        linears = [m for name, m in model.named_modules() if name.endswith("_proj")]
        assert shape.num_linear == sum(m.weight.numel() for m in linears)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_the_cache_is_as_large_as_transformers_makes_it(kind: str) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, head_dim=16))
    cache = DynamicCache(config=model.config)
    rows, prompt, new = 3, 5, 2
    model(torch.ones(rows, prompt + new, dtype=torch.long), past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    shape = shape_of(model.config.to_dict())
    assert shape is not None
    assert _terms(shape, 4, Pass(rows, prompt, new))["KV cache"] == held
