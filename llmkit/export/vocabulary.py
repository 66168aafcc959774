"""A byte-level BPE tokenizer as llama.cpp reads it: tokens, merges, kinds of tokens, and how text is cut beforehand."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from llmkit.errors import ModelError

_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REGEXES = {
    f"{_SHORT}|{_LETTERS}|\\p{{N}}|{_REST}": "qwen2",
    f"{_SHORT}|{_LETTERS}|\\p{{N}}{{1,3}}|{_REST}": "llama-bpe",
}
"""How text is cut before BPE, and llama.cpp's name for it."""
PROBES = (
    "It's 12345 o'clock,  isn't it?\n\n  def f(x):\n\treturn x+1  # ok\r\n",
    "WE'LL 'sample' 3.14  99 naïve 你好世界 שלום 🙂🙂 e\u0301",
    "<tag attr='1'>  text   </tag>\n   \n\n\n     end ",
)
_BEFORE, _AFTER = ("", "a", " ", "1"), ("", "a", " ", "1", "\n")
_CHUNK = 4096


def pre_tokenizer_of(tokenizer: PreTrainedTokenizerBase, named: str | None) -> str:
    """llama.cpp's name for how this tokenizer cuts text, or for a way that makes the same tokens.

    Args:
        named: by the user, for a tokenizer for which there is none.

    Raises:
        ModelError: no byte-level BPE, or a way to cut text that has no name here.
    """
    where, found = str(tokenizer.name_or_path), _parts(tokenizer)
    if named is not None:
        return named
    if (name := _known(found["pre_tokenizer"])) is not None:
        return name
    different = {name: differs(tokenizer, name) for name in REGEXES.values()}
    if alike := [name for name, text in different.items() if text is None]:
        return alike[0]
    what = "its tokenizer cuts text in a way that llama.cpp has no name for that llmkit knows"
    examples = ", ".join(f"{name} makes other tokens of {text!r}" for name, text in different.items())
    cure = "name the nearest with --pre-tokenizer; such texts then become other tokens than in training"
    raise ModelError(where, f"{what} ({examples})", cure)


def differs(tokenizer: PreTrainedTokenizerBase, name: str) -> str | None:
    """A text that becomes other tokens when it is cut as `name` (of `REGEXES`) does; None if there is none.

    Where two ways of cutting make different tokens, one of these lies across a cut of the other way: so every token is
    tried, between several neighbours.
    """
    regex = next(regex for regex, known in REGEXES.items() if known == name)
    own, other = tokenizer.backend_tokenizer, Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    cuts = pre_tokenizers.Split(Regex(regex), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    other.pre_tokenizer = pre_tokenizers.Sequence([cuts, bytes_only])
    added = tokenizer.added_tokens_decoder
    tokens = [tokenizer.decode([place]) for place in tokenizer.get_vocab().values() if place not in added]
    texts = [before + token + after for token in tokens for before in _BEFORE for after in _AFTER]
    for start in range(0, len(texts) + 1, _CHUNK):
        chunk = [*(PROBES if start == 0 else ()), *texts[start : start + _CHUNK]]
        for text, ours, theirs in zip(chunk, own.encode_batch(chunk), other.encode_batch(chunk), strict=True):
            if ours.ids != theirs.ids:
                return str(text)
    return None


def vocabulary(tokenizer: PreTrainedTokenizerBase, num_rows: int) -> tuple[list[str], list[str]]:
    """Tokens by id, with fillers for rows that have none, and merges as llama.cpp writes them."""
    by_id = {place: token for token, place in tokenizer.get_vocab().items()}
    merges = _parts(tokenizer)["model"]["merges"]
    pairs = [each if isinstance(each, str) else " ".join(each) for each in merges]
    return [by_id.get(place, f"[PAD{place}]") for place in range(num_rows)], pairs


def token_types(tokenizer: PreTrainedTokenizerBase, num_rows: int) -> list[str]:
    """`CONTROL` for special tokens, `USER_DEFINED` for other added ones, `UNUSED` for rows without a token."""
    added, known = tokenizer.added_tokens_decoder, set(tokenizer.get_vocab().values())
    return [
        ("CONTROL" if added[place].special else "USER_DEFINED")
        if place in added
        else "NORMAL"
        if place in known
        else "UNUSED"
        for place in range(num_rows)
    ]


def _parts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    found: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {"model": {"type": "none"}}
    steps = _steps(found.get("pre_tokenizer"))
    if found["model"]["type"] != "BPE" or not any(step["type"] == "ByteLevel" for step in steps):
        what = f"its tokenizer is no byte-level BPE ({found['model']['type']})"
        raise ModelError(str(tokenizer.name_or_path), what, "convert it with llama.cpp's own convert_hf_to_gguf.py")
    return found


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _known(pre_tokenizer: dict[str, Any]) -> str | None:
    *before, last = _steps(pre_tokenizer)
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    if last["use_regex"]:
        alone = not before
        digits = [(step["type"], step.get("individual_digits")) for step in before] == [("Digits", True)]
        return "gpt-2" if alone else "smollm" if digits else None
    if len(before) == 1 and before[0]["type"] == "Split" and before[0]["behavior"] == "Isolated":
        return REGEXES.get(before[0]["pattern"].get("Regex", ""))
    return None
