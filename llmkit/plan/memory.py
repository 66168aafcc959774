"""Peak memory of one worker, term by term. An estimate: it leaves out the framework, kernels' scratch and fragments.

P: parameters, T: tokens in one forward pass (per_device_train_batch_size * max_length), H, I, V, N: hidden size, MLP
size, vocabulary, layers; Q, K: sizes of a token's queries and of its keys; W: world size.

- weights, gradients, optimizer: Rajbhandari 2020 (ZeRO), section 3: mixed-precision AdamW under DeepSpeed costs 2 + 2 +
  12 bytes a parameter, plain AdamW in dtype d costs d + d + 2d; ZeRO-2 divides gradients and optimizer by W, ZeRO-3
  and FSDP2 weights too.
- LoRA (Hu 2021) trains r * (in + out) a layer, NF4 (Dettmers 2023) stores 4 bits a weight and 0.127 bits of constants.
- autocast keeps 16-bit copies of float32 weights until the backward pass (torch.autocast's weight cache).
- activations: what autograd saves in a Llama block with sdpa, counted tensor by tensor: `_per_token`. With gradient
  checkpointing (Chen 2016): the input of each block, and one block recomputed.
- grpo and rloo read a prompt (taken as 256 tokens) and an answer of `max_completion_length`; with `beta` they hold a
  frozen copy as dpo does; their KV cache is that of `batch_size` answers. vLLM's memory is not counted.
- dpo holds a frozen copy of the weights (none with an adapter: it is switched off) and reads two answers a row.
- logits: float32 logits, their log-softmax and the gradient, 12 * T * V; for `sft` TRL's fused head works on tiles
  of 4096 x 32768 and accumulates gradients of the head in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmkit.artifacts.stagefile import Batch
from llmkit.plan.command import AccelerateConfig
from llmkit.plan.shape import Shape
from llmkit.recipe.parts import ModelSpec
from llmkit.recipe.stages import DpoStage, PracticeStage, PretrainStage, TrainStage
from llmkit.recipe.stages_preference import RewardStage, RlhfStage
from llmkit.recipe.trainer_keys import trainer_options

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NF4_BYTES = 0.5 + 0.127 / 8
_STATES = {"adafactor": 0.0, "sgd": 0.0, "lion": 1.0, "rmsprop": 1.0, "adagrad": 1.0}
"""Optimizer states a trained weight, of the weight's type, by the start of `optim`; AdamW: 2."""
_MAX_LENGTH = 1024
PROBLEM = 256
"""Tokens of a problem, with what a chat template puts around it: a guess."""
_RANKED = 5
"""Answers to a prompt that are ranked: a guess."""
_TILE = (4096, 32768)
_TOKEN_ROWS = 4
"""Rows of chat tokens that LoRA trains whole."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one worker."""

    terms: dict[str, int]
    num_parameters: int
    num_trained: int
    others: dict[str, int | None] = field(default_factory=dict)
    """Judges and writers besides those in `terms` -> bytes where they take the model's place; None: not known here."""

    @property
    def total(self) -> int:
        return max(sum(self.terms.values()), *(number or 0 for number in self.others.values()), 0)


@dataclass(frozen=True)
class _Setting:
    """What the formulas read from a stage."""

    weight_bytes: float
    autocast: bool
    deepspeed: bool
    tokens: int
    checkpointing: bool


def estimate(
    stage: TrainStage, model: ModelSpec, shape: Shape, config: AccelerateConfig, batch: Batch, num_trained: int
) -> Memory:
    """Terms of a training stage on the model of `shape`."""
    setting = _setting(stage, model, config, batch)
    weights, optimizer_bytes = _weights(stage, shape, setting), _optimizer_bytes(stage, setting)
    gradient_bytes = 2 if setting.deepspeed and setting.autocast else setting.weight_bytes
    optimizer = 0 if config.offload_optimizer else num_trained * optimizer_bytes
    world = batch.world_size
    terms = {
        "weights": weights / (world if config.shards_weights else 1),
        "reference model": _reference(stage, weights) / (world if config.shards_weights else 1),
        "gradients": num_trained * gradient_bytes / (world if config.shards_gradients else 1),
        "optimizer": optimizer / (world if config.shards_optimizer else 1),
        "autocast copies": _copies(stage, shape, setting),
        "activations": _activations(shape, setting),
        "logits": _logits(stage, shape, setting),
        "KV cache": _cache(stage, shape, setting, batch),
    }
    rounded = {name: int(value) for name, value in terms.items() if value}
    return Memory(rounded, shape.num_parameters, num_trained)


def with_scorers(memory: Memory, scorers: Sequence[tuple[RewardStage, Shape | None]]) -> Memory:
    """The same with reward models beside it, which are held whole in float32; unchanged where a shape is not known."""
    known = [stage.num_models * shape.num_parameters for stage, shape in scorers if shape is not None]
    if not known or len(known) < len(scorers):
        return memory
    return replace(memory, terms={**memory.terms, "reward models": 4 * sum(known)})


def num_trained(stage: TrainStage, shape: Shape) -> int | None:
    """Weights that get gradients; None where peft's targets are not known here."""
    if stage.peft is None:
        return shape.num_parameters
    lora = shape.num_lora(stage.peft.r, stage.peft.target_modules, stage.peft.method == "dora")
    return None if lora is None else lora + _TOKEN_ROWS * shape.hidden_size * (1 if shape.tied else 2)


def tokens_per_pass(stage: TrainStage, batch: Batch) -> int:
    """Tokens of one forward pass: rows are at most, and packed rows nearly, `max_length` long."""
    if isinstance(stage, PracticeStage):
        return batch.per_device_train_batch_size * _practised(stage)
    length = stage.trainer.get("max_length") or _MAX_LENGTH
    answers = 2 if isinstance(stage, DpoStage) else _RANKED if isinstance(stage, RewardStage) else 1
    return batch.per_device_train_batch_size * int(length) * answers


def _practised(stage: PracticeStage) -> int:
    """Tokens of a prompt and its longest answer."""
    return PROBLEM + int(trainer_options(stage.trainer_kind, stage.trainer)["max_completion_length"])


def _cache(stage: TrainStage, shape: Shape, setting: _Setting, batch: Batch) -> float:
    """Keys and values of the answers that a process samples at a time, at most a whole generation batch."""
    if not isinstance(stage, PracticeStage) or stage.trainer.get("use_vllm"):
        return 0
    rows = (stage.trainer.get("generation_batch_size") or batch.global_batch_size) // batch.world_size
    rows, each = min(rows, stage.batch_size), 2 if setting.autocast else setting.weight_bytes
    return 2 * rows * _practised(stage) * shape.num_layers * shape.key_size * each


def _setting(stage: Any, model: ModelSpec, config: AccelerateConfig, batch: Batch) -> _Setting:
    scratch = isinstance(stage, PretrainStage) and stage.init == "scratch"
    options = trainer_options(stage.trainer_kind, stage.trainer)
    half = bool(options.get("fp16")) or options.get("bf16") is not False
    dtype = "float32" if scratch else model.dtype
    return _Setting(
        weight_bytes=BYTES[dtype],
        autocast=half and dtype == "float32",
        deepspeed=config.zero_stage is not None,
        tokens=tokens_per_pass(stage, batch),
        checkpointing=bool(options.get("gradient_checkpointing")),
    )


def _weights(stage: TrainStage, shape: Shape, setting: _Setting) -> float:
    each = 2 if setting.deepspeed and setting.autocast else setting.weight_bytes
    if stage.peft is None:
        return shape.num_parameters * each
    trained = num_trained(stage, shape) or 0
    if stage.peft.quantization is None:
        return (shape.num_parameters + trained) * each
    return shape.num_linear * _NF4_BYTES + (shape.num_parameters - shape.num_linear + trained) * each


def _reference(stage: TrainStage, weights: float) -> float:
    if stage.peft is not None:
        return 0
    if isinstance(stage, RlhfStage):
        # the guard measures how far the policy is from it
        return weights
    if isinstance(stage, PracticeStage):
        return weights if trainer_options(stage.trainer_kind, stage.trainer)["beta"] else 0
    frozen = isinstance(stage, DpoStage) and not stage.trainer.get("precompute_ref_log_probs")
    return weights if frozen else 0


def _optimizer_bytes(stage: TrainStage, setting: _Setting) -> float:
    name = str(stage.trainer.get("optim", "adamw_torch_fused"))
    if "8bit" in name:
        return 2.0
    states = next((number for start, number in _STATES.items() if name.startswith(start)), 2.0)
    if setting.deepspeed and setting.autocast:
        return 4 + states * 4
    return states * setting.weight_bytes


def _copies(stage: TrainStage, shape: Shape, setting: _Setting) -> float:
    if not setting.autocast or setting.deepspeed:
        return 0
    # only weights that get gradients are cached
    return 2 * (shape.num_linear if stage.peft is None else num_trained(stage, shape) or 0)


def _per_token(shape: Shape, setting: _Setting) -> float:
    """Bytes that one block saves for one token."""
    h, i, q, k = shape.hidden_size, shape.intermediate_size, shape.query_size, shape.key_size
    if setting.weight_bytes == 4 and not setting.autocast:
        # 2 norms: input and normalised; inputs of qkv and of gate and up; q, k, v, output; gate, up, silu, product
        return 4 * (6 * h + 2 * q + 2 * k + 4 * i + shape.qk_norm * 2 * (q + k))
    # the same in 16 bits; norms work in float32, and autocast casts the input of each linear layer anew
    norms, inputs = (16 * h, 5 * h) if setting.autocast else (12 * h, 2 * h)
    return norms + 2 * (inputs + 2 * q + 2 * k + 4 * i) + shape.qk_norm * 6 * (q + k)


def _activations(shape: Shape, setting: _Setting) -> float:
    block = setting.tokens * _per_token(shape, setting)
    if not setting.checkpointing:
        return shape.num_layers * block
    stream = 4 if setting.autocast else setting.weight_bytes
    return shape.num_layers * setting.tokens * shape.hidden_size * stream + block


def _logits(stage: TrainStage, shape: Shape, setting: _Setting) -> float:
    half = setting.autocast or setting.weight_bytes == 2
    if isinstance(stage, (PretrainStage, DpoStage)):
        return setting.tokens * shape.vocab_size * (12 + (2 if half else 0))
    tile = min(setting.tokens, _TILE[0]) * _TILE[1] * (2 if half else 4)
    head = shape.vocab_size * shape.hidden_size * 4 if stage.peft is None else 0
    return tile + head + setting.tokens * shape.hidden_size * 4
