"""Where everything of a run lies. Paths are joined here and nowhere else.

<output_dir>/<run>/
    recipe.yaml            as resolved
    .lock .lock-<step>     held while `llmkit run` works here
    report.html report.md
    rankings/<stage>/      what people ranked: nothing clears it
    01-cpt/                one folder per stage
        stage.json         what the worker was told, complete
        log.txt            what the workers printed
        metrics.jsonl      one line per logged step
        rejected.jsonl     bad rows, with file and line
        checkpoints/       for resuming
        model/ adapter/ data/
        error.json         why it failed
        manifest.json      written last
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmkit.artifacts.files import disk_error
from llmkit.artifacts.manifest import Manifest, read_manifest
from llmkit.errors import RunError

RANKINGS = "rankings.jsonl"
"""Decisions of people."""


@dataclass(frozen=True)
class StageDir:
    path: Path

    @property
    def name(self) -> str:
        """The stage's name: the folder's without its number."""
        return self.path.name.partition("-")[2]

    @property
    def stage_file(self) -> Path:
        return self.path / "stage.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def rejected(self) -> Path:
        return self.path / "rejected.jsonl"

    @property
    def error(self) -> Path:
        return self.path / "error.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def cache(self) -> Path:
        """Tokenised rows, while the stage runs."""
        return self.path / "cache"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def data(self) -> Path:
        return self.path / "data"

    def manifest(self) -> Manifest | None:
        return read_manifest(self.path)


@dataclass(frozen=True)
class RunDir:
    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def stage(self, index: int, name: str) -> StageDir:
        return StageDir(self.path / f"{index:02d}-{name}")

    def rankings(self, stage: str) -> Path:
        return self.path / "rankings" / stage

    def stages(self) -> list[StageDir]:
        """Folders of the stages that were started, in the order of the chain."""
        found = sorted(p for p in self.path.glob("[0-9][0-9]-*") if p.is_dir())
        return [StageDir(p) for p in found]

    @contextmanager
    def locked(self, step: str | None = None) -> Iterator[None]:
        """Keeps a second run out of this folder; let go by the system when the holder dies.

        Args:
            step: name of the only step that is run: runs of other single steps may work beside it.

        Raises:
            RunError: there is one, nothing can be written, or this is Windows.
        """
        with ExitStack() as held:
            held.enter_context(_lock(self.path / ".lock", shared=step is not None))
            if step is not None:
                held.enter_context(_lock(self.path / f".lock-{step}"))
            yield

    @contextmanager
    def for_a_moment(self) -> Iterator[None]:
        """Waits until nobody else is here: for what runs of single steps do to the files of the whole run."""
        with _lock(self.path / ".lock-files", wait=True):
            yield


@contextmanager
def _lock(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """A file that is locked. Raises RunError as `RunDir.locked` does."""
    try:
        import fcntl
    except ImportError:
        what = "cannot be run in: this system has neither its locks nor its signals"
        raise RunError(str(path.parent), what, "use Linux; macOS, and WSL on Windows, are not tested") from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise disk_error(path.parent, error) from error
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(handle, 256).decode(errors="replace") or "unknown"
            what = f"another run is working here (process {holder.strip()})"
            raise RunError(str(path.parent), what, "wait for it, or give this run another 'run.name'") from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        os.close(handle)


def open_run(path: str | Path) -> RunDir:
    """An existing run's folder. Raises RunError where there is none."""
    run = RunDir(Path(path))
    if not run.path.is_dir():
        raise RunError(str(path), "no such run folder", f"the current folder is {Path.cwd()}")
    if not run.recipe.is_file():
        raise RunError(str(path), "is not a run: it has no recipe.yaml", "give the folder that `llmkit run` printed")
    return run
