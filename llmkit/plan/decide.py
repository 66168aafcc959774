"""Skip, run or resume a step, and why, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmkit.artifacts.rundir import StageDir
from llmkit.artifacts.stagefile import StageFile, read_stage_file
from llmkit.plan.step import Action, Step
from llmkit.recipe.parts import LaunchSpec


def decide(step: Step, found: StageDir | None, before: dict[str, Step]) -> Step:
    """`step` with its action, the reason, and the folder that an earlier run left. `before`: the steps it may read."""
    action, reason = _decision(step, found, before)
    decided = replace(step, action=action, reason=reason, found=found.path if found else None)
    manifest = found.manifest() if found and action == "skip" else None
    if manifest is None:
        return decided
    if manifest.probe is not None:
        return replace(decided, rows=manifest.probe.num_questions)
    if manifest.data is None:
        return decided
    if step.kind == "evaluate":
        return replace(decided, rows=sum(source.num_used for source in manifest.data.sources))
    return replace(decided, rows=manifest.data.num_rows, tokens=manifest.data.num_tokens)


def _decision(step: Step, found: StageDir | None, before: dict[str, Step]) -> tuple[Action, str]:
    readers = [step.parent, *step.data_stages]
    again = next((name for name in readers if name is not None and before[name].action != "skip"), None)
    if found is None:
        return "run", "not run yet"
    told = _told(found)
    manifest = found.manifest()
    if manifest is not None and manifest.fingerprint == step.fingerprint:
        if again is None:
            return "skip", "finished, nothing changed"
        return "run", f"its input '{again}' runs again"
    if told is not None and told.fingerprint != step.fingerprint:
        return "run", _changed(told.inputs, step.inputs)
    if manifest is not None:
        return "run", "it was made from other settings or inputs"
    if told is None:
        return "run", "it did not finish"
    if step.stage.keeps_steps and any((found.data / "steps").glob("*.jsonl")):
        # chunks of answers do not depend on the number of processes
        return "resume", "it did not finish; goes on from the answers that it has"
    checkpoint = _last_checkpoint(found)
    if checkpoint is None and any((found.data / "steps").glob("*.jsonl")):
        return "resume", "it did not finish; goes on from the problems that it has tried"
    if checkpoint is None:
        return "run", "it did not finish, and left no checkpoint"
    if (told.batch, _layout(told.stage)) != (step.batch, _layout(step.stage)):
        return "run", "it did not finish, and its checkpoints are of another launch or batch layout"
    return "resume", f"it did not finish; goes on from {checkpoint}"


def _layout(stage: Any) -> LaunchSpec:
    """How its workers are started, without what only the plan reads."""
    launch: LaunchSpec = stage.launch
    return launch.model_copy(update={"memory": None})


def _told(found: StageDir) -> StageFile | None:
    """stage.json of an earlier run; None if there is none of this version."""
    try:
        return read_stage_file(found.stage_file)
    except (OSError, ValueError):
        return None


def _last_checkpoint(found: StageDir) -> str | None:
    """The newest checkpoint that was written whole: its worker marks it so."""
    whole = [path.parent.name for path in found.checkpoints.glob("**/checkpoint-*/.complete")]
    return max(whole, key=lambda name: int(name.rpartition("-")[2]), default=None)


def _changed(old: dict[str, str], new: dict[str, str]) -> str:
    """The first parts of the fingerprint that differ, with their values where they are short."""
    parts = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if not parts:
        return "it was made by another version of llmkit"
    words = [_difference(key, old.get(key), new.get(key)) for key in parts[:2]]
    more = f" and {len(parts) - 2} more" if len(parts) > 2 else ""
    return f"{', '.join(words)}{more}"


def _difference(key: str, old: str | None, new: str | None) -> str:
    if old is None or new is None:
        return f"{key} {'added' if old is None else 'removed'}"
    short = max(len(old), len(new)) <= 24
    return f"{key} changed from {old} to {new}" if short else f"{key} changed"
