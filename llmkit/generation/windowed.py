"""What engines share that take a window of asks whole: rendering, prompts that do not fit, order, progress."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from llmkit.chat.ask import Answer, Ask
from llmkit.errors import DataError
from llmkit.generation.choose import Sampling, hash_of
from llmkit.generation.decode import room_in
from llmkit.generation.engine import WINDOW, check_positive, ids_of, unanswered, windows
from llmkit.generation.sample import StopStrings


@dataclass(frozen=True)
class Request:
    """Answers to one prompt at one temperature."""

    ids: list[int]
    temperature: float
    count: int
    limit: int
    """New tokens."""
    seed: int


@dataclass(frozen=True)
class Settings:
    top_p: float
    stop: StopStrings


class WindowEngine(ABC):
    """Each run of equal temperatures in an ask becomes one request for so many answers."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        on_progress: Callable[[int, int], None] | None,
        context: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._on_progress = on_progress
        self._context = context

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
        settings = Settings(Sampling(top_p=top_p).top_p, StopStrings(self._tokenizer, stop_strings))
        return self._answers(asks, max_new_tokens, settings, seed)

    def _answers(
        self, asks: Sequence[Ask], max_new_tokens: int, settings: Settings, seed: int
    ) -> Iterator[list[Answer]]:
        num_done = 0
        for window in windows(asks, WINDOW * self._batch_size):
            prepared = [self._requests(ask, max_new_tokens, seed) for ask in window]
            requests = [request for each in prepared if not isinstance(each, str) for request in each]
            made = iter(self._generate(requests, settings) if requests else [])
            num_done += len(window)
            if self._on_progress is not None:
                self._on_progress(num_done, len(asks))
            for ask, each in zip(window, prepared, strict=True):
                if isinstance(each, str):
                    yield unanswered(ask, each)
                else:
                    yield [answer for _ in each for answer in next(made)]

    def _requests(self, ask: Ask, max_new_tokens: int, seed: int) -> list[Request] | str:
        """Or why there can be none."""
        try:
            ids = ids_of(self._tokenizer, ask)
            limit = room_in(self._context, "the prompt", ids, max_new_tokens)
        except DataError as error:
            return str(error)
        requests: list[Request] = []
        first = 0
        for temperature, group in groupby(ask.temperatures):
            count = len(list(group))
            requests.append(Request(ids, temperature, count, limit, hash_of(seed, ask.key, first, 32) >> 1))
            first += count
        return requests

    @abstractmethod
    def _generate(self, requests: list[Request], settings: Settings) -> list[list[Answer]]:
        """Answers of every request."""
