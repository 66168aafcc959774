"""Batches: packed sequences must not see each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from llmkit.data.collate import PackedCollator, layout_for

PAD = 0
ROWS: list[dict[str, Any]] = [
    {"input_ids": [5, 6, 7, 8, 9, 10], "labels": [5, 6, 7, -100, 9, 10], "seq_lengths": [3, 3]},
    {"input_ids": [11, 12, 13, 14], "labels": [11, 12, 13, 14], "seq_lengths": [4]},
]


def tiny_model(attention: str) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        attn_implementation=attention,
    )
    return Qwen3ForCausalLM(config).eval()


def test_packed_batch_field_by_field() -> None:
    batch = PackedCollator(pad_token_id=PAD)(ROWS)
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, 9, 10], [-100, 12, 13, 14, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 0, 1]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logits_equal_unpacked_ones(attention: str) -> None:
    model, batch = tiny_model(attention), PackedCollator(pad_token_id=PAD)(ROWS)
    sequences = [[5, 6, 7], [8, 9, 10], [11, 12, 13, 14]]
    with torch.no_grad():
        alone = torch.cat([model(torch.tensor([ids])).logits[0] for ids in sequences])
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        straight = model(input_ids=batch["input_ids"], use_cache=False).logits
    real = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    assert (packed[real] - alone).abs().max() < 1e-5
    # what positions that do not restart would do: the test above can fail
    assert (straight[real] - alone).abs().max() > 1e-3


@pytest.mark.parametrize("num_rows", [1, 2])
def test_packed_loss_equals_unpacked_loss(num_rows: int) -> None:
    model, batch = tiny_model("sdpa"), PackedCollator(pad_token_id=PAD)(ROWS[:num_rows])
    total, num = 0.0, 0
    for row in ROWS[:num_rows]:
        start = 0
        for length in row["seq_lengths"]:
            ids, labels = (torch.tensor([row[key][start : start + length]]) for key in ("input_ids", "labels"))
            scored = int((labels[:, 1:] != -100).sum())
            total += model(ids, labels=labels).loss.item() * scored
            num += scored
            start += length
    assert model(**batch, use_cache=False).loss.item() == pytest.approx(total / num, rel=1e-5)


def test_unpacked_rows_get_an_attention_mask() -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = PackedCollator(pad_token_id=PAD)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]
    assert "position_ids" not in batch


def test_rows_are_padded_to_a_multiple() -> None:
    packed = PackedCollator(pad_token_id=PAD, pad_to_multiple_of=8)(ROWS)
    assert packed["input_ids"].shape == (2, 8)
    assert packed["position_ids"][0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    loose = PackedCollator(pad_token_id=PAD, pad_to_multiple_of=8)([{"input_ids": [1], "labels": [1]}])
    assert loose["attention_mask"].tolist() == [[1] + [0] * 7]


def test_flat_layout_is_one_row_with_sequence_borders() -> None:
    batch = PackedCollator(pad_token_id=PAD, layout="flat")(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 0, 1, 2, 3]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 6, 10]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, 9, 10, -100, 12, 13, 14]]
    assert "attention_mask" not in batch


@pytest.mark.parametrize(
    ("attention", "layout"),
    [
        ("sdpa", "rows"),
        ("eager", "rows"),
        ("flex_attention", "rows"),
        (None, "rows"),
        ("flash_attention_2", "flat"),
        ("flash_attention_3", "flat"),
        ("kernels-community/vllm-flash-attn3", "flat"),
    ],
)
def test_layout_follows_the_attention(attention: str | None, layout: str) -> None:
    assert layout_for(attention) == layout
