"""Parameter counts of a plan against the models that transformers builds."""

from __future__ import annotations

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

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
