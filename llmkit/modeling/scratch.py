"""New models: an architecture with random weights, and a byte-level BPE tokenizer trained on the documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from accelerate.utils import set_seed
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from llmkit.errors import ModelError
from llmkit.recipe.parts import TokenizerSpec

EOS, PAD = "<|endoftext|>", "<|pad|>"
# Words with their leading space, runs of punctuation, line breaks: GPT-4's split without its contractions.
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], spec: TokenizerSpec, model_max_length: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE (Radford 2019): every string can be written, nothing is unknown."""
    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")]
    digits = [pre_tokenizers.Digits(individual_digits=True)] if spec.split_digits else []
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, *split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )


def new_model(
    architecture: dict[str, Any], tokenizer: PreTrainedTokenizerFast, seed: int, attn_implementation: str | None = None
) -> PreTrainedModel:
    """Random weights from `seed`. Raises ModelError for a model_type that transformers does not know."""
    fields = {**architecture, "vocab_size": len(tokenizer)}
    fields |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model_type = fields.pop("model_type")
    try:
        config = AutoConfig.for_model(model_type, **fields)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "architecture", f"is no {model_type} config ({str(error)[:200]})", "see the transformers docs"
        ) from error
    set_seed(seed)
    options = {"attn_implementation": attn_implementation} if attn_implementation else {}
    return AutoModelForCausalLM.from_config(config, **options)
