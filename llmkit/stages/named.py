"""Which model a word of the command line names: a run's, a stage's, a folder, or one on the Hub at a revision."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from llmkit.artifacts.manifest import FILE, Manifest, is_control
from llmkit.artifacts.models import silence, speaks
from llmkit.artifacts.rundir import RunDir, StageDir
from llmkit.artifacts.shipped import in_package
from llmkit.errors import RunError, UserError


class Named(NamedTuple):
    """A folder, `package:folder` or Hub id, and of the latter the branch, tag or commit, if one is named."""

    path: str
    revision: str | None = None


def named(target: str) -> Named:
    """`me/model@revision`, or what has no revision: a path that exists wins, whatever is in its name.

    Raises UserError for a revision of a folder, which has none, and for `@` with nothing on one side.
    """
    name, mark, revision = target.partition("@")
    if not mark or Path(target).expanduser().exists() or target.startswith((".", "/", "~")):
        return Named(target)
    if not name or not revision:
        raise UserError(target, "names no revision of a Hub model", "write it as me/model@revision")
    if in_package(name) is not None or Path(name).exists():
        what = f"'{name}' is a folder here, and only Hub models have revisions"
        raise UserError(target, what, f"leave '@{revision}' out")
    return Named(name, revision)


def model_of(target: str, stage: str | None) -> Named:
    """The model that `target` names: a run, a stage, or what `named` reads.

    Raises RunError for a run or stage without one, UserError as `named` does.
    """
    path = Path(target).expanduser()
    run = RunDir(path)
    if run.recipe.is_file():
        return Named(_model_of_run(run, stage))
    if stage is not None:
        raise RunError(target, "is no run folder", "'--stage' only fits one")
    if StageDir(path).stage_file.is_file() or ((path / FILE).is_file() and not (path / "config.json").is_file()):
        return Named(_model_of_stage(StageDir(path)))
    return named(target)


def _model_of_run(run: RunDir, name: str | None) -> str:
    finished = [(found, manifest) for found in run.stages() if (manifest := found.manifest()) is not None]
    made = [(found, manifest) for found, manifest in finished if speaks(manifest)]
    last = next((each for each in reversed(made) if not is_control(each[1].stage)), None)
    if name is None and last is not None:
        return _folder(*last)
    for found, manifest in made:
        if manifest.stage == name:
            return _folder(found, manifest)
    have = ", ".join(manifest.stage for _, manifest in made)
    mute = next((silence(manifest) for _, manifest in finished if manifest.stage == name), None)
    what = "no stage has made a model yet" if name is None else mute or f"no finished stage '{name}'"
    raise RunError(str(run.path), what, f"have {have}" if have else "run it first")


def _model_of_stage(stage: StageDir) -> str:
    manifest = stage.manifest()
    if manifest is None:
        raise RunError(str(stage.path), "this stage has not finished", "run it first")
    if not speaks(manifest):
        raise RunError(str(stage.path), silence(manifest), "give a stage that trains a model to answer")
    return _folder(stage, manifest)


def _folder(stage: StageDir, manifest: Manifest) -> str:
    return str(stage.path / (manifest.model_dir or manifest.adapter_dir or ""))
