"""The decoding loop: left-padded rows, a key-value cache, and a batch that shrinks as rows finish.

`sample` runs it over many prompts, `stream` over one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from llmkit.errors import DataError
from llmkit.generation.choose import Sampling, choose, uniforms


@dataclass
class Row:
    """One prompt on its way: what it was given, what it has so far, and whether it goes on."""

    index: int
    """Place among the caller's prompts: with the seed it fixes the row's random numbers."""
    prompt_ids: list[int]
    uniforms: np.ndarray
    max_new_tokens: int
    """At most the caller's, less where the context ends sooner."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] | None = None


def make_row(model: PreTrainedModel, index: int, prompt_ids: list[int], max_new_tokens: int, seed: int) -> Row:
    """Raises DataError for an empty prompt and for one that leaves no room in the model's context."""
    if not prompt_ids:
        raise DataError(f"prompt {index}", "it has no tokens", "give at least one token")
    room = context_length(model) - len(prompt_ids)
    if room <= 0:
        what = f"it has {len(prompt_ids)} tokens and the model's context holds {context_length(model)}"
        raise DataError(f"prompt {index}", what, "shorten it")
    limit = min(max_new_tokens, room)
    return Row(index, prompt_ids, uniforms(seed, index, limit), limit)


def context_length(model: PreTrainedModel) -> int:
    """Tokens that prompt and completion may have together; a very large number where the model sets no limit."""
    limit: int | None = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return limit or 2**31


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a completion: those of the generation config and the tokenizer's EOS."""
    config = model.generation_config
    eos = config.eos_token_id if config is not None else None
    ids = eos if isinstance(eos, list) else [eos]
    return sorted({int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None})


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    rows: list[Row],
    *,
    pad_id: int,
    sampling: Sampling,
    stop_token_ids: list[int],
    logprobs: bool = False,
    stop: Callable[[list[Row]], None] | None = None,
) -> Iterator[list[Row]]:
    """Add one token to every unfinished row, yield those rows, drop the finished ones; until none is left.

    Args:
        stop: may set `finish_reason` of rows that just got a token (for stop strings).
    """
    device, stops = model.device, frozenset(stop_token_ids)
    cache = DynamicCache(config=model.config)
    input_BT, mask_BT = _left_padded(rows, pad_id, device)
    uniforms_BN = _uniforms(rows, device)
    extra: dict[str, Any] = {"logits_to_keep": 1} if _accepts(model, "logits_to_keep") else {}
    padded = not bool(mask_BT.all())
    places = _accepts(model, "position_ids")
    step = 0
    while True:
        if padded:
            extra["attention_mask"] = mask_BT
            if places:
                extra["position_ids"] = (mask_BT.cumsum(dim=-1) - 1).clamp(min=0)[:, -input_BT.shape[1] :]
        output = model(input_ids=input_BT, past_key_values=cache, use_cache=True, **extra)
        logits_BV = output.logits[:, -1]
        tokens_B = choose(logits_BV, uniforms_BN[:, step], sampling)
        _take(rows, tokens_B, logits_BV if logprobs else None, stops)
        if stop is not None:
            stop(rows)
        yield rows
        step += 1
        kept = [place for place, row in enumerate(rows) if row.finish_reason is None]
        if not kept:
            return
        if len(kept) < len(rows):
            # Not batch_select_indices: layers of linear attention do not have it, and reordering selects as well.
            keep = torch.tensor(kept, device=device, dtype=torch.long)
            cache.reorder_cache(keep)
            tokens_B, mask_BT, uniforms_BN = tokens_B[keep], mask_BT[keep], uniforms_BN[keep]
            rows = [rows[place] for place in kept]
        input_BT = tokens_B[:, None]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], dim=1)


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off inside, as it was outside."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def pad_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Any id will do, since padding is masked."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def _take(rows: list[Row], tokens_B: torch.Tensor, logits_BV: torch.Tensor | None, stops: frozenset[int]) -> None:
    if logits_BV is not None:
        values_BV = torch.log_softmax(logits_BV.float(), dim=-1)
        for row, value in zip(rows, values_BV.gather(1, tokens_B[:, None])[:, 0].tolist(), strict=True):
            row.logprobs.append(value)
    for row, token in zip(rows, tokens_B.tolist(), strict=True):
        row.ids.append(token)
        if token in stops:
            row.finish_reason = "stop"
        elif len(row.ids) == row.max_new_tokens:
            row.finish_reason = "length"


def _left_padded(rows: list[Row], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt ids and attention mask, both [B, T]."""
    width = max(len(row.prompt_ids) for row in rows)
    ids = [[pad_id] * (width - len(row.prompt_ids)) + row.prompt_ids for row in rows]
    mask = [[0] * (width - len(row.prompt_ids)) + [1] * len(row.prompt_ids) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _uniforms(rows: list[Row], device: torch.device) -> torch.Tensor:
    """[B, N] with N the most new tokens of any row."""
    numbers_BN = np.zeros((len(rows), max(row.max_new_tokens for row in rows)), dtype=np.float32)
    for place, row in enumerate(rows):
        numbers_BN[place, : row.max_new_tokens] = row.uniforms
    return torch.from_numpy(numbers_BN).to(device)


def _accepts(model: PreTrainedModel, name: str) -> bool:
    """Whether the model's forward takes this argument; a PEFT wrapper's `*args, **kwargs` passes everything on."""
    parameters = inspect.signature(model.forward).parameters
    return name in parameters or set(parameters) <= {"args", "kwargs"}
