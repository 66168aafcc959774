"""A model's shape and exact parameter counts, from its config.json alone.

Knows the decoders of Llama's build (RMSNorm, gated MLP, rotary positions): llama, mistral, qwen2, qwen3, smollm3.
Fields that a config leaves out have transformers' defaults, read from its source by `ast` (importing takes seconds).
"""

from __future__ import annotations

import ast
import json
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_CLASSES = {
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "smollm3": "SmolLM3Config",
}
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Shape:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    query_size: int
    """num_attention_heads * head_dim."""
    key_size: int
    """num_key_value_heads * head_dim."""
    num_heads: int
    head_dim: int
    tied: bool
    qk_norm: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one block, as name -> (in, out)."""
        h, q, k, i = self.hidden_size, self.query_size, self.key_size, self.intermediate_size
        return dict(zip(_TARGETS, [(h, q), (h, k), (h, k), (q, h), (h, i), (h, i), (i, h)], strict=True))

    @property
    def num_linear(self) -> int:
        """Weights of the linear layers in all blocks."""
        return self.num_layers * sum(rows * columns for rows, columns in self.linears.values())

    @property
    def largest_linear(self) -> int:
        """Weights of the largest linear layer."""
        return max(rows * columns for rows, columns in self.linears.values())

    @property
    def num_embedding(self) -> int:
        """Weights of the embedding, and of the output head unless it is the same matrix."""
        return self.vocab_size * self.hidden_size * (1 if self.tied else 2)

    @property
    def num_parameters(self) -> int:
        bias = self.qkv_bias * (self.query_size + 2 * self.key_size) + self.o_bias * self.hidden_size
        bias += self.mlp_bias * (2 * self.intermediate_size + self.hidden_size)
        norms = 2 * self.hidden_size + self.qk_norm * 2 * self.head_dim
        return self.num_embedding + self.num_linear + self.num_layers * (bias + norms) + self.hidden_size

    def num_lora(self, r: int, target_modules: str | list[str], dora: bool) -> int | None:
        """Trained weights: r * (in + out) per linear layer, and `out` more under DoRA. None: unknown targets."""
        if isinstance(target_modules, str) and target_modules != "all-linear":
            return None
        names = _TARGETS if target_modules == "all-linear" else target_modules
        if any(name not in self.linears for name in names):
            return None
        one = sum(r * sum(self.linears[name]) + dora * self.linears[name][1] for name in names)
        return self.num_layers * one


def shape_of(config: dict[str, Any]) -> Shape | None:
    """The shape that a config describes; None for an architecture that is not known here."""
    kind = str(config.get("model_type"))
    if kind not in _CLASSES:
        return None
    given = {**_defaults(kind), **{key: value for key, value in config.items() if value is not None}}
    heads = given["num_attention_heads"]
    head_dim = given.get("head_dim") or given["hidden_size"] // heads
    attention_bias = kind == "qwen2" or bool(given.get("attention_bias"))
    return Shape(
        vocab_size=given["vocab_size"],
        hidden_size=given["hidden_size"],
        intermediate_size=given["intermediate_size"],
        num_layers=given["num_hidden_layers"],
        query_size=heads * head_dim,
        key_size=(given.get("num_key_value_heads") or heads) * head_dim,
        num_heads=heads,
        head_dim=head_dim,
        tied=bool(given.get("tie_word_embeddings")),
        qk_norm=kind == "qwen3",
        qkv_bias=attention_bias,
        o_bias=attention_bias and kind != "qwen2",
        mlp_bias=bool(given.get("mlp_bias")),
    )


@cache
def _defaults(kind: str) -> dict[str, Any]:
    """Literal defaults of a config class, for the keys that it declares."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return {}
    path = Path(spec.origin).parent / "models" / kind / f"configuration_{kind}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == _CLASSES[kind])
    fields = [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant)]
    return {field.target.id: field.value.value for field in fields}  # type: ignore[union-attr]


def read_config(model: str, revision: str | None) -> dict[str, Any] | None:
    """config.json of a folder, or of a Hub model that is in the local cache; else what was published of the models of
    shipped recipes; None if it is nowhere."""
    for folder in (Path(model), *_snapshots(model, revision)):
        path = folder / "config.json"
        if path.is_file():
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return None
            return data if isinstance(data, dict) else None
    return published().get(model)


@cache
def published() -> dict[str, dict[str, Any]]:
    """Model -> the fields of its config.json on the Hub that make its shape."""
    path = Path(__file__).with_name("published.json")
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _snapshots(model: str, revision: str | None) -> list[Path]:
    """Where huggingface_hub keeps a revision: `models--org--name/snapshots/<commit>`, named by `refs/<branch>`."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    cache_dir = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    folder = cache_dir / f"models--{model.replace('/', '--')}"
    wanted = revision or "main"
    ref = folder / "refs" / wanted
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else wanted
    return [folder / "snapshots" / commit]
