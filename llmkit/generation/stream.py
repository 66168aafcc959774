"""One completion, piece by piece as it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.generation.choose import Sampling
from llmkit.generation.decode import decode, evaluating, make_row, pad_id_of, stop_ids


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
    stops = stop_ids(model, tokenizer) if stop_token_ids is None else list(stop_token_ids)
    row = make_row(model, 0, prompt_ids, max_new_tokens, seed)
    pieces = _Pieces(tokenizer)
    with evaluating(model):
        for _ in decode(model, [row], pad_id=pad_id_of(tokenizer), sampling=sampling, stop_token_ids=stops):
            piece = pieces.next(row.ids, is_last=row.finish_reason is not None)
            if piece:
                yield piece


class _Pieces:
    """Text that is new since the last piece.

    Decodes from the piece before, because some tokenizers strip the space of the first token they decode, and holds
    text back while it ends in an unfinished character.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._start = 0
        self._read = 0

    def next(self, ids: list[int], is_last: bool) -> str:
        shown = self._tokenizer.decode(ids[self._start : self._read], skip_special_tokens=True)
        text: str = self._tokenizer.decode(ids[self._start :], skip_special_tokens=True)
        if text.endswith("\ufffd") and not is_last:
            return ""
        self._start, self._read = self._read, len(ids)
        return text[len(shown) :]
