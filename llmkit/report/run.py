"""A run as the report sees it: its stages, which of them made models, and which of those are controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from llmkit.artifacts.manifest import EvalRow, Manifest, is_control
from llmkit.errors import Problem
from llmkit.recipe.schema import KINDS
from llmkit.recipe.trainer_keys import PRACTICE
from llmkit.report.metrics import HONESTY, IDENTITY, PREFERENCE, PROBLEMS

Status = Literal["finished", "unfinished", "failed", "planned"]


@dataclass(frozen=True)
class Curve:
    """One logged number against the step; a value may be NaN."""

    phase: str
    key: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Progress:
    """The last line that a worker logged."""

    phase: str
    step: int
    total: int | None
    seconds: float


@dataclass(frozen=True)
class StageReport:
    name: str
    kind: str
    status: Status
    parent: str | None
    """Stage that the model came from, `base`, or None: from scratch."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The stage as resolved; of a planned one, as the recipe has it."""
    manifest: Manifest | None = None
    problems: tuple[Problem, ...] = ()
    progress: Progress | None = None
    curves: tuple[Curve, ...] = ()
    rejected: tuple[str, ...] = ()
    """The first rejected rows, one text each."""
    notes: tuple[str, ...] = ()
    """What reading the files showed, in plain words."""

    @property
    def measured(self) -> str:
        """Of an evaluation: the stage whose model was measured."""
        rows = self.manifest.evals if self.manifest else []
        return rows[0].stage if rows else self.parent or "base"

    @property
    def rows_from(self) -> list[str]:
        """Stages whose rows it is trained on."""
        sources = self.settings.get("data") or []
        return [source["from"] for source in sources if isinstance(source, dict) and source.get("from")]

    @property
    def makes_model(self) -> bool:
        known = KINDS.get(self.kind)
        return known is None or known.makes_model

    @property
    def practises(self) -> bool:
        return self.kind in PRACTICE

    @property
    def warnings(self) -> list[str]:
        return [*(self.manifest.warnings if self.manifest else ()), *self.notes]


@dataclass(frozen=True)
class RunReport:
    name: str
    model: str | None
    """The base model; None: the first stage starts from scratch."""
    recipe: str
    stages: tuple[StageReport, ...] = field(default=())

    @property
    def chain(self) -> list[StageReport]:
        """The stages that make something, evaluations left out."""
        return [stage for stage in self.stages if stage.kind != "evaluate"]

    @property
    def evaluations(self) -> list[StageReport]:
        return [stage for stage in self.stages if stage.kind == "evaluate"]

    @property
    def seconds(self) -> float:
        return sum(stage.manifest.seconds for stage in self.stages if stage.manifest)

    @property
    def models(self) -> list[str]:
        """Names of the models in the order of the chain: `base` first, the final one last, controls before it."""
        made = [stage for stage in self.chain if stage.makes_model]
        names = ["base", *(stage.name for stage in made if stage.name not in self.controls)]
        place = names.index(self.final) or len(names)
        return [*names[:place], *(stage.name for stage in made if stage.name in self.controls), *names[place:]]

    @property
    def final(self) -> str:
        """The last model that is finished and no control."""
        made = [stage for stage in self.chain if stage.makes_model and stage.status == "finished"]
        return next((stage.name for stage in reversed(made) if stage.name not in self.controls), "base")

    @cached_property
    def controls(self) -> frozenset[str]:
        """Stages that show what happens without the method: called so, or made of shuffled labels or refusals only."""
        found: set[str] = set()
        for stage in self.chain:
            if is_control(stage.name) or _is_spoilt(stage) or found & {stage.parent, *stage.rows_from}:
                found.add(stage.name)
        return frozenset(found)

    @cached_property
    def honesty_tasks(self) -> list[str]:
        """Names of the honesty evaluations: a recipe may have several."""
        return list(dict.fromkeys([*(str(spec.get("name") or HONESTY) for spec in self._specs(HONESTY)), HONESTY]))

    @cached_property
    def problem_tasks(self) -> dict[str, str | None]:
        """Names of the evaluations on problems, each with the column that tells its problems apart."""
        found = {str(spec.get("name") or PROBLEMS): spec.get("by") for spec in self._specs(PROBLEMS)}
        return {PROBLEMS: None, **found}

    @cached_property
    def preference_tasks(self) -> list[str]:
        """Names of the evaluations of preferences."""
        named = [str(spec.get("name") or PREFERENCE) for spec in self._specs(PREFERENCE)]
        return list(dict.fromkeys([*named, PREFERENCE]))

    @cached_property
    def identity_tasks(self) -> list[str]:
        """Names of the evaluations of identity."""
        return list(dict.fromkeys([*(str(spec.get("name") or IDENTITY) for spec in self._specs(IDENTITY)), IDENTITY]))

    def preference_spec(self, task: str) -> dict[str, Any]:
        """What the last evaluation of that name was told; empty where nothing says."""
        found = [spec for spec in self._specs(PREFERENCE) if str(spec.get("name") or PREFERENCE) == task]
        return found[-1] if found else {}

    def _specs(self, task: str) -> Iterator[dict[str, Any]]:
        """What the evaluations were told of llmkit's own task `task`."""
        for stage in self.evaluations:
            for spec in stage.settings.get("evals") or []:
                if isinstance(spec, dict) and spec.get("task") == task:
                    yield spec

    def untaught(self, model: str, is_taught: Callable[[StageReport], bool]) -> str | None:
        """What the first of the model's forebears that `is_taught` starts from."""
        stages = {stage.name: stage for stage in self.chain}
        stage, found = stages.get(model), None
        while stage:
            if is_taught(stage):
                found = stage.parent
            stage = stages.get(stage.parent or "")
        return found

    def kinds_of_rows(self, stage: StageReport) -> set[str]:
        """Kinds of the stages whose rows `stage` is trained on."""
        return {each.kind for each in self.chain if each.name in stage.rows_from}

    def evals(self) -> list[EvalRow]:
        """All rows in the order of the chain: the last of a task and metric is the final model's."""
        rows = [row for stage in self.stages if stage.manifest for row in stage.manifest.evals]
        place = {name: index for index, name in enumerate(self.models)}
        return sorted(rows, key=lambda row: place.get(row.stage, len(place)))


def _is_spoilt(stage: StageReport) -> bool:
    """Refusal data whose labels are shuffled, or that answers nothing."""
    told = stage.settings
    return stage.kind == "refusals" and (told.get("relabel") == "random" or told.get("known_ratio") == 0)
