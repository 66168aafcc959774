"""How a recipe's steps become jobs of a Slurm cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from llmkit.recipe.parts import Part


def _word(value: str) -> str:
    if not value or any(char.isspace() or char in "'\"`$\\" for char in value):
        raise ValueError("must be one word without quotes and variables: it stands in an #SBATCH line")
    return value


def _line(value: str) -> str:
    if "\n" in value:
        raise ValueError("must be one line")
    return value


def _option(value: str) -> str:
    if not value.startswith("-"):
        raise ValueError("must be an option of sbatch, such as --exclusive")
    return _line(value)


Word = Annotated[str, AfterValidator(_word)]
Line = Annotated[str, AfterValidator(_line)]
Option = Annotated[str, AfterValidator(_option)]


class JobSpec(Part):
    """What one job asks the cluster for."""

    partition: Word | None = None
    """Where the job waits. Default: the cluster's."""
    account: Word | None = None
    """Who pays."""
    qos: Word | None = None
    """Quality of service."""
    time: Word | None = None
    """Longest time of one job, as Slurm writes it (`12:00:00`, `2-00:00:00`); the step then goes on in another job."""
    gpu_type: Word | None = None
    """Kind of GPU (`h100`). How many follows from `launch`: one per process, none with a `cpu/` config."""
    cpus_per_task: int | None = Field(default=None, gt=0)
    """Cores of a machine."""
    mem: Word | None = None
    """Main memory of a machine (`200G`)."""
    options: list[Option] = []
    """Further options of sbatch (`--exclusive`, `--constraint=h100`)."""


class SlurmSpec(JobSpec):
    """What the jobs of a run ask the cluster for, and what they begin with."""

    setup: list[Line] = []
    """Lines of shell that a job begins with (`module load cuda`, `source .venv/bin/activate`). Not for secrets."""
    max_requeues: int = Field(default=10, ge=0)
    """How often a job that ran out of time goes on in another."""
    stages: dict[str, JobSpec] = {}
    """Step (`sft`, `eval-sft`) -> what differs for its job."""

    def of(self, step: str) -> JobSpec:
        """The settings of one step's job."""
        own = self.stages.get(step)
        shared = self.model_dump(exclude={"setup", "max_requeues", "stages"})
        return JobSpec(**{**shared, **(own.model_dump(exclude_defaults=True) if own else {})})
