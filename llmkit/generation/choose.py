"""Picking the next token of every row from its logits: greedy, or by temperature, top-k, top-p and min-p."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from llmkit.errors import UserError

COLDEST = 1e-5
"""Below this temperature the likeliest token is meant, and logits would overflow."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. The cuts are applied in the order of the fields, as in transformers.

    Raises:
        UserError: a value out of its range.
    """

    temperature: float = 0.0
    """Below 1e-5, which counts as 0: the likeliest token, always."""
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
        if self.temperature < COLDEST:
            object.__setattr__(self, "temperature", 0.0)

    @property
    def cuts(self) -> bool:
        """Whether any token may be left out."""
        return bool(self.top_k or self.top_p < 1 or self.min_p)


def uniforms(seed: int, index: int, count: int) -> np.ndarray:
    """The random numbers of prompt number `index`, float32 [count]: the same in whatever batch the prompt lands."""
    generator = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), index]))
    return generator.random(count, dtype=np.float32)


def uniforms_of(seed: int, key: str, place: int, count: int) -> np.ndarray:
    """The random numbers of answer number `place` to the prompt called `key`, float32 [count]: the same in whatever
    batch or process."""
    generator = np.random.Generator(np.random.Philox(key=hash_of(seed, key, place, bits=128)))
    return generator.random(count, dtype=np.float32)


def hash_of(seed: int, key: str, place: int, bits: int) -> int:
    """A number below 2 ** bits (at most 512 bits, whole bytes), the same on every machine."""
    name = f"{seed} {place} {key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=bits // 8).digest(), "big")


def choose(
    logits_BV: torch.Tensor,
    uniforms_B: torch.Tensor,
    sampling: Sampling,
    temperatures_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """Next token ids [B], by inverting the cumulative distribution at one uniform number per row.

    Args:
        temperatures_B: each row's own, in place of the sampling's; below 1e-5 it is greedy.
    """
    if temperatures_B is None:
        if sampling.temperature == 0:
            return logits_BV.argmax(dim=-1)
        return _draw(logits_BV.float() / sampling.temperature, uniforms_B, sampling)
    is_greedy_B = temperatures_B < COLDEST
    heated_BV = logits_BV.float() / temperatures_B.masked_fill(is_greedy_B, 1.0)[:, None]
    return torch.where(is_greedy_B, logits_BV.argmax(dim=-1), _draw(heated_BV, uniforms_B, sampling))


def _draw(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    probs_BV = torch.softmax(logits_BV, dim=-1)
    if sampling.cuts:
        probs_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
        return order_BV.gather(1, _invert(_cut(probs_BV, sampling), uniforms_B))[:, 0]
    # Sorting takes most of the time for a large vocabulary, and only the cuts need it.
    return _invert(probs_BV, uniforms_B)[:, 0]


def _cut(probs_BV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Zeroes what is cut, in place; the likeliest token comes first, and stays."""
    if sampling.top_k:
        probs_BV[:, sampling.top_k :] = 0
    if sampling.top_p < 1:
        before_BV = probs_BV.cumsum(dim=-1) - probs_BV
        is_cut_BV = before_BV >= sampling.top_p * probs_BV.sum(dim=-1, keepdim=True)
        is_cut_BV[:, 0] = False
        probs_BV[is_cut_BV] = 0
    if sampling.min_p:
        probs_BV[probs_BV < sampling.min_p * probs_BV[:, :1]] = 0
    return probs_BV


def _invert(probs_BV: torch.Tensor, uniforms_B: torch.Tensor) -> torch.Tensor:
    """Places [B, 1] where the cumulative distribution passes the uniform number's share of its end."""
    cumulative_BV = probs_BV.cumsum(dim=-1)
    end_B1 = cumulative_BV[:, -1:].contiguous()
    # A uniform number near 1 must not be rounded up to the end, behind which only tokens without probability lie.
    target_B1 = torch.minimum(uniforms_B[:, None] * end_B1, torch.nextafter(end_B1, torch.zeros_like(end_B1)))
    return torch.searchsorted(cumulative_BV, target_B1, right=True).clamp(max=probs_BV.shape[-1] - 1)
