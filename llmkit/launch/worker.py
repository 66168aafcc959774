"""One worker group, from its start to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from llmkit.artifacts.files import disk_error
from llmkit.launch import guard
from llmkit.launch.follow import Follower
from llmkit.launch.progress import Progress
from llmkit.plan.step import Step

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
POLL = 0.1


class Stopped(Exception):
    """Ctrl-C or SIGTERM."""


def run_worker(step: Step, progress: Progress, verbose: bool, log_file: Path | None = None) -> int:
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
    with output, _stoppable():
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(GRACE), *step.command.argv],
            env={**os.environ, **step.command.env},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _watch(process, log, metrics, progress, verbose)
        except (Stopped, KeyboardInterrupt):
            progress.note(f"stopping {step.name} ...")
            _stop(process)
            raise Stopped from None
        finally:
            # whatever happened here, the guard ends its processes when this closes
            if process.stdin:
                process.stdin.close()
    return process.returncode


def _watch(
    process: subprocess.Popen[bytes], log: Follower, metrics: Follower, progress: Progress, verbose: bool
) -> None:
    ended = False
    while not ended:
        ended = process.poll() is not None
        for line in log.lines() if verbose else ():
            progress.note(line)
        for record in metrics.records():
            progress.update(record)
        if not ended:
            time.sleep(POLL)


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
