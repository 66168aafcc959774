"""One step of a plan and the plan: pure data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmkit.artifacts.rundir import RunDir, StageDir
from llmkit.artifacts.stagefile import Batch, StageFile
from llmkit.plan.command import Command
from llmkit.plan.fit import Fit
from llmkit.plan.memory import Memory
from llmkit.plan.shape import Shape
from llmkit.recipe import reads
from llmkit.recipe.parts import ModelSpec, RunSpec

Action = Literal["skip", "run", "resume"]


@dataclass(frozen=True)
class Step:
    """One launch: a stage of the recipe, or an automatic evaluation."""

    index: int
    name: str
    kind: str
    automatic: bool
    run: RunSpec
    model: ModelSpec
    stage: Any
    """The schema object of the stage, resolved: nothing is left to a default."""
    stage_dir: StageDir
    parent: str | None
    """Step whose model is the input; None: the recipe's model, or none (from scratch)."""
    parent_dir: str | None
    input_model: str | None
    """Folder or Hub id; None: from scratch."""
    data_stages: dict[str, str]
    baselines: dict[str, str]
    compare_with: str | None
    needs: tuple[str, ...]
    """Steps whose results it reads: of its model, its data, and the evaluations that it is compared with."""
    batch: Batch | None
    rows: int | None
    """Training rows, or about how many questions are asked; None: there are none, or the data must be read first."""
    tokens: int | None
    """Tokens of the training rows, known once the stage has finished."""
    shape: Shape | None
    memory: Memory | None
    """None: the model's shape is not known before it is downloaded, or the step loads no model."""
    fit: Fit | None
    """None: `launch.memory` is not given, or what it takes is not known."""
    command: Command
    inputs: dict[str, str]
    fingerprint: str
    action: Action = "run"
    reason: str = ""
    found: Path | None = None
    """Folder of this step from an earlier run."""

    @property
    def input(self) -> str:
        """The input model and data, in words."""
        model = f"stage {self.parent}" if self.parent else (self.input_model or "new weights")
        sources = [f"stage {s.from_}" if s.from_ else str(s.path) for _, s in reads.sources(self.stage)]
        named = {source.from_ for _, source in reads.sources(self.stage)}
        sources += [f"stage {name}" for _, name in reads.stages(self.stage) if name not in named]
        return f"{model} + {', '.join(dict.fromkeys(sources))}" if sources else model

    @property
    def world_size(self) -> int:
        size: int = self.stage.launch.num_processes
        return size

    def stage_file(self) -> StageFile:
        """What the worker is told."""
        return StageFile(
            run=self.run,
            model=self.model,
            stage=self.stage,
            stage_dir=str(self.stage_dir.path),
            fingerprint=self.fingerprint,
            inputs=self.inputs,
            parent=self.parent_dir,
            input_model=self.input_model,
            data_stages=self.data_stages,
            baselines=self.baselines,
            compare_with=self.compare_with,
            batch=self.batch,
            world_size=self.world_size,
        )


@dataclass(frozen=True)
class Plan:
    run_dir: RunDir
    steps: list[Step]
    stale: list[Path] = field(default_factory=list)
    """Stage folders of an earlier recipe that this one does not have."""
