"""A tokenizer of one token a byte, made in a moment, and rows on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llmkit.chat.template import apply_template, load_template
from llmkit.data.build import Built, build
from llmkit.recipe.parts import DataSource


def byte_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte, an EOS and a pad token; with `chat` the chatml template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|pad|>")
    if chat:
        apply_template(tokenizer, load_template("chatml"))
    return tokenizer


def chat(question: str, answer: str, **extra: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **extra}]
    return {"messages": messages}


def write_rows(path: Path, rows: list[Any]) -> Path:
    """As jsonl; bytes and strings are written as they are."""
    lines = [row if isinstance(row, (bytes, str)) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def built(*sources: Path | DataSource, chat: bool = False, **options: Any) -> Built:
    """`build` with settings for tests: nothing packed, nothing limited."""
    settings: dict[str, Any] = {
        "kind": "sft" if chat else "pretrain",
        "max_length": None,
        "packing": False,
        "packing_strategy": "bfd" if chat else "bfd_split",
        "assistant_only_loss": chat,
        "seed": 0,
        "max_rejected": 0.01,
        "dedup": True,
        "data_stages": {},
    }
    wanted = [source if isinstance(source, DataSource) else DataSource(path=str(source)) for source in sources]
    tokenizer = options.pop("tokenizer", None) or byte_tokenizer(chat)
    return build(wanted, tokenizer, **settings | options)
