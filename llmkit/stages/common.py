"""What every worker does around its own work: arguments, rank, progress, errors, manifest."""

from __future__ import annotations

import errno
import json
import os
import platform
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import psutil
import torch
from transformers.utils import logging

from llmkit.artifacts.files import disk_error, is_disk_full, write_json
from llmkit.artifacts.manifest import Manifest, Parent, read_manifest, write_manifest
from llmkit.artifacts.rundir import StageDir
from llmkit.artifacts.stagefile import StageFile, read_stage_file, write_stage_file
from llmkit.errors import LlmkitError, RunError, UserError
from llmkit.options import parser_of
from llmkit.plan.make import make
from llmkit.recipe.load import load_words
from llmkit.stages import started

PACKAGES = ("llmkit", "torch", "transformers", "trl", "accelerate", "peft", "datasets", "tokenizers")


@dataclass
class Worker:
    """One process of a stage. Only the main one (rank 0) writes."""

    file: StageFile
    started: float = field(default_factory=lambda: time.monotonic() - _age())
    """When the process began: imports are part of a stage's time."""
    warnings: list[str] = field(default_factory=list)

    @property
    def dir(self) -> StageDir:
        return self.file.dir

    @property
    def is_main(self) -> bool:
        return int(os.environ.get("RANK", "0")) == 0

    def log(self, phase: str, step: int, total: int, **numbers: float) -> None:
        """One line of metrics.jsonl: what the launcher's progress bar and the report's curves are drawn from."""
        if not self.is_main:
            return
        line = {
            "time": round(time.monotonic() - self.started, 3),
            "phase": phase,
            "step": step,
            "total": total,
            **numbers,
        }
        with self.dir.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def warn(self, text: str) -> None:
        """Goes to the log, the manifest and the report."""
        if text not in self.warnings:
            self.warnings.append(text)
            if self.is_main:
                print(f"warning: {text}", flush=True)

    def manifest(self, **fields: Any) -> Manifest:
        """A manifest with all that every stage says."""
        file = self.file
        parent = read_manifest(Path(file.parent)) if file.parent else None
        return Manifest(
            stage=file.stage.name,
            kind=file.stage.kind,
            fingerprint=file.fingerprint,
            parent=Parent(stage=parent.stage, fingerprint=parent.fingerprint) if parent else None,
            settings=file.stage.model_dump(mode="json", by_alias=True),
            warnings=self.warnings,
            seconds=round(time.monotonic() - self.started, 2),
            peak_memory_bytes=peak_memory(),
            world_size=file.world_size,
            device=device_name(),
            versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            **fields,
        )


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


def main(kind: str, run: Callable[[Worker], Manifest]) -> None:
    """`python -m llmkit.stages.<kind> stage.json`, or by hand `... recipe.yaml [overlay] [key=value] --stage NAME`."""
    worker = None
    started()
    logging.disable_progress_bar()
    try:
        file = _stage_file(kind, sys.argv[1:])
        worker = Worker(file)
        _check_world_size(file)
        worker.dir.error.unlink(missing_ok=True)
        manifest = run(worker)
        if worker.is_main:
            write_manifest(worker.dir.path, manifest)
            for folder in (worker.dir.checkpoints, worker.dir.cache):
                shutil.rmtree(folder, ignore_errors=True)
    except UserError as error:
        _leave_user_error(worker, error)
    except Exception as error:
        traceback.print_exc()
        if worker is not None and is_disk_full(worker.dir.path, error):
            _leave_user_error(worker, disk_error(worker.dir.path, OSError(errno.ENOSPC, "")))
        _leave(worker, {"type": type(error).__name__, "message": str(error)[:2000], "exit_code": 1})
    _close_process_group()


def _stage_file(kind: str, argv: list[str]) -> StageFile:
    parser = parser_of(f"python -m llmkit.stages.{kind}", main.__doc__)
    parser.add_argument("files", nargs="+", help="stage.json, or a recipe with overlays and key=value words")
    parser.add_argument("--stage", help="with a recipe: which stage")
    args = parser.parse_args(argv)
    if args.files[0].endswith(".json"):
        return read_stage_file(Path(args.files[0]))
    steps = {step.name: step for step in make(load_words(args.files), world_size=_world_size()).steps}
    if args.stage not in steps or steps[args.stage].kind != kind:
        known = ", ".join(name for name, step in steps.items() if step.kind == kind)
        raise RunError(f"--stage {args.stage}", f"is no '{kind}' stage of this recipe", f"have: {known}")
    file = steps[args.stage].stage_file()
    if file.parent and read_manifest(Path(file.parent)) is None:
        raise RunError(file.parent, "the stage that this one starts from has not finished", "run it first")
    if int(os.environ.get("RANK", "0")) == 0:
        file.dir.path.mkdir(parents=True, exist_ok=True)
        write_stage_file(file)
    return file


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _check_world_size(file: StageFile) -> None:
    """Accelerate starts one process without a word for some configs that ask for more."""
    if _world_size() != file.world_size:
        what = f"{_world_size()} process(es) were started, but {file.world_size} were planned"
        cure = "check 'distributed_type' in the Accelerate config (MULTI_CPU starts only one)"
        raise RunError(str(file.dir.path), what, cure)


def _leave_user_error(worker: Worker | None, error: UserError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr, flush=True)
    problems = [{"where": p.where, "what": p.what, "cure": p.cure} for p in error.problems]
    _leave(worker, {"type": type(error).__name__, "problems": problems, "exit_code": 2})


def _leave(worker: Worker | None, error: dict[str, Any]) -> NoReturn:
    if worker is not None and (worker.is_main or not worker.dir.error.exists()):
        try:
            write_json(worker.dir.error, error)
        except LlmkitError as full:
            print(f"error: {full}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # other ranks may wait in a collective; a plain exit would wait for them
    os._exit(error["exit_code"])


def _close_process_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _age() -> float:
    """Seconds since this process began."""
    return float(time.time() - psutil.Process().create_time())


def peak_memory() -> int:
    """Bytes: on a GPU what torch allocated at most, else the process's largest resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
