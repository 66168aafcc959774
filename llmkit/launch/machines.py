"""`llmkit run` on a machine that is not the main one (`MACHINE_RANK` above 0): it starts its share of the workers of
steps that take several machines, when the main machine has begun them, and waits while it does the others.

The machines see each other's files: the run folder lies on a disk that they share. Only the main one writes there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from llmkit.artifacts.rundir import StageDir
from llmkit.artifacts.stagefile import read_stage_file
from llmkit.errors import StageFailed
from llmkit.launch.execute import Options, check_machines, select
from llmkit.launch.progress import progress_for
from llmkit.launch.worker import Stopped, Workers, last_lines
from llmkit.plan.step import Plan, Step

POLL = 0.5
LEFT = 600.0
"""Seconds that the main machine may take to finish a step whose workers have ended here."""


def is_main() -> bool:
    """Whether this machine is the one that plans, writes and reports."""
    return os.environ.get("MACHINE_RANK", "0").strip() in ("", "0")


def follow(plan: Plan, console: Console, options: Options) -> None:
    """Take part in the steps of a plan until all are finished. Raises StageFailed where one fails, here or there."""
    steps = select(plan, options.stage, options.start, options.step)
    check_machines(steps)
    watched = [Watched(step) for step in steps if step.action != "skip"]
    for each in watched:
        while not each.finished():
            each.check()
            if each.begun():
                _take_part(each, console, options.verbose)
            time.sleep(POLL)


@dataclass
class Watched:
    """A step that the main machine runs. What lay in its folder when this machine looked first is of an earlier run."""

    step: Step
    old: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.old = {path.name: _changed(path) for path in (self._manifest, self.folder.error)}

    @property
    def folder(self) -> StageDir:
        return self.step.stage_dir

    @property
    def _manifest(self) -> Path:
        return self.folder.path / "manifest.json"

    def _is_new(self, path: Path) -> bool:
        return _changed(path) not in (0.0, self.old[path.name])

    def finished(self) -> bool:
        manifest = self.folder.manifest() if self._is_new(self._manifest) else None
        return manifest is not None and manifest.fingerprint == self.step.fingerprint

    def begun(self) -> bool:
        """Whether the main machine waits for this one's workers."""
        if self.step.stage.launch.num_machines == 1:
            return False
        try:
            return read_stage_file(self.folder.stage_file).fingerprint == self.step.fingerprint
        except (OSError, ValueError):
            return False

    def check(self) -> None:
        """Raises StageFailed where the main machine's step has failed."""
        if self._is_new(self.folder.error):
            raise StageFailed(f"stage '{self.step.name}' failed on the main machine\nlog: {self.folder.log}")


def _take_part(watched: Watched, console: Console, verbose: bool) -> None:
    step = watched.step
    log = step.stage_dir.path / f"log-{os.environ['MACHINE_RANK']}.txt"
    console.print(f"{step.name}: takes part", markup=False, highlight=False)
    progress = progress_for(console, step.name)
    try:
        with Workers() as workers:
            code = workers.run(step, progress, verbose, log)
    except Stopped:
        raise StageFailed(f"stopped in stage '{step.name}'", exit_code=130) from None
    finally:
        progress.close()
    if code:
        lines = "\n".join(f"  | {line}" for line in last_lines(log))
        raise StageFailed(f"stage '{step.name}' failed on this machine (exit code {code})\n{lines}\nlog: {log}")
    _wait(watched)


def _wait(watched: Watched, seconds: float = LEFT, now: Callable[[], float] = time.monotonic) -> None:
    """Until the main machine has finished the step."""
    deadline = now() + seconds
    while not watched.finished():
        watched.check()
        if now() > deadline:
            raise StageFailed(f"stage '{watched.step.name}' ended here, and the main machine does not finish it")
        time.sleep(POLL)


def _changed(path: Path) -> float:
    """When a file was changed last; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
