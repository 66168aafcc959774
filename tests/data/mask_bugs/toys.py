"""Tiny tokenizers, built on the spot: byte-level BPE as Qwen's, and Metaspace BPE as Llama 2's."""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_TEXT = [
    "system user assistant\nhello world\n\nwhat is the answer? the answer is 42.\n\n\n",
    "こんにちは世界 日本語 你好 世界 привет мир नमस्ते مرحبا 👋🌍 👩‍👩‍👧 naïve café " * 3,
] * 4
_QWEN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@cache
def _bytes_json() -> str:
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_QWEN), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        _TEXT, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )
    return backend.to_str()


def byte_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE: merges newlines and splits emoji over several tokens. EOS <|endoftext|>, pad <|pad|>, no BOS."""
    special = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>", **special}
    special = {name: token for name, token in special.items() if token}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_bytes_json()), **special)


def bos_tokenizer() -> PreTrainedTokenizerFast:
    """Like `byte_tokenizer`, and adds <s> before each text as Llama 3 does."""
    tokenizer = byte_tokenizer(bos_token="<s>")
    bos = ("<s>", tokenizer.bos_token_id)
    template = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[bos])
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece-like: a text gets a blank in front, unknown characters fall back to bytes."""
    backend = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fallback = [AddedToken(f"<0x{byte:02X}>", normalized=False) for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=fallback, show_progress=False)
    backend.train_from_iterator(_TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    bos = ("<s>", tokenizer.bos_token_id)
    template = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[bos])
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer
