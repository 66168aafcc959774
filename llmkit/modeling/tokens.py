"""Makes tokenizer, embedding rows, stop tokens and padding agree."""

from __future__ import annotations

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from llmkit.chat.encode import DOCUMENT_EOS, document_eos
from llmkit.chat.template import ChatTemplate, apply_template
from llmkit.errors import ModelError

PAD = "<|pad|>"


def prepare_tokenizer(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None, *, own_pad: bool = True
) -> list[str]:
    """Gives the tokenizer its chat template, a stop token and a pad token. Returns the tokens that are new.

    With a template the stop token becomes `eos_token`, as generation engines and TRL expect; the token that
    ends plain documents is kept as `document_eos_token` in tokenizer_config.json.

    Args:
        own_pad: no text may end with the pad token. False: of a model that learns nothing more, whose own stays.
    """
    new: list[str] = []
    if template is not None:
        new += apply_template(tokenizer, template)
        if template.stop_token is not None and tokenizer.eos_token != template.stop_token:
            if tokenizer.eos_token is not None:
                tokenizer.init_kwargs.setdefault(DOCUMENT_EOS, tokenizer.eos_token)
            tokenizer.eos_token = template.stop_token
    if tokenizer.eos_token is None:
        raise ModelError(tokenizer.name_or_path, "the tokenizer has no eos_token", "set it in tokenizer_config.json")
    if not own_pad:
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    elif tokenizer.pad_token is None or tokenizer.pad_token in (tokenizer.eos_token, document_eos(tokenizer)):
        if PAD not in tokenizer.get_vocab():
            new.append(PAD)
        tokenizer.pad_token = PAD
    return new


def stop_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end generation: the stop token first, then the end of a document."""
    ids = tokenizer.convert_tokens_to_ids([tokenizer.eos_token, document_eos(tokenizer)])
    return list(dict.fromkeys(ids))


def fit_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, new_tokens: list[str]) -> None:
    """Gives every token an embedding row (new ones: the mean of the old) and sets the generation config of a model that
    writes.

    Raises ModelError if the tokenizer knows fewer tokens than were trained, which means it is another model's.
    """
    ids = tokenizer.convert_tokens_to_ids(new_tokens)
    weight = model.get_input_embeddings().weight
    if len(tokenizer) > weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if ids:
        head = model.get_output_embeddings()
        tied = head is None or head.weight is model.get_input_embeddings().weight
        layers = [model.get_input_embeddings()] + ([] if tied else [head])
        with torch.no_grad():
            for layer in layers:
                old = torch.ones(layer.weight.shape[0], dtype=torch.bool)
                old[ids] = False
                old[len(tokenizer) :] = False
                layer.weight[ids] = layer.weight[old].float().mean(0).to(layer.weight.dtype)
    if model.can_generate():
        config = model.generation_config or GenerationConfig()
        config.eos_token_id = stop_token_ids(tokenizer)
        config.pad_token_id = tokenizer.pad_token_id
        model.generation_config = config
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, num_rows: int, where: str) -> None:
    """A tokenizer with far more tokens than the model has rows, before any was added, is another model's."""
    if len(tokenizer) > num_rows:
        what = f"the tokenizer has {len(tokenizer)} tokens but the model only {num_rows} embedding rows"
        raise ModelError(where, what, "they are not of one model; load both from the same folder")
