"""One completion, piece by piece as it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.chat.pieces import TextOf
from llmkit.generation.choose import Sampling
from llmkit.generation.decode import Row, decode, evaluating, make_row, pad_id_of, stop_ids


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: list[int],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    stop_token_ids: Sequence[int] | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Pieces of text whose concatenation is the completion, without special tokens; no piece splits a character.

    Raises:
        DataError: an empty prompt, or one that fills the model's context.
    """
    text = TextOf(tokenizer)
    stops = stop_ids(model, tokenizer) if stop_token_ids is None else list(stop_token_ids)
    for row in stream_row(
        model, tokenizer, prompt_ids, max_new_tokens=max_new_tokens, sampling=sampling, stop_token_ids=stops, seed=seed
    ):
        if piece := text.next(row.ids, is_last=row.finish_reason is not None):
            yield piece


def stream_row(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: list[int],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    stop_token_ids: Sequence[int],
    seed: int = 0,
    force: Callable[[list[int]], int | None] | None = None,
) -> Iterator[Row]:
    """The same row after each of its tokens. Raises DataError as `stream` does."""
    row = make_row(model, 0, prompt_ids, max_new_tokens, seed)
    row.force = force
    with evaluating(model):
        for _ in decode(
            model, [row], pad_id=pad_id_of(tokenizer), sampling=sampling, stop_token_ids=list(stop_token_ids)
        ):
            yield row
