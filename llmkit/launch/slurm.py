"""A plan as jobs of a Slurm cluster: each step waits for the steps whose results it reads, and for no other.

    <run>/slurm/recipe.yaml         as resolved: what is edited later does not change jobs that wait
    <run>/slurm/01-sft.sh           one script per step that is not finished,
    <run>/slurm/04-a-array.sh       or per array: steps that ask the cluster for the same and wait for the same

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
from llmkit.launch.arrays import Group, grouped
from llmkit.launch.execute import write_recipe
from llmkit.plan.command import AccelerateConfig, accelerate_config
from llmkit.plan.step import Plan, Step
from llmkit.recipe.schema import Recipe

FOLDER = "slurm"
NOTICE = 180
"""Seconds before the end of its time at which a job is told: workers get ten of them to end."""


@dataclass(frozen=True)
class Job:
    """One batch script: of a step, or of several as an array."""

    steps: dict[int, str]
    """Index of a task -> step."""
    script: Path
    after: tuple[str, ...]
    arrays: tuple[str, ...]
    """As in `Group`."""

    @property
    def name(self) -> str:
        return ", ".join(self.steps.values())


def write_jobs(plan: Plan, steps: Sequence[Step], recipe: Recipe) -> list[Job]:
    """Scripts for all steps that are not finished, in order. Raises RunError where none is left."""
    folder = plan.run_dir.path / FOLDER
    waiting = [step for step in steps if step.action != "skip"]
    if not waiting:
        raise RunError(str(plan.run_dir.path), "all steps are finished", "there is nothing to submit")
    for old in folder.glob("*.sh"):
        old.unlink()
    write_recipe(folder / "recipe.yaml", recipe)
    jobs = []
    for group in grouped(waiting, lambda step: tuple(_asks(step, recipe))):
        script = folder / f"{group.first.stage_dir.path.name}{_suffix(group)}.sh"
        write_text(script, script_of(group, recipe, folder))
        jobs.append(Job({index: step.name for index, step in group.steps.items()}, script, group.after, group.arrays))
    return jobs


def _suffix(group: Group) -> str:
    return "-array" if len(group.steps) > 1 else ""


def script_of(group: Group, recipe: Recipe, folder: Path) -> str:
    """The batch script of a job. Args: folder: where it lies, beside the recipe."""
    slurm, step = recipe.slurm, group.first
    machines, is_array = step.stage.launch.num_machines, len(group.steps) > 1
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in _options(group, recipe, folder))]
    run = shlex.join([sys.executable, "-m", "llmkit.cli.main", "run", str(folder / "recipe.yaml"), "--step"])
    work = f'{run} "$step"' if is_array else f"{run} {shlex.quote(step.name)}"
    lines += ["", f"cd {shlex.quote(str(Path.cwd()))} || exit 1", *slurm.setup, ""]
    if is_array:
        named = " ".join(f"[{index}]={shlex.quote(each.name)}" for index, each in group.steps.items())
        lines += [f"steps=({named})", 'export step="${steps[$SLURM_ARRAY_TASK_ID]}"']
    if machines > 1:
        lines += [
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
        ]
        each = shlex.quote(f"MACHINE_RANK=$SLURM_NODEID exec {work}")
        # srun does not take the number of cores from the job
        cores = f"--cpus-per-task={cpus} " if (cpus := slurm.of(step.name).cpus_per_task) else ""
        work = f"srun --ntasks={machines} --ntasks-per-node=1 {cores}--kill-on-bad-exit=1 bash -c {each}"
    # the number of an array's last task is that of the whole array
    number = '"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"' if is_array else '"$SLURM_JOB_ID"'
    return "\n".join([*lines, *_around(work, slurm.max_requeues, number)])


def _around(work: str, max_requeues: int, number: str) -> list[str]:
    """Shell that passes Slurm's notice on, and queues the job again when the work has stopped because of it, and not
    because someone cancelled the job. Args: number: how the shell names the job."""
    return [
        "told=0 stopped=0",
        "trap 'told=1; kill -TERM \"$work\"' USR1",
        "trap 'stopped=1; kill -TERM \"$work\"' TERM  # scancel",
        f"{work} &",
        "work=$!",
        "# told before it had a number",
        '[ "$told$stopped" = 00 ] || kill -TERM "$work"',
        "# a signal ends a wait, not the work",
        'while kill -0 "$work" 2> /dev/null; do wait "$work"; done',
        'wait "$work"; code=$?',
        f"left=$(({max_requeues} - ${{SLURM_RESTART_COUNT:-0}}))",
        'if [ "$told" = 1 ] && [ "$stopped" = 0 ] && [ "$code" != 0 ] && [ "$left" -gt 0 ]; then',
        f"    scontrol requeue {number}",
        "fi",
        'exit "$code"',
        "",
    ]


def _options(group: Group, recipe: Recipe, folder: Path) -> list[str]:
    """Options of sbatch."""
    tasks, log = [], "%x-%j.txt"
    if len(group.steps) > 1:
        tasks, log = [f"--array={','.join(map(str, group.steps))}"], "%x-%A_%a.txt"
    return [
        f"--job-name={recipe.run.name}-{group.first.name}{_suffix(group)}",
        *tasks,
        f"--output={shlex.quote(str(folder))}/{log}",
        "--open-mode=append",
        "--requeue",
        *_asks(group.first, recipe),
    ]


def _asks(step: Step, recipe: Recipe) -> list[str]:
    """Options of sbatch that say what a step's job takes."""
    job, launch = recipe.slurm.of(step.name), step.stage.launch
    config = accelerate_config(launch)
    assert isinstance(config, AccelerateConfig)  # the plan has refused the rest
    named = ("partition", "account", "qos", "time", "mem")
    found = [f"--{name}={value}" for name in named if (value := getattr(job, name)) is not None]
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
    """Job -> its number. Each waits for the steps whose results it reads; if one of these fails, it is taken out of the
    queue. Raises RunError, with what was submitted so far."""
    if shutil.which("sbatch") is None:
        raise RunError("--submit", "there is no sbatch here", "run it on a machine of the cluster")
    numbers: dict[str, str] = {}
    tasks: dict[str, str] = {}
    """Step -> as a dependency names it."""
    for job in jobs:
        try:
            # a cluster's name may follow
            number = _sbatch(job, "--parsable", *_waits(job, tasks)).strip().partition(";")[0]
        except RunError as error:
            if not numbers:
                raise
            queued = ", ".join(f"{name} ({number})" for name, number in numbers.items())
            cure = f"queued before it: {queued}; take them back with scancel {' '.join(numbers.values())}"
            raise RunError(error.problems[0].where, error.problems[0].what, cure) from error
        numbers[job.name] = number
        tasks |= {name: f"{number}_{i}" if len(job.steps) > 1 else number for i, name in job.steps.items()}
    return numbers


def _waits(job: Job, tasks: dict[str, str]) -> tuple[str, ...]:
    """Options of sbatch. Args: tasks: step -> its number, with its index where it is a task of an array."""
    after = ["afterok", *(tasks[name] for name in job.after)]
    corresponding = ["aftercorr", *(tasks[name].partition("_")[0] for name in job.arrays)]
    waits = [":".join(words) for words in (after, corresponding) if len(words) > 1]
    return (f"--dependency={','.join(waits)}", "--kill-on-invalid-dep=yes") if waits else ()


def _sbatch(job: Job, *options: str) -> str:
    argv = ["sbatch", *options, str(job.script)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise RunError(shlex.join(argv), said, "set 'slurm' in the recipe")
    return done.stdout
