"""Jobs that share a model: what is decoded together, and that each is told of its end once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit.generation import pool as pooling
from llmkit.generation.choose import Sampling
from llmkit.generation.decode import Row
from llmkit.generation.pool import Job, Pool, PoolFailed


class Loaded:
    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def job(self, num_prompt: int, num_new: int = 3, **sampling: Any) -> Job:
        row = Row(0, [5] * num_prompt, np.zeros(num_new, dtype=np.float32), num_new)
        return Job(row, Sampling(**sampling))

    def pool(self, max_rows: int = 16) -> Pool:
        return Pool(self.model, self.tokenizer, max_rows)


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> Loaded:
    return Loaded(model_dir)


def batched(loaded: Loaded, monkeypatch: pytest.MonkeyPatch, jobs: list[Job]) -> list[list[int]]:
    """Lengths of the prompts of each batch, of jobs that came while another step was running."""
    found, has_begun, all_here, real = [], threading.Event(), threading.Event(), pooling.decode

    def noting(model: Any, rows: list[Row], **options: Any) -> Any:
        found.append([len(row.prompt_ids) for row in rows])
        has_begun.set()
        assert all_here.wait(60)
        return real(model, rows, **options)

    monkeypatch.setattr(pooling, "decode", noting)
    with loaded.pool() as pool:
        pool.add(loaded.job(9))
        assert has_begun.wait(60)
        for job in jobs:
            pool.add(job)
        all_here.set()
        for job in jobs:
            *_, (ids, finish) = job.tokens()
            assert len(ids) == 3 and finish == "length"
    return found[1:]


def test_a_long_prompt_pads_no_short_one(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [3, 400, 2, 17, 31, 3, 300]
    found = batched(loaded, monkeypatch, [loaded.job(length) for length in lengths])
    assert sorted(map(sorted, found)) == [[2, 3, 3], [17, 31], [300, 400]]


def test_other_cuts_are_another_batch(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = [{"top_k": 2}, {}, {"top_k": 2}, {"min_p": 0.1}]
    found = batched(loaded, monkeypatch, [loaded.job(8 + i, **each) for i, each in enumerate(cuts)])
    assert sorted(map(sorted, found)) == [[8, 10], [9], [11]]


class Slowly(list[Job]):
    """Whoever asks whether there is more has to wait for the answer: others come in between."""

    def __bool__(self) -> bool:
        found = bool(len(self))
        time.sleep(0.05)
        return found


def test_many_that_come_at_the_end_are_each_told_so(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, failed = loaded.pool(), list[BaseException]()
    pool.close()
    pool._waiting = Slowly()
    jobs = [loaded.job(4) for _ in range(8)]

    def add(job: Job) -> None:
        try:
            pool.add(job)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=add, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for job in jobs:
        with pytest.raises(PoolFailed, match="the server ends"):
            list(job.tokens())
        assert job.told.empty()


def test_the_end_is_told_to_who_waits_and_to_who_is_answered(loaded: Loaded) -> None:
    pool, jobs = loaded.pool(max_rows=1), [loaded.job(4, 400) for _ in range(3)]
    for job in jobs:
        pool.add(job)
    assert next(jobs[0].tokens())
    pool.close()
    for job in jobs:
        with pytest.raises(PoolFailed, match="the server ends"):
            list(job.tokens())
