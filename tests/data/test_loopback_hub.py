"""The loopback Hub through the real client: what is pushed comes back, faults publish nothing by half."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import torch
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS = [
    {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "Yes."}]} for i in range(7)
]


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_pushed_model_loads_by_its_id(hub: LoopbackHub, model_dir: Path):
    HfApi().create_repo("me/model", private=True)
    HfApi().upload_folder(repo_id="me/model", folder_path=model_dir)

    model = AutoModelForCausalLM.from_pretrained("me/model")
    there = AutoModelForCausalLM.from_pretrained(model_dir)

    assert len(hub.repo("me/model").commits) == 2
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), there.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained("me/model").get_vocab() == AutoTokenizer.from_pretrained(model_dir).get_vocab()
    assert hub.repo("me/model").commit_of("main").files["model.safetensors"].sha256
    assert not hub.unserved and not hub.leaks()


def test_a_data_set_loads_by_its_id(hub: LoopbackHub):
    HfApi().create_repo("me/chats", repo_type="dataset")
    HfApi().upload_file(
        repo_id="me/chats", repo_type="dataset", path_in_repo="train.jsonl", path_or_fileobj=jsonl(ROWS)
    )
    assert list(datasets.load_dataset("me/chats", split="train")) == ROWS
    assert list(datasets.load_dataset("me/chats", split="train", streaming=True)) == ROWS
    assert not hub.unserved and not hub.leaks()
