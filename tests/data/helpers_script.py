"""A model that writes what a test says: the decoding is llmkit's own, only the tokens that it chooses are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit.chat.calls import decode
from llmkit.chat.encode import encode_parts
from llmkit.chat.template import apply_template, load_template
from llmkit.generation.decode import Row

Reply = Callable[[str], str]
"""The text of a prompt, with its special tokens -> what follows; it may spell special tokens."""


def chat_model(model_dir: Path, folder: Path, template: str) -> Path:
    """The small random model with a chat template, whose stop token is its EOS."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    apply_template(tokenizer, load_template(template))
    tokenizer.eos_token = "<|im_end|>"
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.max_position_embeddings = 1024
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def forgetful_template(folder: Path) -> Path:
    """`chatml_tools` with the rule of Qwen3 and DeepSeek-R1: reasoning of turns before the user's last is dropped."""
    source = load_template("chatml_tools").source
    asked = "{%- set last = namespace(user=-1) %}{%- for message in messages %}{%- if message.role == 'user' %}"
    asked += "{%- set last.user = loop.index0 %}{%- endif %}{%- endfor %}\n"
    kept = source.replace("{%- if reasons %}", "{%- if reasons and loop.index0 > last.user %}", 1)
    head, mark, rest = kept.partition("{%- macro listing")
    path = folder / "forgetful.jinja"
    path.write_text(head + asked + mark + rest)
    return path


def script(monkeypatch: pytest.MonkeyPatch, tokenizer: Any, reply: Reply) -> list[str]:
    """From now on every answer is what `reply` says; the prompts are noted."""
    prompts: list[str] = []
    known: dict[tuple[int, ...], list[int]] = {}

    def written(row: Row) -> list[int]:
        asked = tuple(row.prompt_ids)
        if not row.ids:
            prompts.append(decode(tokenizer, row.prompt_ids))
            (ids,) = encode_parts(tokenizer, [(reply(prompts[-1]), False)])
            known[asked] = [*ids, tokenizer.eos_token_id]
        return known[asked]

    def force(rows: list[Row], tokens_B: torch.Tensor) -> None:
        for place, row in enumerate(rows):
            forced = row.force(row.ids) if row.force else None
            own = written(row)
            tokens_B[place] = forced if forced is not None else own[min(len(row.ids), len(own) - 1)]

    monkeypatch.setattr("llmkit.generation.decode._force", force)
    return prompts


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"
