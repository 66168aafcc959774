"""Bytes that a process holds around its share of weights and gradients while these are gathered and added up.

- DDP's buckets are a second copy of the gradients. DeepSpeed collects them in a bucket of 5e8 numbers
  (whole on a GPU, as far as used on a CPU), lays a full bucket out anew to reduce it (`allreduce_bucket`, `torch.cat`
  in `reduce_scatter_coalesced`; gloo on a CPU clones that once more), and casts its share to float32 for the step.
  ZeRO-3 keeps up to 1e9 weights whole until their gradients are there, and its share of gradients between steps,
  which ZeRO-2 frees. FSDP2 gathers the embedding and two blocks.
"""

from __future__ import annotations

from llmkit.plan.activations import Setting
from llmkit.plan.command import AccelerateConfig
from llmkit.plan.shape import Shape

_BUCKET, _LIVE = 500_000_000, 1_000_000_000
"""DeepSpeed's `reduce_bucket_size` and `stage3_max_live_parameters`, in numbers."""


def gathered(shape: Shape, config: AccelerateConfig, setting: Setting, world: int) -> float:
    """Weights that a process holds whole while it shares them out, and their gradients."""
    each = 2 if setting.half and setting.deepspeed else setting.weight_bytes
    if config.zero_stage == 3:
        return min(shape.num_parameters, _LIVE) * each
    if config.distributed_type != "FSDP" or world == 1:
        return 0
    block = shape.num_linear / shape.num_layers
    return (2 * shape.num_embedding + 3 * block) * each


def bucket(config: AccelerateConfig, setting: Setting, num_trained: int) -> float:
    """Where DeepSpeed collects gradients, before there are any: on a CPU only what was written to counts."""
    if config.zero_stage not in (2, 3):
        return 0
    used = min(num_trained, _BUCKET) if config.zero_stage == 3 else 0
    return (used if config.use_cpu else _BUCKET) * gradient_bytes(setting)


def unreduced(config: AccelerateConfig, num_trained: int) -> float:
    """Share of the model whose backward pass is still to come when DeepSpeed's first bucket is full."""
    return max(0.0, 1 - _BUCKET / num_trained) if config.zero_stage in (2, 3) else 0.0


def reduced(config: AccelerateConfig, setting: Setting, num_trained: int) -> float:
    """The same when it is full, with what is made of it to add up those of all processes."""
    if config.zero_stage not in (2, 3):
        return 0
    full, gloo = min(num_trained, _BUCKET), config.use_cpu and config.zero_stage == 3
    held = full if config.use_cpu else _BUCKET
    return (held + full * (2 if gloo else 1)) * gradient_bytes(setting)


def gradient_bytes(setting: Setting) -> float:
    return (
        adapter_bytes(setting)
        if setting.adapter
        else (2 if setting.deepspeed and setting.half else setting.weight_bytes)
    )


def adapter_bytes(setting: Setting) -> int:
    return 2 if setting.quantized or (setting.deepspeed and setting.half) else 4
