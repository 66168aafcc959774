"""LoRA, DoRA and QLoRA through peft."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from peft.utils.other import TrainableTokensWrapper
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations import is_deepspeed_zero3_enabled

from llmkit.errors import UserError
from llmkit.modeling.load import load_model
from llmkit.modeling.sharding import wants
from llmkit.modeling.tokens import fit_model
from llmkit.recipe.parts import PeftSpec


def lora_config(
    spec: PeftSpec, model: PreTrainedModel, token_ids: list[int], revision: str | None, task_type: str = "CAUSAL_LM"
) -> LoraConfig:
    """Of a model that writes, or ("SEQ_CLS") of one that scores, whose head peft then trains and saves whole.

    Args:
        token_ids: rows of the chat template's tokens, trained whole, since a base model never learned them.
        revision: of the base on the Hub, kept with the adapter: it fits those weights alone.

    Raises UserError where peft cannot train such rows in the way that the weights are sharded.
    """
    rows: dict[str, list[int]] | None = None
    if token_ids:
        _check_rows_can_be_trained()
        rows = {_name_of(model, model.get_input_embeddings()): token_ids}
        if model.get_output_embeddings() is not None and not model.config.get_text_config().tie_word_embeddings:
            rows[_name_of(model, model.get_output_embeddings())] = token_ids
    return LoraConfig(
        r=spec.r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=spec.target_modules,
        use_dora=spec.method == "dora",
        trainable_token_indices=rows,
        task_type=task_type,
        revision=revision,
    )


def _check_rows_can_be_trained() -> None:
    """peft 0.21 mixes whole rows with FSDP2's parts, and gathers those of ZeRO-3 on a GPU alone."""
    where, what = "launch.accelerate", "an adapter cannot train the rows of the chat template's tokens under"
    if wants("FSDP"):
        raise UserError(where, f"{what} FSDP", "launch with ZeRO-3, DDP or ZeRO-2, or leave 'peft' out")
    if is_deepspeed_zero3_enabled() and not torch.cuda.is_available():
        raise UserError(where, f"{what} ZeRO-3 without a GPU", "launch with DDP or ZeRO-2, or leave 'peft' out")


def let_fused_head_read(model: PreTrainedModel) -> None:
    """TRL 1.16's fused LM head reads `lm_head.bias`, which peft's wrapper of trained token rows does not pass on."""
    head = model.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper) and not hasattr(head, "bias"):
        head.bias = None


def _name_of(model: PreTrainedModel, module: torch.nn.Module) -> str:
    return next(str(name).rpartition(".")[2] for name, found in model.named_modules() if found is module)


def merge_adapter(
    base: str,
    adapter_dir: Path,
    out_dir: Path,
    tokenizer: PreTrainedTokenizerBase,
    new_tokens: list[str],
    *,
    dtype: str,
    revision: str | None,
) -> None:
    """The base in `dtype` with the adapter folded in, saved to `out_dir`. QLoRA folds into unquantized weights."""
    model = load_model(base, dtype=dtype, revision=revision)
    fit_model(model, tokenizer, new_tokens)
    merged = PeftModel.from_pretrained(model, adapter_dir).merge_and_unload(safe_merge=True)
    merged.save_pretrained(out_dir)
