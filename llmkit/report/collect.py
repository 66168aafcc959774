"""What a run left on disk, as plain frozen values. Unfinished and failed stages are told as what they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from llmkit.artifacts.files import read_json
from llmkit.artifacts.manifest import Manifest
from llmkit.artifacts.rundir import RunDir, StageDir
from llmkit.artifacts.stagefile import StageFile, read_stage_file
from llmkit.errors import Problem, RecipeError
from llmkit.recipe.source import read_yaml
from llmkit.report.curves import place, reward_of, wanted
from llmkit.report.run import Curve, Progress, RunReport, StageReport, Status

_NUM_REJECTED_SHOWN = 5


def collect(run: RunDir) -> RunReport:
    """Reads every stage's folder. Raises RunError for a manifest of another version."""
    text = run.recipe.read_text(encoding="utf-8", errors="replace") if run.recipe.is_file() else ""
    recipe = _recipe(run.recipe) if text else {}
    started = tuple(_stage(folder) for folder in run.stages())
    names = {stage.name for stage in started}
    planned = tuple(stage for stage in _planned(recipe) if stage.name not in names)
    model = recipe.get("model") or {}
    return RunReport(run.path.resolve().name, model.get("name_or_path"), text, started + planned)


def _recipe(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path).data
    except RecipeError:
        return {}
    return data if isinstance(data, dict) else {}


def _planned(recipe: dict[str, Any]) -> Iterator[StageReport]:
    for stage in recipe.get("stages") or []:
        kind = str(stage.get("kind", ""))
        scratch = stage.get("init") == "scratch"
        name, parent = str(stage.get("name", kind)), None if scratch else stage.get("from", "base")
        yield StageReport(name, kind, "planned", parent, settings=stage)


def _stage(folder: StageDir) -> StageReport:
    manifest = folder.manifest()
    told = _stage_file(folder)
    problems = () if manifest else _problems(folder)
    status: Status = "finished" if manifest else "failed" if problems else "unfinished"
    settings = manifest.settings if manifest else told.stage.model_dump(by_alias=True) if told else {}
    kind = manifest.kind if manifest else str(settings.get("kind", ""))
    curves, progress, notes = _metrics(folder.metrics, kind)
    return StageReport(
        name=folder.name,
        kind=kind,
        status=status,
        parent=_parent(manifest, settings),
        settings=settings,
        manifest=manifest,
        problems=problems,
        progress=progress,
        curves=curves,
        rejected=tuple(_rejected(folder.rejected)),
        notes=tuple(notes),
    )


def _stage_file(folder: StageDir) -> StageFile | None:
    try:
        return read_stage_file(folder.stage_file)
    except (OSError, ValueError):
        return None


def _parent(manifest: Manifest | None, settings: dict[str, Any]) -> str | None:
    if manifest and manifest.parent:
        return manifest.parent.stage
    return None if settings.get("init") == "scratch" else str(settings.get("from", "base"))


def _problems(folder: StageDir) -> tuple[Problem, ...]:
    if not folder.error.is_file():
        return ()
    try:
        error = read_json(folder.error)
    except ValueError:
        return (Problem("", f"error.json cannot be read; see {folder.log.name}"),)
    listed = tuple(Problem(p.get("where", ""), p.get("what", ""), p.get("cure", "")) for p in error.get("problems", []))
    return listed or (Problem("", f"{error.get('type', 'Error')}: {error.get('message', '')}"),)


def _metrics(path: Path, kind: str) -> tuple[tuple[Curve, ...], Progress | None, list[str]]:
    """Curves, the last line's place, and what was odd. A resumed step counts once, with its later value."""
    series: dict[tuple[str, str], dict[int, float]] = {}
    progress, num_unreadable = None, 0
    for line in _lines(path):
        try:
            row = json.loads(line)
            phase, step = str(row.get("phase", "")), int(row["step"])
        except (ValueError, KeyError, TypeError, AttributeError):
            num_unreadable += line.endswith("\n")  # else it is being written right now
            continue
        for key in wanted(kind, phase, row):
            series.setdefault((phase, key), {})[step] = _number(row[key])
        progress = Progress(phase, step, row.get("total"), _number(row.get("time", 0.0)))
    curves = tuple(
        Curve(phase, key, tuple(sorted(series[phase, key])), tuple(x for _, x in sorted(series[phase, key].items())))
        for phase, key in sorted(series, key=place(kind))
    )
    notes = [note for curve in curves if (note := _not_finite(curve))]
    if num_unreadable:
        notes.append(f"{num_unreadable} line(s) of {path.name} could not be read.")
    return curves, progress, notes


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line for line in file if line.strip())


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _not_finite(curve: Curve) -> str:
    if reward_of(curve.key):  # TRL's mean over the answers that it applies to: there may be none
        return ""
    bad = [step for step, value in zip(curve.steps, curve.values, strict=True) if not math.isfinite(value)]
    if not bad:
        return ""
    at = f"{len(bad)} of {len(curve.steps)} logged steps, first at step {bad[0]}"
    return f"{curve.key} was not a finite number at {at}."


def _rejected(path: Path) -> Iterator[str]:
    for line in islice(_lines(path), _NUM_REJECTED_SHOWN):
        try:
            row = json.loads(line)
            yield f"{row['file']}:{row['line']}: {row['reason']}\n{row['row']}"
        except (ValueError, KeyError, TypeError):
            yield line.strip()
