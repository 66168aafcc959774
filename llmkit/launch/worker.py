"""Workers of one step after the other, from their start to their end."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from llmkit.artifacts.files import disk_error
from llmkit.launch import guard
from llmkit.launch.follow import Follower
from llmkit.launch.progress import Progress
from llmkit.plan.command import Command
from llmkit.plan.step import Step

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
POLL = 0.1


class Stopped(Exception):
    """Ctrl-C or SIGTERM."""


KEPT = 2
"""Processes that wait for a step: steps with a model and those without one take turns, each with an environment."""


class Workers:
    """Starts the workers of steps, one step after the other. To be closed: processes may wait for the next steps."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Forks, ExitStack]] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        while self._waiting:
            self._waiting.pop()[1].close()

    def run(self, step: Step, progress: Progress, verbose: bool, log_file: Path | None = None) -> int:
        """Start the workers of a step, show their progress, return their exit code. Raises Stopped, after ending them.

        Args:
            log_file: what they print. Default: the stage's.
        """
        paths = step.stage_dir
        log_file = log_file or paths.log
        log, metrics = Follower(log_file), Follower(paths.metrics)
        try:
            output = log_file.open("ab")
            header = f"--- {datetime.now(UTC).isoformat(timespec='seconds')} {step.command}\n"
            output.write(header.encode())
            output.flush()
        except OSError as error:
            raise disk_error(log_file, error) from error
        log.skip()
        with output, _stoppable(), self._started(step.command, log_file, output) as job:
            try:
                return _watch(job, log, metrics, progress, verbose)
            except (Stopped, KeyboardInterrupt):
                progress.note(f"stopping {step.name} ...")
                _stop(job.process)
                raise Stopped from None

    @contextmanager
    def _started(self, command: Command, log_file: Path, output: BinaryIO) -> Iterator[Job]:
        if command.kind is None or sys.platform != "linux":
            with _guarded(command.argv, command.env, output) as process:
                yield Job(process)
            return
        forks = self._forks_for(command, output)
        try:
            yield forks.begin(command, log_file)
        except BaseException:
            self._close()
            raise

    def _forks_for(self, command: Command, output: BinaryIO) -> Forks:
        for waiting in [waiting for waiting in self._waiting if waiting[0].process.poll() is not None]:
            self._waiting.remove(waiting)
            waiting[1].close()
        for forks, _ in self._waiting:
            if forks.env == command.env:
                return forks
        if len(self._waiting) == KEPT:
            self._close()
        stack = ExitStack()
        self._waiting.append((stack.enter_context(_forks(command.env, output)), stack))
        return self._waiting[-1][0]


@dataclass
class Job:
    """A step's workers at work."""

    process: subprocess.Popen[bytes]
    """What ends them when it ends."""
    told: socket.socket | None = None
    """Says when they have ended, if `process` does not by ending itself."""

    def poll(self) -> int | None:
        """Their exit code; None while they work."""
        if self.told is not None and select.select([self.told], [], [], 0)[0]:
            with suppress(ConnectionError):  # the other end is gone
                if line := self.told.recv(4096):
                    return int(json.loads(line)["code"])
        return self.process.poll()


@dataclass
class Forks:
    """A process that forks a worker per step: `llmkit.stages.forks`."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    env: Mapping[str, str]
    """Of all its forks."""

    def begin(self, command: Command, log_file: Path) -> Job:
        job = {"kind": command.kind, "file": command.argv[-1], "log": str(log_file)}
        with suppress(ConnectionError):  # it has ended, and its exit code tells why
            self.socket.sendall(json.dumps(job).encode() + b"\n")
        return Job(self.process, self.socket)


@contextmanager
def _forks(env: Mapping[str, str], output: BinaryIO) -> Iterator[Forks]:
    ours, theirs = socket.socketpair()
    argv = (sys.executable, "-m", "llmkit.stages.forks", str(theirs.fileno()))
    with ours, theirs, _guarded(argv, env, output, theirs.fileno()) as process:
        theirs.close()
        yield Forks(process, ours, env)


@contextmanager
def _guarded(
    argv: Sequence[str], env: Mapping[str, str], output: BinaryIO, *inherited: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A process under guard: all that comes of it ends with the block.

    Args:
        inherited: file descriptors that it keeps.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, str(GRACE), *argv],
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=inherited,
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def _watch(job: Job, log: Follower, metrics: Follower, progress: Progress, verbose: bool) -> int:
    code = None
    while code is None:
        code = job.poll()
        for line in log.lines() if verbose else ():
            progress.note(line)
        for record in metrics.records():
            progress.update(record)
        if code is None:
            time.sleep(POLL)
    return code


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE + 6)
    except (KeyboardInterrupt, Stopped, subprocess.TimeoutExpired):
        # asked twice: do not wait for the grace period
        for pid in guard.descendants(process.pid):
            _kill(pid)
        process.wait()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM raises Stopped here, as Ctrl-C raises KeyboardInterrupt."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    before: Any = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def last_lines(path: Path, number: int = 20) -> list[str]:
    """The end of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 2**16))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    # a progress bar's carriage returns leave only its last state
    lines = [line.rpartition("\r")[2].rstrip() for line in text.splitlines(keepends=False)]
    return [line for line in lines if line][-number:]
