"""The decoding loop: left-padded rows, a key-value cache, and a batch that shrinks as rows finish.

`sample` runs it over many prompts, `stream` over one.
"""

from __future__ import annotations

import inspect
import itertools
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
    temperature: float | None = None
    """None: that of the batch's sampling."""
    force: Callable[[list[int]], int | None] | None = None
    """What the next token must be, from those so far; None: what is chosen."""


def make_row(model: PreTrainedModel, index: int, prompt_ids: list[int], max_new_tokens: int, seed: int) -> Row:
    """Raises DataError for an empty prompt and for one that leaves no room in the model's context."""
    limit = room_in(context_length(model), f"prompt {index}", prompt_ids, max_new_tokens)
    return Row(index, prompt_ids, uniforms(seed, index, limit), limit)


def room_in(context: int, where: str, prompt_ids: list[int], max_new_tokens: int) -> int:
    """New tokens that a context of so many has room for behind the prompt, at most `max_new_tokens`.

    Raises DataError for an empty prompt and for one that leaves no room.
    """
    if not prompt_ids:
        raise DataError(where, "it has no tokens", "give at least one token")
    room = context - len(prompt_ids)
    if room <= 0:
        what = f"it has {len(prompt_ids)} tokens and the model's context holds {context}"
        raise DataError(where, what, "shorten it")
    return min(max_new_tokens, room)


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

    Neighbouring rows with the same prompt share its first pass through the model.

    Args:
        stop: may set `finish_reason` of rows that just got a token (for stop strings). So may whoever iterates.
    """
    stops = frozenset(stop_token_ids)
    prompts, owners = _distinct(rows)
    input_BT, mask_BT = _left_padded(prompts, pad_id, model.device)
    cached = _Cached(model, mask_BT)
    logits_BV = cached.forward(input_BT)
    if len(prompts) < len(rows):
        owner_B = torch.tensor(owners, device=model.device)
        cached.select(owner_B)
        logits_BV = logits_BV[owner_B]
    uniforms_BN = _uniforms(rows, model.device)
    temperatures_B = _temperatures(rows, sampling, model.device)
    for step in itertools.count():
        tokens_B = choose(logits_BV, uniforms_BN[:, step], sampling, temperatures_B)
        _force(rows, tokens_B)
        _take(rows, tokens_B, logits_BV if logprobs else None, stops)
        if stop is not None:
            stop(rows)
        yield rows
        kept = [place for place, row in enumerate(rows) if row.finish_reason is None]
        if not kept:
            return
        if len(kept) < len(rows):
            rows = [rows[place] for place in kept]
            keep_B = torch.tensor(kept, device=model.device)
            cached.select(keep_B)
            tokens_B, uniforms_BN = tokens_B[keep_B], uniforms_BN[keep_B]
            temperatures_B = None if temperatures_B is None else temperatures_B[keep_B]
        logits_BV = cached.forward(tokens_B[:, None])


class _Cached:
    """A model and the key-value cache of a batch, whose rows can be selected or repeated between passes."""

    def __init__(self, model: PreTrainedModel, mask_BT: torch.Tensor) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._mask_BT = mask_BT
        self._is_padded = not bool(mask_BT.all())
        self._takes_positions = accepts(model, "position_ids")
        self._extra: dict[str, Any] = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
        self._is_first = True

    def forward(self, input_BT: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] behind the last of the new tokens."""
        if not self._is_first:
            self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(input_BT)], dim=1)
        self._is_first = False
        extra = dict(self._extra)
        if self._is_padded:
            extra["attention_mask"] = self._mask_BT
            if self._takes_positions:
                places_BT = (self._mask_BT.cumsum(dim=-1) - 1).clamp(min=0)
                extra["position_ids"] = places_BT[:, -input_BT.shape[1] :]
        output = self._model(input_ids=input_BT, past_key_values=self._cache, use_cache=True, **extra)
        logits_BV: torch.Tensor = output.logits[:, -1]
        return logits_BV

    def select(self, rows_B: torch.Tensor) -> None:
        """Goes on with these rows, each as often as it is named."""
        # Not batch_select_indices or batch_repeat_interleave: layers of linear attention only have this one.
        self._cache.reorder_cache(rows_B)
        self._mask_BT = self._mask_BT[rows_B]


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


def _force(rows: list[Row], tokens_B: torch.Tensor) -> None:
    for place, row in enumerate(rows):
        if row.force is not None and (token := row.force(row.ids)) is not None:
            tokens_B[place] = token


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


def _distinct(rows: list[Row]) -> tuple[list[list[int]], list[int]]:
    """Prompts without repeats of the one before, and for each row the place of its prompt."""
    prompts: list[list[int]] = []
    owners: list[int] = []
    for row in rows:
        if not prompts or row.prompt_ids != prompts[-1]:
            prompts.append(row.prompt_ids)
        owners.append(len(prompts) - 1)
    return prompts, owners


def _left_padded(prompts: list[list[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt ids and attention mask, both [B, T]."""
    width = max(len(ids) for ids in prompts)
    ids = [[pad_id] * (width - len(ids)) + ids for ids in prompts]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _uniforms(rows: list[Row], device: torch.device) -> torch.Tensor:
    """[B, N] with N the most new tokens of any row."""
    numbers_BN = np.zeros((len(rows), max(row.max_new_tokens for row in rows)), dtype=np.float32)
    for place, row in enumerate(rows):
        numbers_BN[place, : row.max_new_tokens] = row.uniforms
    return torch.from_numpy(numbers_BN).to(device)


def _temperatures(rows: list[Row], sampling: Sampling, device: torch.device) -> torch.Tensor | None:
    """[B]; None where every row has that of `sampling`."""
    own = [sampling.temperature if row.temperature is None else row.temperature for row in rows]
    if all(temperature == sampling.temperature for temperature in own):
        return None
    return torch.tensor(own, device=device)


def accepts(model: PreTrainedModel, name: str) -> bool:
    """Whether the model's forward takes this argument; a PEFT wrapper's `*args, **kwargs` passes everything on."""
    parameters = inspect.signature(model.forward).parameters
    return name in parameters or set(parameters) <= {"args", "kwargs"}
