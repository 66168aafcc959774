"""What is to be published: a run's model, and how it came to be. Manifests are all that is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.artifacts.manifest import EvalRow, Manifest, is_control
from llmkit.artifacts.models import silence, speaks
from llmkit.artifacts.rundir import RunDir, StageDir, open_run
from llmkit.errors import RunError
from llmkit.recipe.schema import KINDS
from llmkit.recipe.source import read_yaml

BASE = "base"
DATA_KINDS = ("refusals", "rollout", "rank", "best_of_n")
"""Stages whose rows are data sets of their own."""


@dataclass(frozen=True)
class Made:
    """A finished stage."""

    dir: StageDir
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.stage

    @property
    def speaks(self) -> bool:
        return speaks(self.manifest)


@dataclass(frozen=True)
class Subject:
    run: RunDir
    recipe: dict[str, Any]
    """As resolved, and plain."""
    stages: tuple[Made, ...]
    """All that have finished."""
    model: Made

    @property
    def base(self) -> str | None:
        """The recipe's model, as it is called there; None for a model that began from nothing."""
        first = self.chain[0].manifest
        return None if first.settings.get("init") == "scratch" else (self.recipe.get("model") or {}).get("name_or_path")

    @property
    def base_revision(self) -> str | None:
        return (self.recipe.get("model") or {}).get("revision")

    @property
    def chain(self) -> list[Made]:
        """Stages that trained the model, first to last. Raises RunError where one was run anew since."""
        by_name = {made.name: made for made in self.stages}
        found = [self.model]
        while (parent := found[-1].manifest.parent) is not None:
            above = by_name.get(parent.stage)
            if above is None or above.manifest.fingerprint != parent.fingerprint:
                what = f"stage '{found[-1].name}' was trained on another '{parent.stage}' than there is now"
                raise RunError(str(self.run.path), what, "run the recipe again")
            found.append(above)
        return [made for made in reversed(found) if made.speaks]

    @property
    def data_stages(self) -> list[Made]:
        """Stages that left rows of their own, controls apart."""
        kinds = [made for made in self.stages if made.manifest.kind in DATA_KINDS and made.manifest.data_dir]
        return [made for made in kinds if not is_control(made.name)]

    def writers(self, made: Made) -> list[str]:
        """Stages whose models wrote what is in the rows of a data stage; `an earlier X` if X was trained anew since."""
        by_name = {each.name: each for each in self.stages}
        settings, above = made.manifest.settings, made.manifest.parent
        if (rollouts := by_name.get(settings.get("rollouts", ""))) is not None:
            return self.writers(rollouts)
        name = above.stage if above else BASE
        now = by_name.get(name)
        is_earlier = above is not None and (now is None or now.manifest.fingerprint != above.fingerprint)
        return [f"an earlier {name}" if is_earlier else name, *(settings.get("models") or [])]

    def readers(self, name: str) -> list[Made]:
        """Stages whose input was the model of a stage (or `base`) as it is now: others tell of an earlier one."""
        now = {made.name: made.manifest.fingerprint for made in self.stages}
        wanted = None if name == BASE else (name, now.get(name))
        inputs = [(made, made.manifest.parent) for made in self.stages]
        return [made for made, above in inputs if (above and (above.stage, above.fingerprint)) == wanted]

    def evals(self, name: str) -> list[EvalRow]:
        """What was measured on the model of a stage: of each figure the latest."""
        latest: dict[tuple[str, str], EvalRow] = {}
        for made in self.readers(name):
            latest |= {(row.task, row.metric): row for row in made.manifest.evals if row.stage == name}
        return list(latest.values())


def located(target: str, stage: str | None = None) -> tuple[RunDir, str | None]:
    """The run of a run's or a stage's folder, and the stage that is meant if one is named. Raises RunError."""
    path = Path(target).expanduser()
    if (path / "stage.json").is_file() or (path / "manifest.json").is_file():
        if stage is not None:
            raise RunError(target, "is a stage's folder", "'--stage' fits a run's folder")
        path, stage = path.resolve().parent, StageDir(path.resolve()).name
    return open_run(path), stage


def subject_of(target: str, stage: str | None = None) -> Subject:
    """Of a run's folder (its last model, or that of `stage`) or a stage's folder. Raises RunError."""
    return subject_in(*located(target, stage))


def subject_in(run: RunDir, stage: str | None) -> Subject:
    """The run's last model, or that of a stage. Raises RunError."""
    stages = tuple(Made(each, found) for each in run.stages() if (found := each.manifest()) is not None)
    recipe = read_yaml(run.recipe).data
    subject = Subject(run, recipe, stages, _chosen(run, recipe, stages, stage))
    assert subject.chain
    return subject


def _chosen(run: RunDir, recipe: dict[str, Any], stages: Sequence[Made], name: str | None) -> Made:
    models = [made for made in stages if made.speaks]
    have = ", ".join(made.name for made in models)
    if name is None and (finals := [made for made in models if not is_control(made.name)]):
        if (last := _last(recipe)) not in (None, *(made.name for made in finals)):
            cure = f"run the recipe to its end, or give one with --stage (have: {have})"
            raise RunError(str(run.path), f"its last model, of stage '{last}', is not finished", cure)
        return finals[-1]
    if name is not None and (found := next((made for made in models if made.name == name), None)):
        return found
    mute = next((silence(made.manifest) for made in stages if made.name == name), None)
    what = "no stage has made a model yet" if name is None else mute or f"no finished stage '{name}'"
    raise RunError(str(run.path), what, f"have: {have}" if have else "run it first")


def _last(recipe: dict[str, Any]) -> str | None:
    """The recipe's last stage that makes a model, controls apart."""
    listed = [(str(stage.get("name")), KINDS.get(stage.get("kind"))) for stage in recipe.get("stages") or []]
    names = [name for name, kind in listed if kind is not None and kind.makes_model and not is_control(name)]
    return names[-1] if names else None
