"""The smallest model that tests use: 60k parameters with a vocabulary of 400."""

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
