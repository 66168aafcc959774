"""A plan as jobs of a Slurm cluster: one batch script a step, each waiting for the one before (`afterok`).

    <run>/slurm/recipe.yaml     as resolved: what is edited later does not change jobs that wait
    <run>/slurm/01-sft.sh       one per step that is not finished

A job runs `llmkit run ... --step NAME` on each of its machines. When its time is nearly up Slurm tells it, it stops as
after Ctrl-C, and is queued again: the step goes on from its last checkpoint. The run folder must lie on a disk that all
machines share.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmkit.artifacts.files import write_text
from llmkit.errors import RunError
from llmkit.launch.execute import write_recipe
from llmkit.plan.command import AccelerateConfig, accelerate_config
from llmkit.plan.step import Plan, Step
from llmkit.recipe.schema import Recipe

FOLDER = "slurm"
NOTICE = 180
"""Seconds before the end of its time at which a job is told: workers get ten of them to end."""


@dataclass(frozen=True)
class Job:
    name: str
    script: Path


def write_jobs(plan: Plan, steps: Sequence[Step], recipe: Recipe) -> list[Job]:
    """A script for every step that is not finished, in order. Raises RunError where none is left."""
    folder = plan.run_dir.path / FOLDER
    waiting = [step for step in steps if step.action != "skip"]
    if not waiting:
        raise RunError(str(plan.run_dir.path), "all steps are finished", "there is nothing to submit")
    for old in folder.glob("*.sh"):
        old.unlink()
    write_recipe(folder / "recipe.yaml", recipe)
    jobs = [Job(step.name, folder / f"{step.stage_dir.path.name}.sh") for step in waiting]
    for job, step in zip(jobs, waiting, strict=True):
        write_text(job.script, script_of(step, recipe, folder))
    return jobs


def script_of(step: Step, recipe: Recipe, folder: Path) -> str:
    """The batch script of a step. Args: folder: where it lies, beside the recipe."""
    slurm, machines = recipe.slurm, step.stage.launch.num_machines
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in _options(step, recipe, folder))]
    words = [sys.executable, "-m", "llmkit.cli.main", "run", str(folder / "recipe.yaml"), "--step", step.name]
    work = shlex.join(words)
    lines += ["", f"cd {shlex.quote(str(Path.cwd()))} || exit 1", *slurm.setup, ""]
    if machines > 1:
        lines += [
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
        ]
        each = shlex.quote(f"MACHINE_RANK=$SLURM_NODEID exec {work}")
        # srun does not take the number of cores from the job
        cores = f"--cpus-per-task={number} " if (number := slurm.of(step.name).cpus_per_task) else ""
        work = f"srun --ntasks={machines} --ntasks-per-node=1 {cores}--kill-on-bad-exit=1 bash -c {each}"
    return "\n".join([*lines, *_around(work, slurm.max_requeues)])


def _around(work: str, max_requeues: int) -> list[str]:
    """Shell that passes Slurm's notice on, and queues the job again when the work has stopped because of it, and not
    because someone cancelled the job."""
    return [
        "told=0 stopped=0",
        "trap 'told=1; kill -TERM \"$work\"' USR1",
        "trap 'stopped=1; kill -TERM \"$work\"' TERM  # scancel",
        f"{work} &",
        "work=$!",
        "# a signal ends a wait, not the work",
        'while kill -0 "$work" 2> /dev/null; do wait "$work"; done',
        'wait "$work"; code=$?',
        f"left=$(({max_requeues} - ${{SLURM_RESTART_COUNT:-0}}))",
        'if [ "$told" = 1 ] && [ "$stopped" = 0 ] && [ "$code" != 0 ] && [ "$left" -gt 0 ]; then',
        '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$code"',
        "",
    ]


def _options(step: Step, recipe: Recipe, folder: Path) -> list[str]:
    """Options of sbatch."""
    job, launch = recipe.slurm.of(step.name), step.stage.launch
    config = accelerate_config(launch)
    assert isinstance(config, AccelerateConfig)  # the plan has refused the rest
    named = ("partition", "account", "qos", "time", "mem")
    found = [
        f"--job-name={recipe.run.name}-{step.name}",
        f"--output={shlex.quote(str(folder))}/%x-%j.txt",
        "--open-mode=append",
        "--requeue",
    ]
    found += [f"--{name}={value}" for name in named if (value := getattr(job, name)) is not None]
    found += [f"--nodes={launch.num_machines}", "--ntasks-per-node=1"]
    found += [f"--cpus-per-task={job.cpus_per_task}"] if job.cpus_per_task else []
    if not config.use_cpu:
        kind = f"{job.gpu_type}:" if job.gpu_type else ""
        found.append(f"--gpus-per-node={kind}{launch.num_processes // launch.num_machines}")
    return [*found, f"--signal=B:USR1@{NOTICE}", *job.options]


def check(jobs: Sequence[Job]) -> bool:
    """`sbatch --test-only` of each script; False where there is no Slurm. Raises RunError as Slurm refuses."""
    if shutil.which("sbatch") is None:
        return False
    for job in jobs:
        _sbatch(job, "--test-only")
    return True


def submit(jobs: Sequence[Job]) -> dict[str, str]:
    """Job -> its number. Each waits for the one before; if that fails, it is taken out of the queue. Raises RunError,
    with what was submitted so far."""
    if shutil.which("sbatch") is None:
        raise RunError("--submit", "there is no sbatch here", "run it on a machine of the cluster")
    numbers: dict[str, str] = {}
    for job in jobs:
        waits = (f"--dependency=afterok:{[*numbers.values()][-1]}", "--kill-on-invalid-dep=yes") if numbers else ()
        try:
            # a cluster's name may follow
            numbers[job.name] = _sbatch(job, "--parsable", *waits).strip().partition(";")[0]
        except RunError as error:
            if not numbers:
                raise
            queued = ", ".join(f"{name} ({number})" for name, number in numbers.items())
            cure = f"queued before it: {queued}; take them back with scancel {' '.join(numbers.values())}"
            raise RunError(error.problems[0].where, error.problems[0].what, cure) from error
    return numbers


def _sbatch(job: Job, *options: str) -> str:
    argv = ["sbatch", *options, str(job.script)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise RunError(shlex.join(argv), said, "set 'slurm' in the recipe")
    return done.stdout
