"""Many questions to a local model, each answered several times: `llmkit.chat.ask.Engine` on llmkit's decoding loop.

The prompt of an ask goes through the model once, and its cache is repeated for the answers. Every row of a batch has
its own temperature, so the greedy answer and the sampled ones are written together. Asks are taken window by window:
within one they are sorted by length, so that padding is little, and only one window's rows are in memory.

Greedy answers equal those of `model.generate`. The random numbers of an answer depend on the seed, the ask's key and
the answer's place in `temperatures` alone, not on the batch or the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.chat.ask import Answer, Ask, Engine
from llmkit.chat.render import prompt_ids, render_text
from llmkit.errors import DataError, UserError
from llmkit.generation.choose import Sampling, uniforms_of
from llmkit.generation.decode import Row, context_length, evaluating, room_in, stop_ids
from llmkit.generation.sample import StopStrings, finish
from llmkit.generation.thought import thought_limit

WINDOW = 16
"""Batches whose asks are sorted by length together."""


def open_engine(
    name: Literal["transformers", "continuous", "vllm"],
    tokenizer: PreTrainedTokenizerBase,
    *,
    model: PreTrainedModel | None = None,
    model_dir: str | None = None,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Engine:
    """The engine of that name.

    Args:
        model: for `transformers` and `continuous`.
        model_dir: for `vllm`, which loads the model itself: a folder or Hub id.
        batch_size: answers that are written at a time.
        on_progress: called with (answered asks, all asks).
        options: further ones of vLLM's `LLM`, by their own names.

    Raises:
        UserError: the engine is not installed or cannot run here, or lacks what it runs.
    """
    # Imported when asked for: they bring libraries that the others do not need.
    from llmkit.generation.others import ContinuousEngine, VllmEngine

    if name == "vllm":
        if model_dir is None:
            raise UserError("engine", "vllm loads the model itself and was given none", "give the model's folder")
        return VllmEngine(model_dir, tokenizer, batch_size, on_progress, **options)
    if model is None:
        raise UserError("engine", f"{name} was given no model", "load one first")
    if options:
        raise UserError("engine", f"{name} does not take {', '.join(options)}", "leave them out")
    kind = ContinuousEngine if name == "continuous" else TransformersEngine
    return kind(model, tokenizer, batch_size, on_progress)


class TransformersEngine:
    """Answers with a loaded model, in this process.

    Args:
        max_thinking_tokens: of reasoning, which is then ended for the model; None: no limit.

    Raises:
        UserError: `batch_size` below 1.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 64,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        max_thinking_tokens: int | None = None,
    ) -> None:
        check_positive("batch_size", batch_size)
        self._max_thinking_tokens = max_thinking_tokens
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._on_progress = on_progress

    def thinking(self, max_tokens: int) -> TransformersEngine:
        """The same with this limit on reasoning."""
        given = (self._model, self._tokenizer, self._batch_size, self._on_progress)
        return TransformersEngine(*given, max_thinking_tokens=max_tokens)

    def answer(
        self,
        asks: Sequence[Ask],
        *,
        max_new_tokens: int,
        top_p: float = 1.0,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[list[Answer]]:
        """Answers in the order of the asks. A prompt that is empty or fills the context gives answers with an error.

        Raises:
            UserError: a sampling value out of its range.
            TemplateError: messages, and a tokenizer without a template that can render them.
        """
        check_positive("max_new_tokens", max_new_tokens)
        sampling = Sampling(top_p=top_p)
        finder = StopStrings(self._tokenizer, stop_strings)
        return self._windows(asks, max_new_tokens, sampling, finder, seed)

    def _windows(
        self, asks: Sequence[Ask], max_new_tokens: int, sampling: Sampling, finder: StopStrings, seed: int
    ) -> Iterator[list[Answer]]:
        num_done = 0
        for window in windows(asks, WINDOW * self._batch_size):
            jobs = [self._job(place, ask, max_new_tokens, seed) for place, ask in enumerate(window)]
            num_open = [len(job.rows) for job in jobs]
            num_done += num_open.count(0)
            for batch in _batches(jobs, self._batch_size):
                self._decode(batch, sampling, finder)
                for row in batch:
                    num_open[row.index] -= 1
                    num_done += num_open[row.index] == 0
                if self._on_progress is not None:
                    self._on_progress(num_done, len(asks))
            for job in jobs:
                yield [_answer(row, finder) for row in job.rows] or job.errors

    def _job(self, place: int, ask: Ask, max_new_tokens: int, seed: int) -> _Job:
        try:
            ids = ids_of(self._tokenizer, ask)
            limit = room_in(context_length(self._model), "the prompt", ids, max_new_tokens)
        except DataError as error:
            return _Job([], unanswered(ask, str(error)))
        rows, budget = [], self._max_thinking_tokens
        for number, temperature in enumerate(ask.temperatures):
            draws = uniforms_of(seed, ask.key, number, limit) if temperature else np.zeros(limit, dtype=np.float32)
            force = None if budget is None else thought_limit(self._tokenizer, ids, budget)
            rows.append(Row(place, ids, draws, limit, temperature=temperature, force=force))
        return _Job(rows, [])

    def _decode(self, batch: list[Row], sampling: Sampling, finder: StopStrings) -> None:
        with evaluating(self._model):
            finish(
                self._model,
                self._tokenizer,
                batch,
                sampling=sampling,
                stop_token_ids=stop_ids(self._model, self._tokenizer),
                stop=finder,
                logprobs=True,
            )


@dataclass
class _Job:
    """One ask on its way."""

    rows: list[Row]
    """One per answer; `index` is the ask's place in its window."""
    errors: list[Answer]
    """In place of rows where the prompt cannot be answered."""


def check_positive(name: str, value: int) -> None:
    """Raises UserError for a number below 1."""
    if value < 1:
        raise UserError(name, f"is {value}", "give 1 or more")


def check_temperatures(ask: Ask) -> None:
    """Raises UserError for one that is negative or no number."""
    for temperature in ask.temperatures:
        if not 0 <= temperature < math.inf:
            raise UserError("temperature", f"is {temperature}", "give a number 0 or more")


def ids_of(tokenizer: PreTrainedTokenizerBase, ask: Ask) -> list[int]:
    """The prompt's token ids. Raises DataError for malformed messages, TemplateError for a template that fails."""
    if ask.ids:
        return list(ask.ids)
    if isinstance(ask.prompt, str):
        return render_text(tokenizer, ask.prompt, add_eos=False).input_ids
    return prompt_ids(tokenizer, list(ask.prompt), tools=list(ask.tools) or None)


def unanswered(ask: Ask, error: str) -> list[Answer]:
    """For each answer that was asked for: why this prompt can have none."""
    return [Answer("", "error", error=error, permanent=True) for _ in ask.temperatures]


def windows(asks: Iterable[Ask], num_answers: int) -> Iterator[list[Ask]]:
    """Cuts asks into lists of about so many answers, as they come."""
    window: list[Ask] = []
    count = 0
    for ask in asks:
        check_temperatures(ask)
        window.append(ask)
        count += max(1, len(ask.temperatures))
        if count >= num_answers:
            yield window
            window, count = [], 0
    if window:
        yield window


def _batches(jobs: list[_Job], batch_size: int) -> Iterator[list[Row]]:
    """Longest prompts first; the rows of one prompt stay together where a batch holds them."""
    batch: list[Row] = []
    for job in sorted(jobs, key=lambda job: -len(job.rows[0].prompt_ids) if job.rows else 0):
        if batch and len(batch) + len(job.rows) > batch_size:
            yield batch
            batch = []
        batch = [*batch, *job.rows]
        while len(batch) > batch_size:
            yield batch[:batch_size]
            batch = batch[batch_size:]
    if batch:
        yield batch


def _answer(row: Row, finder: StopStrings) -> Answer:
    assert row.finish_reason is not None
    return Answer(finder.text(row.ids), row.finish_reason, math.fsum(row.logprobs), len(row.ids), ids=tuple(row.ids))
