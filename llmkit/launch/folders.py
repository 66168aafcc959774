"""Folders of stages before they run: nothing of another fingerprint may be mixed in, nothing finished is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmkit.artifacts.files import disk_error
from llmkit.artifacts.rundir import RunDir
from llmkit.artifacts.stagefile import write_stage_file
from llmkit.plan.step import Plan, Step

STEPS = "steps"
"""Folder with what an interrogation or evaluation has done so far, inside its `data/`."""
OLD = ".old"
"""Folder of finished stages that were replaced, inside the run's."""


def moves(plan: Plan) -> bool:
    """Whether `renumber` would touch folders of other steps."""
    return bool(plan.stale or _misnumbered(plan))


def _misnumbered(plan: Plan) -> list[tuple[Step, Path]]:
    """Kept steps with their folders of another number."""
    kept = ((step, step.found) for step in plan.steps if step.action != "run" and step.found is not None)
    return [(step, found) for step, found in kept if found != step.stage_dir.path]


def renumber(plan: Plan) -> list[Path]:
    """Set the folders of removed stages aside and give kept ones their number in this plan. Returns the former."""
    try:
        aside = [set_aside(plan.run_dir, path) for path in plan.stale]
        for step, found in _misnumbered(plan):
            found.rename(step.stage_dir.path)
            write_stage_file(step.stage_file())
    except OSError as error:
        raise disk_error(plan.run_dir.path, error) from error
    return aside


def prepare(run: RunDir, step: Step) -> None:
    """An empty folder with stage.json; for a step that resumes, the folder as it was with a new stage.json."""
    folder = step.stage_dir
    try:
        if step.action == "run":
            kept = _keep_answers(run, step) if step.stage.keeps_steps else None
            _clear(run, step.found or folder.path)
            _clear(run, folder.path)
            if kept is not None:
                folder.data.mkdir(parents=True)
                kept.rename(folder.data / STEPS)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.error.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(folder.path, error) from error
    write_stage_file(step.stage_file())


def _keep_answers(run: RunDir, step: Step) -> Path | None:
    """Answers and verdicts cost more than all else, and each of the stage's steps knows which of its rows hold."""
    aside = run.path / f".{step.name}-{STEPS}"
    found = (step.found or step.stage_dir.path) / step.stage_dir.data.name / STEPS
    if found.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
        found.rename(aside)
    return aside if aside.is_dir() else None


def _clear(run: RunDir, folder: Path) -> None:
    if (folder / "manifest.json").is_file():
        set_aside(run, folder)
    elif folder.is_dir():
        shutil.rmtree(folder)


def set_aside(run: RunDir, folder: Path) -> Path:
    """Move a stage's folder under `.old/`, where its last version replaces the one before."""
    target = run.path / OLD / folder.name
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    return folder.rename(target)
