"""Peak memory of one worker, term by term. An estimate: it leaves out the framework, kernels' scratch and fragments.

P: parameters, W: world size. A step has moments, and the one that takes most counts: all activations at the end of the
forward pass; the logits' gradients at the start of the backward pass; all gradients and one block at its end; the
optimizer's step; and, in practice, answers being sampled. Gradients are freed after a step, so without accumulation
they do not meet all activations.

- weights, gradients, optimizer: Rajbhandari 2020 (ZeRO), section 3: mixed-precision AdamW under DeepSpeed costs 2 + 2 +
  12 bytes a parameter, plain AdamW in dtype d costs d + d + 2d; ZeRO-2 divides gradients and optimizer by W, ZeRO-3
  and FSDP2 weights too.
- what DDP, ZeRO and FSDP2 hold around them: `llmkit.plan.sharding`.
- LoRA (Hu 2021) trains r * (in + out) a layer, in float32; NF4 (Dettmers 2023) stores 4 bits a weight and 0.127 bits
  of constants, its adapters are in bfloat16 (TRL), and a layer that computes is whole.
- activations, copies and logits: `llmkit.plan.activations`.
- grpo and rloo read a prompt (taken as 256 tokens) and an answer of `max_completion_length`; with `beta` they hold a
  frozen copy as dpo does; their KV cache is that of `batch_size` answers. vLLM's memory is not counted.
- rlhf's guard samples so, too, also beside vLLM, and reads what was answered with whole logits: V numbers a token.
- dpo holds a frozen copy of the weights (none with an adapter: it is switched off) and reads two answers a row.
- an adapter is merged into weights that are loaded anew, in main memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmkit.artifacts.stagefile import Batch
from llmkit.plan.activations import Setting, passed, per_token, tiled_logits, whole_logits
from llmkit.plan.command import AccelerateConfig
from llmkit.plan.shape import Shape
from llmkit.plan.sharding import adapter_bytes, bucket, gathered, gradient_bytes, reduced, unreduced
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


def estimate(
    stage: TrainStage, model: ModelSpec, shape: Shape, config: AccelerateConfig, batch: Batch, num_trained: int
) -> Memory:
    """Terms of a training stage on the model of `shape`, at the moment that takes most."""
    setting = _setting(stage, model, config, batch)
    moments = _moments(stage, shape, config, batch, setting, num_trained)
    if stage.peft is not None and stage.peft.merge and config.use_cpu:
        states = _states(stage, shape, config, batch, setting, num_trained)
        moments.append({**states, "merging": shape.num_parameters * BYTES[model.dtype]})
    largest = max(moments, key=lambda moment: sum(moment.values()))
    rounded = {name: int(value) for name, value in largest.items() if value}
    return Memory(rounded, shape.num_parameters, num_trained)


def _states(
    stage: TrainStage, shape: Shape, config: AccelerateConfig, batch: Batch, setting: Setting, num_trained: int
) -> dict[str, float]:
    """What is held from the first step on."""
    weights, world = _weights(stage, shape, setting), batch.world_size
    optimizer = 0 if config.offload_optimizer else num_trained * _optimizer_bytes(stage, setting, config)
    return {
        "weights": weights / (world if config.shards_weights else 1),
        "reference model": _reference(stage, weights) / (world if config.shards_weights else 1),
        "optimizer": optimizer / (world if config.shards_optimizer else 1),
        "gathered weights": gathered(shape, config, setting, world),
        "DDP buckets": num_trained * gradient_bytes(setting) if config.distributed_type.startswith("MULTI") else 0,
    }


def _moments(
    stage: TrainStage, shape: Shape, config: AccelerateConfig, batch: Batch, setting: Setting, num_trained: int
) -> list[dict[str, float]]:
    """What is held at each moment of a step."""
    states = _states(stage, shape, config, batch, setting, num_trained)
    one = passed(shape, setting, num_trained)
    gradients = num_trained * gradient_bytes(setting) / (batch.world_size if config.shards_gradients else 1)
    stays = batch.gradient_accumulation_steps > 1 or config.zero_stage == 3
    rest = unreduced(config, num_trained)
    early = {**states, "gradients": gradients if stays else 0}
    late = {**states, "gradients": gradients}
    if config.zero_stage == 3:
        late["gathered weights"] *= rest
    logits = _logits(stage, shape, setting)
    scratch = shape.largest_linear * (4 if config.use_cpu else 2) if setting.quantized else 0
    cast = num_trained * 4 / batch.world_size if setting.deepspeed else 0
    return [
        {**early, "autocast copies": one.cached, "activations": one.kept, "dequantized": scratch},
        {
            **early,
            "ZeRO buckets": bucket(config, setting, num_trained),
            "autocast copies": one.copies,
            "activations": one.kept + (one.block if setting.checkpointing else 0),
            "logits": logits,
            "dequantized": scratch,
        },
        {
            **(early if config.zero_stage == 2 and not rest else late),
            "ZeRO buckets": reduced(config, setting, num_trained),
            "activations": max(one.block, rest * one.kept),
            "dequantized": scratch,
        },
        {**late, "optimizer's copy": cast},
        {**states, **_sampling(stage, shape, setting, batch)},
        {**states, **_looking(stage, shape, setting, batch)},
    ]


def with_scorers(memory: Memory, scorers: Sequence[tuple[RewardStage, Shape | None]]) -> Memory:
    """The same with reward models beside it, which are held whole; unchanged where a shape is not known."""
    known = [
        stage.num_models * shape.num_parameters * BYTES[stage.scores_in]
        for stage, shape in scorers
        if shape is not None
    ]
    if not known or len(known) < len(scorers):
        return memory
    return replace(memory, terms={**memory.terms, "reward models": sum(known)})


def reading(model: ModelSpec, shape: Shape) -> Memory:
    """Of a model that reads and is not trained: its weights, beside which its activations are little."""
    return Memory({"weights": shape.num_parameters * BYTES[model.dtype]}, shape.num_parameters, 0)


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


def _sampling(stage: TrainStage, shape: Shape, setting: Setting, batch: Batch) -> dict[str, float]:
    """Keys, values and logits of the answers that a process samples at a time, at most a whole generation batch."""
    if not isinstance(stage, PracticeStage):
        return {}
    if stage.trainer.get("use_vllm") and not isinstance(stage, RlhfStage):
        return {}
    rows = (stage.trainer.get("generation_batch_size") or batch.global_batch_size) // batch.world_size
    rows, each = min(rows, stage.batch_size), 2 if setting.autocast else setting.weight_bytes
    cache = 2 * rows * _practised(stage) * shape.num_layers * shape.key_size * each
    return {"KV cache": cache, "logits": 12 * rows * shape.vocab_size}


def _looking(stage: TrainStage, shape: Shape, setting: Setting, batch: Batch) -> dict[str, float]:
    """The guard's reading of what was answered: logits of as many answers as are trained on at a time, two more copies
    of one answer's in float32, and a block. What it samples is sampled as in practice."""
    if not isinstance(stage, RlhfStage):
        return {}
    answer = int(trainer_options(stage.trainer_kind, stage.trainer)["max_completion_length"]) * shape.vocab_size
    logits = answer * (batch.per_device_train_batch_size * setting.weight_bytes + 8)
    return {"activations": setting.tokens * per_token(shape, setting), "guard's logits": logits}


def _setting(stage: Any, model: ModelSpec, config: AccelerateConfig, batch: Batch) -> Setting:
    scratch = isinstance(stage, PretrainStage) and stage.init == "scratch"
    options = trainer_options(stage.trainer_kind, stage.trainer)
    dtype = "float32" if scratch else model.dtype
    return Setting(
        weight_bytes=BYTES[dtype],
        half=bool(options.get("fp16")) or options.get("bf16") is not False,
        deepspeed=config.zero_stage is not None,
        use_cpu=config.use_cpu,
        tokens=tokens_per_pass(stage, batch),
        checkpointing=bool(options.get("gradient_checkpointing")),
        adapter=stage.peft.method if stage.peft else None,
        r=stage.peft.r if stage.peft else 0,
        quantized=stage.peft is not None and stage.peft.quantization is not None,
    )


def _weights(stage: TrainStage, shape: Shape, setting: Setting) -> float:
    each = 2 if setting.deepspeed and setting.autocast else setting.weight_bytes
    if stage.peft is None:
        return shape.num_parameters * each
    trained = (num_trained(stage, shape) or 0) * adapter_bytes(setting)
    if not setting.quantized:
        return shape.num_parameters * each + trained
    return shape.num_linear * _NF4_BYTES + (shape.num_parameters - shape.num_linear) * each + trained


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


def _optimizer_bytes(stage: TrainStage, setting: Setting, config: AccelerateConfig) -> float:
    name = str(stage.trainer.get("optim", "adamw_torch_fused"))
    if "8bit" in name:
        return 2.0
    states = next((number for start, number in _STATES.items() if name.startswith(start)), 2.0)
    if setting.deepspeed:
        # ZeRO-3 does without weights of its own where the model's are in float32
        own = 0 if config.zero_stage == 3 and not setting.half and setting.weight_bytes == 4 else 4
        return own + states * 4
    return states * (adapter_bytes(setting) if setting.adapter else setting.weight_bytes)


def _logits(stage: TrainStage, shape: Shape, setting: Setting) -> float:
    if isinstance(stage, RewardStage):
        return 0
    return (whole_logits if isinstance(stage, PretrainStage) else tiled_logits)(shape, setting)
