"""What the files of an interrogation share: its settings, scratch space, and progress with rate and time left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from llmkit.artifacts.files import disk_error
from llmkit.recipe.schema import InterrogateStage
from llmkit.stages.common import Worker

SNIPPETS, WRITTEN, QUESTIONS, DOCUMENTS, COUNTS = "snippets", "written", "questions", "documents", "counts"
ANSWERS, VERDICTS = "answers", "verdicts"
"""Steps: names of their files in data/steps."""
OUTAGE = 0.5
"""Share of failures within one chunk above which a writer or judge is taken to be out of order."""


def interrogation(worker: Worker) -> InterrogateStage:
    stage = worker.file.stage
    assert isinstance(stage, InterrogateStage), stage.kind
    return stage


def seed_of(worker: Worker) -> int:
    seed = worker.file.stage.seed
    return worker.file.run.seed if seed is None else seed


def stages_read(worker: Worker) -> dict[str, Path]:
    return {name: Path(path) for name, path in worker.file.data_stages.items()}


@contextmanager
def temporary(worker: Worker) -> Iterator[Path]:
    """A folder in the stage's cache, which is deleted at the latest when the stage has finished."""
    try:
        worker.dir.cache.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(dir=worker.dir.cache)
    except OSError as error:
        raise disk_error(worker.dir.cache, error) from error
    with folder as path:
        yield Path(path)


def where_of(worker: Worker, part: str) -> str:
    return f"stage '{worker.file.stage.name}': {part}"


class Pace:
    """Progress of a step with its rate and the time left.

    Args:
        total: what this process has to do; the processes have the same, to within a chunk.
    """

    def __init__(self, worker: Worker, phase: str, total: int, num_processes: int) -> None:
        self._worker, self._phase, self._total, self._num_processes = worker, phase, total, num_processes
        self._done, self._shown, self._started = 0, 0.0, time.monotonic()

    @property
    def rate(self) -> float:
        """Per second, over all processes."""
        return self._rate(self._done) * self._num_processes

    def add(self, count: int) -> None:
        self._done += count
        self.show()

    def show(self, further: float = 0.0) -> None:
        """At most twice a second, and at the end. `further`: what is done of the running chunk."""
        now, done = time.monotonic(), self._done + further
        if now - self._shown < 0.5 and done < self._total:
            return
        self._shown, rate = now, self._rate(done)
        left = (self._total - done) / rate if rate else 0.0
        numbers = {"questions_per_second": round(rate * self._num_processes, 2), "seconds_left": round(left, 1)}
        self._worker.log(self._phase, int(done), self._total, **numbers)

    def _rate(self, done: float) -> float:
        return done / max(time.monotonic() - self._started, 1e-6)
