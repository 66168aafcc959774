"""What interrogations and honesty evaluations share: settings, scratch space, asking and judging chunk by chunk, and
progress with rate and time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from llmkit.artifacts.files import sha256_of
from llmkit.artifacts.stagefile import StageFile
from llmkit.errors import UserError
from llmkit.knowledge.answering import answer_chunk, to_ask
from llmkit.knowledge.asking import Asking
from llmkit.knowledge.judging import OUTAGE, SLICE, Judging, Names
from llmkit.knowledge.records import question_of
from llmkit.knowledge.store import Chunks, Row, Steps
from llmkit.recipe.knowledge import EngineSpec, JudgeSpec
from llmkit.recipe.stages_knowledge import InterrogateStage
from llmkit.stages.common import Worker, where_of
from llmkit.stages.engines import AskedModel, judge_of

SNIPPETS, WRITTEN, QUESTIONS, DOCUMENTS, COUNTS = "snippets", "written", "questions", "documents", "counts"
ANSWERS, VERDICTS = "answers", "verdicts"
"""Steps: names of their files in data/steps."""
SHOWN_EVERY = 0.5
"""Seconds between two lines of progress."""
_NOT_SAID = {"max_undecided", "max_failed", "timeout", "max_retries", "concurrency", "api_key_env"}
"""Settings of a writer or judge that do not change what it says."""


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


def step_keys(file: StageFile) -> dict[str, str]:
    """What the rows of each step depend on. A step is done again if that changed; a change of the judge or of a
    threshold keeps the answers, one of the batch size keeps all."""
    stage = file.stage
    assert isinstance(stage, InterrogateStage)
    # without named parts (a stage file written by hand) all depends on all
    parts = file.inputs or {"fingerprint": file.fingerprint}
    counting, judging = {"thresholds", "heldout", "batch_size"}, {"judge", *files_of(stage.judge)}
    if stage.documents:
        judging -= files_of(stage.writer)

    def key(*without: set[str]) -> str:
        return sha256_of({name: value for name, value in parts.items() if name not in set().union(*without)})

    writer = said_by(stage.writer)
    asked = sha256_of([key(counting, judging, {"writer"}), writer])
    written = sha256_of([key(counting, judging, {"writer", "ask"}), writer])
    verdicts = sha256_of([key(counting, {"judge", "writer"}), writer, said_by(stage.judge)])
    early = dict.fromkeys((DOCUMENTS, SNIPPETS, WRITTEN, QUESTIONS, COUNTS), written)
    return early | {ANSWERS: asked, VERDICTS: verdicts}


def model_parts(file: StageFile) -> dict[str, Any]:
    """What every answer of the input model depends on, whatever it is asked."""
    # without named parts (a stage file written by hand) all depends on all
    parts = file.inputs or {"fingerprint": file.fingerprint}
    kept = ("fingerprint", "model", "input model", "code of ")
    return {name: part for name, part in parts.items() if name.startswith(kept)} | {"seed": file.seed}


def files_of(spec: EngineSpec) -> set[str]:
    """Names of the parts of a fingerprint that are a writer's or judge's own files."""
    return {f"prompt {spec.prompt}", f"weights {spec.name_or_path}"}


def said_by(spec: EngineSpec) -> dict[str, Any]:
    """What a writer's or judge's texts depend on: how long it may take, and how often it may fail, does not count."""
    return spec.model_dump(mode="json", exclude=_NOT_SAID)


def ask_chunks(
    worker: Worker,
    steps: Steps,
    state: PartialState,
    questions: Chunks,
    asking: Asking,
    asked: AskedModel,
    *,
    step: str = ANSWERS,
    phase: str = "ask",
) -> float | None:
    """Has the model answer this process's share of the questions, as far as it has not.

    Returns:
        Questions per second over all processes; None: all answers were there.

    Raises:
        UserError: the engine seems to be out of order. What it answered is kept.
    """
    own = range(state.process_index, len(questions), state.num_processes)
    todo = to_ask(steps, step, own)
    if not todo:
        return None
    pace = Pace(worker, phase, sum(map(questions.rows_in, todo)), state.num_processes)
    asking = replace(asking, thinking=asked.thinks_from(asking.asks(question_of(questions[todo[0]][0]))[0]))
    for index in todo:
        batch = [question_of(row) for row in questions[index]]
        asked.on_progress = lambda done, total, size=len(batch): pace.show(size * done / max(total, 1))  # type: ignore[misc]
        failed = answer_chunk(steps, step, index, batch, asking, asked.engine)
        num = len(batch) * asking.spec.answers_per_question
        # a few questions at the end say nothing of the engine
        if failed.total() > OUTAGE * num and (num >= SLICE or len(questions) == 1):
            what = f"{failed.total()} of {num} answers failed"
            cure = "mend it, or take another 'engine', and run again: what was answered is kept"
            raise UserError(where_of(worker, phase), f"{what} ({failed.most_common(1)[0][0]})", cure)
        pace.add(len(batch))
    asked.on_progress = None
    return pace.rate


def judge_chunks(
    worker: Worker,
    steps: Steps,
    questions: Chunks,
    own: Sequence[int],
    spec: JudgeSpec,
    asked: AskedModel,
    *,
    batch_size: int,
    num_processes: int = 1,
    names: Names = Names(ANSWERS, VERDICTS),
    part: str = "judge",
) -> Counter[str]:
    """Has the answers of these chunks judged. Returns why some were left undecided.

    Raises:
        UserError: the judge cannot be used, or seems to be out of order. What it has decided is kept.
    """
    pace = Pace(worker, "judge", sum(map(questions.rows_in, own)), num_processes)
    size = 0
    judging = Judging(
        steps,
        names,
        partial(judge_of, spec, asked, batch_size, worker.file.seed),
        where=where_of(worker, part),
        max_undecided=spec.max_undecided,
        # a local model fills its batches, and does not die without a word
        size=SLICE if spec.by == "openai" else max(SLICE, 4 * batch_size),
        on_progress=lambda share: pace.show(size * share),
    )
    asked.on_progress = judging.show
    for index in own:
        size = questions.rows_in(index)
        judging.chunk(index, lambda index=index: [question_of(row) for row in questions[index]])  # type: ignore[misc]
        pace.add(size)
    asked.on_progress = None
    return judging.failures


def chunks_of(num: int, size: int) -> list[range]:
    """The numbers below `num`, so many at a time."""
    return [range(start, min(start + size, num)) for start in range(0, num, size)]


def in_chunks(
    worker: Worker,
    state: PartialState,
    steps: Steps,
    step: str,
    chunks: Sequence[Sequence[int]],
    rows_of: Callable[[Sequence[int]], Iterable[Row]],
    *,
    unit: str,
    phase: str | None = None,
) -> float | None:
    """Makes this process's share of the chunks as far as it is not on disk, and waits for the others.

    Args:
        rows_of: the rows of one chunk's numbers.
        phase: name of the work where people see it. Default: the step's.

    Returns:
        Numbers per second over all processes; None: this process had nothing to do.
    """
    todo = steps.missing(step, len(chunks), state.process_index, state.num_processes)
    pace = Pace(worker, phase or step, sum(len(chunks[index]) for index in todo), state.num_processes, unit)
    for index in todo:
        steps.write(step, index, rows_of(chunks[index]))
        pace.add(len(chunks[index]))
    state.wait_for_everyone()
    return pace.rate if todo else None


class Pace:
    """Progress of a step with its rate and the time left.

    Args:
        total: what this process has to do; the processes have the same, to within a chunk.
    """

    def __init__(self, worker: Worker, phase: str, total: int, num_processes: int, unit: str = "questions") -> None:
        self._worker, self._phase, self._total, self._num_processes = worker, phase, total, num_processes
        self._name = f"{unit}_per_second"
        self._done, self._furthest, self._shown, self._started = 0, 0.0, 0.0, time.monotonic()
        self._reached, self._rounds, self._last = 0.0, 0, (-1.0, 0)

    @property
    def rate(self) -> float:
        """Per second, over all processes."""
        return self._rate(self._done) * self._num_processes

    def add(self, count: int) -> None:
        self._done += count
        self.show()

    def show(self, further: float = 0.0) -> None:
        """Now and then, and at the end. `further`: what is done of the running chunk; what is asked for again
        takes nothing back, and its rounds are counted."""
        now, reached = time.monotonic(), self._done + further
        self._rounds += reached < self._reached - 1e-6
        self._reached, done = reached, max(reached, self._furthest)
        self._furthest = done
        if (done, self._rounds) == self._last or (now - self._shown < SHOWN_EVERY and done < self._total):
            return
        self._shown, self._last, rate = now, (done, self._rounds), self._rate(done)
        left = (self._total - done) / rate if rate else 0.0
        numbers = {self._name: round(rate * self._num_processes, 2), "seconds_left": round(left, 1)}
        numbers |= {"asked_again": self._rounds} if self._rounds else {}
        self._worker.log(self._phase, int(done), self._total, **numbers)

    def _rate(self, done: float) -> float:
        return done / max(time.monotonic() - self._started, 1e-6)
