"""What the files of an interrogation share: its settings, scratch space, and progress with rate and time left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from llmkit.artifacts.files import disk_error, sha256_of
from llmkit.artifacts.stagefile import StageFile
from llmkit.errors import UserError
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


def processes(worker: Worker) -> PartialState:
    """The processes of this stage, as planned.

    accelerate 1.15 counts one process on machines without an accelerator unless it is told that they are for the CPU.
    The process that has finished first waits for the last, which may take days.
    """
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=on_cpu, timeout=timedelta(days=30))
    if state.num_processes != worker.file.world_size:
        what = f"{worker.file.world_size} processes were planned, but Accelerate counts {state.num_processes}"
        raise UserError("launch.accelerate", what, "check 'distributed_type' in the Accelerate config")
    return state


def seed_of(worker: Worker) -> int:
    seed = worker.file.stage.seed
    return worker.file.run.seed if seed is None else seed


def stages_read(worker: Worker) -> dict[str, Path]:
    return {name: Path(path) for name, path in worker.file.data_stages.items()}


def step_keys(file: StageFile) -> dict[str, str]:
    """What the rows of each step depend on. A step is done again if that changed; a change of the judge or of a
    threshold keeps the answers, one of the batch size keeps all."""
    stage = file.stage
    assert isinstance(stage, InterrogateStage)
    # without named parts (a stage file written by hand) all depends on all
    parts = file.inputs or {"fingerprint": file.fingerprint}
    counting, judging = {"thresholds", "heldout", "batch_size"}, {"judge", f"prompt {stage.judge.prompt}"}
    if stage.documents and stage.writer.prompt == stage.judge.prompt:
        judging = {"judge"}

    def key(*without: set[str]) -> str:
        return sha256_of({name: value for name, value in parts.items() if name not in set().union(*without)})

    asked, written = key(counting, judging), key(counting, judging, {"ask"})
    # how long an endpoint may take does not change what it says
    judged = stage.judge.model_dump(exclude={"max_undecided", "timeout", "max_retries", "concurrency", "api_key_env"})
    verdicts = sha256_of([key(counting, {"judge"}), judged])
    early = dict.fromkeys((DOCUMENTS, SNIPPETS, WRITTEN, QUESTIONS, COUNTS), written)
    return early | {ANSWERS: asked, VERDICTS: verdicts}


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

    def __init__(self, worker: Worker, phase: str, total: int, num_processes: int, unit: str = "questions") -> None:
        self._worker, self._phase, self._total, self._num_processes = worker, phase, total, num_processes
        self._name = f"{unit}_per_second"
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
        numbers = {self._name: round(rate * self._num_processes, 2), "seconds_left": round(left, 1)}
        self._worker.log(self._phase, int(done), self._total, **numbers)

    def _rate(self, done: float) -> float:
        return done / max(time.monotonic() - self._started, 1e-6)
