"""One model for many requests that come when they like.

Those that wait when a step begins are decoded together, in batches of prompts of which none is twice as long as
another, since the short ones are padded; batches take turns, one token each, so that a late request does not wait for
an early one, and each keeps its own cache. Every token is told to whoever asked; who has left leaves his batch before
the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.errors import LlmkitError
from llmkit.generation.choose import Sampling
from llmkit.generation.decode import Row, decode, evaluating, pad_id_of, stop_ids

_Finish = Literal["stop", "length"] | None


class PoolFailed(LlmkitError):
    """The model failed on a batch, such as for want of memory."""


@dataclass(eq=False)
class Job:
    """One answer that is wanted."""

    row: Row
    sampling: Sampling
    is_left: bool = False
    told: SimpleQueue[tuple[int, _Finish] | str] = field(default_factory=SimpleQueue)

    def tokens(self) -> Iterator[tuple[list[int], _Finish]]:
        """All ids so far, each time that there are more, until there is a reason to finish. Raises PoolFailed."""
        finish: _Finish = None
        while finish is None:
            told = self.told.get()
            if isinstance(told, str):
                raise PoolFailed(told)
            num, finish = told
            yield self.row.ids[:num], finish

    def leave(self) -> None:
        """It is not waited for any more; `tokens` ends."""
        self.is_left = True


class Pool:
    """Decodes jobs in a thread of its own. As a context manager it ends the thread.

    Args:
        max_rows: answers that are written at a time; others wait in their order.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_rows: int) -> None:
        self._model, self._max_rows = model, max_rows
        self._pad_id, self._stops = pad_id_of(tokenizer), stop_ids(model, tokenizer)
        self._new: SimpleQueue[Job | None] = SimpleQueue()
        self._waiting: list[Job] = []
        self._batches: list[_Batch] = []
        self._is_closed = self._is_over = False
        self._thread = Thread(target=self._run, name="pool", daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        self._new.put(job)
        if self._is_over:
            self._end()

    def stop(self) -> None:
        """All that is open or comes fails. Returns at once, and may be called where a signal is handled."""
        self._new.put(None)

    def close(self) -> None:
        self.stop()
        self._thread.join()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        with evaluating(self._model):
            while not self._is_closed:
                self._take()
                self._begin()
                for batch in list(self._batches):
                    if not batch.step():
                        self._batches.remove(batch)
        for job in (*self._waiting, *(job for batch in self._batches for job in batch.jobs.values())):
            self._new.put(job)
        self._is_over = True
        self._end()

    def _end(self) -> None:
        """From any thread, and from several at a time: each job is told once."""
        with suppress(Empty):
            while True:
                if (job := self._new.get(block=False)) is not None:
                    job.told.put("the server ends")

    def _take(self) -> None:
        """What is new; waits for it where there is nothing else to do."""
        try:
            while True:
                job = self._new.get(block=not self._batches and not self._waiting and not self._is_closed)
                if job is None:
                    self._is_closed = True
                else:
                    self._waiting.append(job)
        except Empty:
            return

    def _begin(self) -> None:
        left, self._waiting = _parted(self._waiting)
        for job in left:
            job.told.put((0, "stop"))
        num_free = self._max_rows - sum(len(batch.jobs) for batch in self._batches)
        taken, self._waiting = self._waiting[:num_free], self._waiting[num_free:]
        for _, group in groupby(sorted(taken, key=_shared), _shared):
            self._batches.append(_Batch(self._model, list(group), self._pad_id, self._stops))


def _parted(jobs: list[Job]) -> tuple[list[Job], list[Job]]:
    """Those that nobody waits for, and the others."""
    left = [job for job in jobs if job.is_left]
    return left, [job for job in jobs if job not in left]


def _shared(job: Job) -> tuple[float, ...]:
    """What the rows of a batch share: cuts, and the prompt's length up to a factor below 2."""
    return job.sampling.top_k, job.sampling.top_p, job.sampling.min_p, len(job.row.prompt_ids).bit_length()


class _Batch:
    """Jobs that began together."""

    def __init__(self, model: PreTrainedModel, jobs: list[Job], pad_id: int, stops: list[int]) -> None:
        self.jobs = {id(job.row): job for job in jobs}
        self._steps = decode(
            model,
            [job.row for job in jobs],
            pad_id=pad_id,
            sampling=jobs[0].sampling,
            stop_token_ids=stops,
            stop=self._stop,
        )

    def step(self) -> bool:
        """One token for each of them; False: all are done."""
        try:
            rows = next(self._steps, None)
        except Exception as error:  # of the model, whatever it is: other batches go on
            logging.getLogger(__name__).exception("a batch of %d answers failed", len(self.jobs))
            for job in self.jobs.values():
                job.told.put(f"the model failed: {type(error).__name__}")
            return False
        for row in rows or ():
            job = self.jobs[id(row)]
            job.told.put((len(row.ids), row.finish_reason))
            if row.finish_reason is not None:
                del self.jobs[id(row)]
        return bool(self.jobs)

    def _stop(self, rows: list[Row]) -> None:
        for row in rows:
            if self.jobs[id(row)].is_left:
                row.finish_reason = "stop"
