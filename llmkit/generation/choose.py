"""Picking the next token of every row from its logits: greedy, or by temperature, top-k, top-p and min-p."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from llmkit.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. The cuts are applied in the order of the fields, as in transformers.

    Raises:
        UserError: a value out of its range.
    """

    temperature: float = 0.0
    """0: the likeliest token, always."""
    top_k: int = 0
    """Keep the likeliest `top_k` tokens; 0: all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose share is at least `top_p`."""
    min_p: float = 0.0
    """Keep tokens at least `min_p` times as likely as the likeliest."""

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise UserError(name, f"is {getattr(self, name)}", f"give a number {expected}")


def uniforms(seed: int, index: int, count: int) -> np.ndarray:
    """The random numbers of prompt number `index`, float32 [count]: the same in whatever batch the prompt lands."""
    generator = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), index]))
    return generator.random(count, dtype=np.float32)


def choose(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Next token ids [B], by inverting the cumulative distribution at one uniform number per row."""
    if sampling.temperature == 0:
        return logits_BV.argmax(dim=-1)
    probs_BV, order_BV = torch.softmax(logits_BV.float() / sampling.temperature, dim=-1).sort(dim=-1, descending=True)
    if sampling.top_k:
        probs_BV[:, sampling.top_k :] = 0
    if sampling.top_p < 1:
        before_BV = probs_BV.cumsum(dim=-1) - probs_BV
        probs_BV[before_BV >= sampling.top_p * probs_BV.sum(dim=-1, keepdim=True)] = 0
    if sampling.min_p:
        probs_BV[probs_BV < sampling.min_p * probs_BV[:, :1]] = 0
    cumulative_BV = probs_BV.cumsum(dim=-1)
    target_B1 = uniforms_B[:, None] * cumulative_BV[:, -1:]
    last_B1 = (probs_BV > 0).sum(dim=-1, keepdim=True) - 1
    place_B1 = torch.minimum((cumulative_BV <= target_B1).sum(dim=-1, keepdim=True), last_B1)
    return order_BV.gather(1, place_B1)[:, 0]
