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


def pre_tokenizer_of(tokenizer: PreTrainedTokenizerBase, named: str | None) -> str:
    """llama.cpp's name for how this tokenizer cuts text.

    Args:
        named: by the user, for a tokenizer that llmkit does not recognise.

    Raises:
        ModelError: no byte-level BPE, or a way to cut text that has no name here.
    """
    where, found = str(tokenizer.name_or_path), _parts(tokenizer)
    if named is not None:
        return named
    if (name := _known(found["pre_tokenizer"])) is not None:
        return name
    what = "its tokenizer cuts text in a way that llama.cpp has no name for that llmkit knows"
    differ = [f"'{near}' cuts {text!r} otherwise" for near in ("qwen2",) if (text := differs(tokenizer, near))]
    cure = (
        "name the nearest with --pre-tokenizer (qwen2, llama-bpe, gpt-2, smollm); rare texts then become other tokens"
    )
    raise ModelError(where, f"{what} ({', '.join(differ) or 'qwen2 cuts the probes alike'})", cure)


def differs(tokenizer: PreTrainedTokenizerBase, name: str) -> str | None:
    """A text that becomes other tokens when it is cut as `name` (of `REGEXES`) does; None if no probe does."""
    regex = next(regex for regex, known in REGEXES.items() if known == name)
    other = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    cuts = pre_tokenizers.Split(Regex(regex), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    other.pre_tokenizer = pre_tokenizers.Sequence([cuts, bytes_only])
    own = tokenizer.backend_tokenizer
    pieces = [piece for probe in PROBES for piece in _pieces(probe)]
    return next((text for text in pieces if own.encode(text).ids != other.encode(text).ids), None)


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


def _pieces(text: str) -> list[str]:
    """The text whole, and pairs of its words with what lies between: so that a difference is named shortly."""
    words = [
        place for place, char in enumerate(text) if place == 0 or (char.isspace() and not text[place - 1].isspace())
    ]
    cut = [*words, len(text)]
    return [text[first:last] for first, last in zip(cut, cut[2:], strict=False)] + [text]
