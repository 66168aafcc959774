"""Bytes that one forward and backward pass holds besides weights and gradients.

T: tokens in one pass, H, I, V, N: hidden size, MLP size, vocabulary, layers; Q, K: sizes of a token's queries and keys.

- activations: what autograd saves in a Llama block with sdpa, counted tensor by tensor (`per_token`; tests compare it
  with what `saved_tensors_hooks` saw). An adapter's frozen norms save less, its own inputs and outputs more.
- copies: autocast holds 16-bit copies of float32 weights: those that get gradients until the end of the forward pass,
  all of them while a backward pass needs them. With gradient checkpointing (Chen 2016) that is one block.
- logits: transformers' loss holds log-softmax and two gradients, 12 T V. TRL's fused head works on tiles of
  4096 x 32768, and accumulates gradients of the head in float32; its kernel works in place on GPUs, and takes 29 bytes
  a number of a tile on CPUs. Where an adapter trains rows of tokens, the whole head is copied and gets gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmkit.plan.shape import Shape

TILE = (4096, 32768)
_TILE_BYTES = 29
"""On a CPU: five float32 numbers, a mask, and two numbers more at the worst moment."""


@dataclass(frozen=True)
class Setting:
    """What the formulas read from a stage."""

    weight_bytes: float
    half: bool
    """Whether layers compute in 16 bits."""
    deepspeed: bool
    use_cpu: bool
    tokens: int
    checkpointing: bool
    adapter: str | None
    """`lora`, `dora`."""
    r: int = 0
    quantized: bool = False

    @property
    def autocast(self) -> bool:
        return self.half and self.weight_bytes == 4


@dataclass(frozen=True)
class Pass:
    """Bytes of one pass."""

    kept: float
    """Saved for the backward pass when it begins."""
    block: float
    """Of one block alone, with its copies."""
    copies: float
    """Of weights, in 16 bits, when the backward pass begins."""
    cached: float
    """The same at the end of the forward pass."""


def passed(shape: Shape, setting: Setting, num_trained: int) -> Pass:
    """What the blocks hold. Args: num_trained: weights that get gradients."""
    block, layers = setting.tokens * per_token(shape, setting), shape.num_layers
    copies = _copies(shape, setting, num_trained)
    if not setting.checkpointing:
        return Pass(layers * block, block, copies, copies)
    stream = 4 if setting.autocast else setting.weight_bytes
    inputs = layers * setting.tokens * shape.hidden_size * stream
    cached = 2 * num_trained if setting.autocast and not setting.deepspeed else 0
    return Pass(inputs, block + copies / layers, 0, cached)


def per_token(shape: Shape, setting: Setting) -> float:
    """Bytes that one block saves for one token."""
    h, i, q, k = shape.hidden_size, shape.intermediate_size, shape.query_size, shape.key_size
    queries = shape.qk_norm * (q + k)
    each = 2 if setting.half or setting.weight_bytes == 2 else 4
    linear = 2 * q + 2 * k + 4 * i
    if setting.adapter is not None:
        # frozen norms: their input alone; an adapter: its input, in 16 bits cast anew, and r numbers
        body = 4 * (4 * h + queries) if each == 4 else 8 * h + 2 * (5 * h + q) + 4 * queries
        dora = 2 * sum(columns for _, columns in shape.linears.values()) if setting.adapter == "dora" else 0
        return body + each * (linear + 7 * setting.r + dora)
    if each == 4:
        # 2 norms: input and normalised; inputs of qkv and of gate and up; q, k, v, output; gate, up, silu, product
        return 4 * (6 * h + linear + 2 * queries)
    # norms work in float32, and autocast casts the input of each linear layer anew
    norms, inputs = (16 * h, 5 * h) if setting.autocast else (12 * h, 2 * h)
    return norms + 2 * (inputs + linear) + 6 * queries


def _copies(shape: Shape, setting: Setting, num_trained: int) -> float:
    if not setting.autocast or setting.deepspeed:
        return 0
    frozen = setting.adapter is not None and not setting.quantized
    return 2 * shape.num_linear if setting.adapter is None else 2 * (num_trained + frozen * shape.num_linear)


def whole_logits(shape: Shape, setting: Setting) -> float:
    """Of transformers' own loss."""
    return setting.tokens * shape.vocab_size * (12 + (2 if setting.half or setting.weight_bytes == 2 else 0))


def tiled_logits(shape: Shape, setting: Setting) -> float:
    """Of TRL's fused head."""
    each = 2 if setting.half or setting.weight_bytes == 2 else 4
    rows = min(setting.tokens, TILE[0])
    tile: float = rows * TILE[1] * each
    if setting.use_cpu:
        # of a buffer only what is written to counts
        tile = rows * min(shape.vocab_size, TILE[1]) * (_TILE_BYTES + each)
    head = shape.vocab_size * shape.hidden_size
    gradient = head * (4 if setting.weight_bytes == 4 else 4 + setting.weight_bytes)
    copy = head * setting.weight_bytes if setting.adapter else 0
    return tile + gradient + copy + setting.tokens * shape.hidden_size * 4
