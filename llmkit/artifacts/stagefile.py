"""stage.json: all that a worker is told. Complete: no defaults are left to fill in."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from llmkit.artifacts.files import read_json, write_json
from llmkit.artifacts.rundir import StageDir
from llmkit.recipe.parts import ModelSpec, RunSpec
from llmkit.recipe.schema import Stage


class Batch(BaseModel):
    """global = per_device x accumulation x world_size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    global_batch_size: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    world_size: int


class StageFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
    run: RunSpec
    model: ModelSpec
    """The recipe's base model."""
    stage: Stage
    """Resolved: `trainer` holds llmkit's defaults too, `seed` is set."""
    stage_dir: str
    """Absolute."""
    fingerprint: str
    inputs: dict[str, str] = {}
    """What the fingerprint is made of, part by part, so that a changed part can be named."""
    parent: str | None = None
    """Folder of the stage whose model is the input; None: the base model (or none, from scratch)."""
    input_model: str | None
    """Folder or Hub id that the model is loaded from; None: from scratch."""
    data_stages: dict[str, str] = {}
    """Stage name -> its folder: stages whose rows or probes are read."""
    baselines: dict[str, str] = {}
    """Stage name -> folder of the evaluation of its model, for the `baseline` of an honesty evaluation."""
    compare_with: str | None = None
    """Folder of the evaluation that paired differences are taken to."""
    batch: Batch | None = None
    world_size: int = 1

    @property
    def seed(self) -> int:
        """Also where a stage file was written by hand, without one."""
        return self.run.seed if self.stage.seed is None else self.stage.seed

    @property
    def revision(self) -> str | None:
        """Of the input model on the Hub; None where it is another stage's."""
        return self.model.revision if self.parent is None else None

    @property
    def dir(self) -> StageDir:
        return StageDir(Path(self.stage_dir))


def write_stage_file(stage: StageFile) -> Path:
    path = stage.dir.stage_file
    write_json(path, stage.model_dump(mode="json", by_alias=True))
    return path


def read_stage_file(path: Path) -> StageFile:
    return StageFile.model_validate(read_json(path))
