"""The smallest model that tests use: 60k parameters with a vocabulary of 400. And small ones of published builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHAPE = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "tie_word_embeddings": True,
}
CONFIG = {**SHAPE, "vocab_size": 400}


def cut(folder: Path, name: str, tokenizer_dir: Path, *, rewards: bool = False) -> Path:
    """Random weights of a published model's build, a few layers deep and narrow; `rewards`: one that gives scores."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from llmkit.chat.template import apply_template, load_template
    from llmkit.plan.shape import published

    fields: dict[str, Any] = dict(published()[name])
    groups = fields["num_attention_heads"] // fields["num_key_value_heads"]
    fields |= {"num_attention_heads": groups, "num_key_value_heads": 1, "head_dim": 16, "num_hidden_layers": 2}
    fields |= {"hidden_size": fields["hidden_size"] // 32, "intermediate_size": fields["intermediate_size"] // 64}
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    if rewards:  # as published ones have
        apply_template(tokenizer, load_template("chatml"))
    fields |= {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    kind, more = (AutoModelForSequenceClassification, {"num_labels": 1}) if rewards else (AutoModelForCausalLM, {})
    config = AutoConfig.for_model(**fields, **more, pad_token_id=tokenizer.pad_token_id)
    made = folder / ("cut-rewards" if rewards else "cut")
    kind.from_config(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made
