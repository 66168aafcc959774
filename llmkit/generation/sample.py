"""Completions of many prompts at once, for evaluation, sampling and rollouts.

Rows are sorted by length, so that padding is little and the longest batch comes first; a row that finishes leaves its
batch; neighbours with the same prompt share its first pass. Greedy completions equal those of `model.generate`.
Sampled ones depend on the seed, the prompt's place in `prompts_ids` and the logits alone: one random number per token,
drawn per prompt. Another batch size changes them only where it changes the logits' last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.chat.calls import answer_text
from llmkit.generation.choose import Sampling
from llmkit.generation.decode import Row, decode, evaluating, make_row, pad_id_of, stop_ids

_NUM_TAILS = 2**16
"""Ends of rows that `StopStrings` remembers: the same few tokens come again and again."""


@dataclass(frozen=True)
class Completion:
    """What the model wrote for one prompt."""

    ids: list[int]
    """With the stop token, if there was one."""
    text: str
    """Without special tokens, cut before the first stop string."""
    finish_reason: Literal["stop", "length"]
    logprobs: list[float] | None = None
    """Of each of `ids`, in nats, under the model itself (before temperature and cuts)."""


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts_ids: Sequence[list[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    stop_token_ids: Sequence[int] | None = None,
    stop_strings: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 32,
    logprobs: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """One completion per prompt, in the prompts' order. For several of one prompt, repeat it.

    Args:
        temperature: 0 is greedy.
        stop_token_ids: default: the generation config's EOS tokens and the tokenizer's.
        stop_strings: end a row as soon as its text holds one of them.
        on_progress: called with (finished prompts, all prompts) after every batch.

    Raises:
        DataError: an empty prompt, or one that fills the model's context.
        UserError: a sampling value out of its range.
    """
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    stops = stop_ids(model, tokenizer) if stop_token_ids is None else list(stop_token_ids)
    rows = [make_row(model, index, ids, max_new_tokens, seed) for index, ids in enumerate(prompts_ids)]
    rows.sort(key=lambda row: -len(row.prompt_ids))
    finder = StopStrings(tokenizer, stop_strings)
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            finish(model, tokenizer, batch, sampling=sampling, stop_token_ids=stops, stop=finder, logprobs=logprobs)
            if on_progress is not None:
                on_progress(start + len(batch), len(rows))
    rows.sort(key=lambda row: row.index)
    return [_completion(row, finder, logprobs) for row in rows]


def finish(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Row],
    *,
    sampling: Sampling,
    stop_token_ids: list[int],
    stop: StopStrings,
    logprobs: bool,
) -> None:
    """Decodes one batch to its end; the rows hold what was written."""
    steps = decode(
        model,
        rows,
        pad_id=pad_id_of(tokenizer),
        sampling=sampling,
        stop_token_ids=stop_token_ids,
        logprobs=logprobs,
        stop=stop if stop.strings else None,
    )
    for _ in steps:
        pass


class StopStrings:
    """Finishes rows whose newest tokens complete a stop string.

    A string of n bytes lies within the newest n tokens if it ends in the newest one, since no token is empty: only
    those are decoded, not the whole completion at every step.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str]) -> None:
        self.strings = [string for string in strings if string]
        self._tokenizer = tokenizer
        self._window = max((len(string.encode("utf-8")) for string in self.strings), default=0)
        self._ends = lru_cache(maxsize=_NUM_TAILS)(self._ends_uncached)

    def __call__(self, rows: list[Row]) -> None:
        for row in rows:
            if self._ends(tuple(row.ids[-self._window :])):
                row.finish_reason = "stop"

    def end(self, ids: list[int]) -> int | None:
        """Tokens up to where the first stop string is complete; None: there is none."""
        for end in range(1, len(ids) + 1 if self.strings else 1):
            if self._ends(tuple(ids[max(0, end - self._window) : end])):
                return end
        return None

    def text(self, ids: list[int]) -> str:
        """As `answer_text` has it, cut before the first stop string."""
        text = answer_text(self._tokenizer, ids)
        for string in self.strings:
            text = text.partition(string)[0]
        return text

    def _ends_uncached(self, tail: tuple[int, ...]) -> bool:
        text = self._tokenizer.decode(list(tail), skip_special_tokens=True)
        return any(string in text for string in self.strings)


def _completion(row: Row, finder: StopStrings, logprobs: bool) -> Completion:
    assert row.finish_reason is not None
    return Completion(row.ids, finder.text(row.ids), row.finish_reason, row.logprobs if logprobs else None)
