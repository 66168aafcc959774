"""Tokenised rows -> batches, packed or not.

Packed rows of layout "rows" are (B, L) with `position_ids` that begin at 0 in every sequence, and no `attention_mask`:
for sdpa and eager attention transformers then builds the block-diagonal causal mask from the positions, so that no
token sees another sequence. (With a mask of ones it would not.) Layout "flat" is (1, B*L) for kernels that take
cumulative sequence lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from llmkit.data.encode import IGNORE

Layout = Literal["rows", "flat"]
_VARLEN = ("flash_attention", "flash_attn", "kernels-community", "varlen")


def layout_for(attn_implementation: str | None) -> Layout:
    """`flat` for variable-length kernels, `rows` for those that read a mask (sdpa, eager, flex_attention)."""
    return "flat" if any(mark in (attn_implementation or "") for mark in _VARLEN) else "rows"


@dataclass(frozen=True)
class PackedCollator:
    """Batches of rows with `input_ids`, `labels` and, if they are packed, `seq_lengths`.

    Returns from a call, for layout "rows" (B rows, L tokens in the longest):
        input_ids: (B, L), padded on the right with `pad_token_id`.
        labels: (B, L), -100 on padding and on the first token of every packed sequence, which nothing precedes.
        position_ids: (B, L) if packed; padding counts as one more sequence.
        attention_mask: (B, L) if not packed.
    For layout "flat": what TRL's padding-free collator makes of them, (1, sum of lengths).

    Args:
        pad_to_multiple_of: L is rounded up to a multiple of it.
    """

    pad_token_id: int
    layout: Layout = "rows"
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        is_packed = "seq_lengths" in rows[0]
        if self.layout == "flat" or not is_packed:
            collate = DataCollatorForLanguageModeling(
                pad_token_id=self.pad_token_id,
                padding_free=self.layout == "flat",
                pad_to_multiple_of=self.pad_to_multiple_of,
            )
            batch: dict[str, Any] = collate(rows)
            return batch
        return self._packed_rows(rows)

    def _packed_rows(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        multiple = self.pad_to_multiple_of or 1
        length = -(-max(len(row["input_ids"]) for row in rows) // multiple) * multiple
        batch = {
            "input_ids": torch.full((len(rows), length), self.pad_token_id),
            "labels": torch.full((len(rows), length), IGNORE),
            "position_ids": torch.zeros((len(rows), length), dtype=torch.long),
        }
        for index, row in enumerate(rows):
            size = len(row["input_ids"])
            batch["input_ids"][index, :size] = torch.tensor(row["input_ids"])
            batch["labels"][index, :size] = torch.tensor(row["labels"])
            sequences = [*row["seq_lengths"], length - size]
            batch["position_ids"][index] = torch.cat([torch.arange(n) for n in sequences])
        batch["labels"][batch["position_ids"] == 0] = IGNORE
        return batch
