"""Runs a plan's steps in order. What is finished stays finished, whatever happens to the rest."""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from llmkit.artifacts.files import disk_error, is_disk_full, read_json, write_text
from llmkit.errors import RunError, StageFailed
from llmkit.launch.folders import moves, prepare, renumber
from llmkit.launch.progress import progress_for
from llmkit.launch.worker import Stopped, Workers, last_lines
from llmkit.plan.command import MACHINE_VARIABLES
from llmkit.plan.step import Plan, Step
from llmkit.recipe.checks import check
from llmkit.recipe.schema import Recipe


@dataclass(frozen=True)
class Options:
    stage: str | None = None
    """Only this stage and its evaluation."""
    start: str | None = None
    """This stage and all after it."""
    step: str | None = None
    """Only this step: a stage without its evaluation, or an evaluation."""
    verbose: bool = False
    """Show what workers print."""
    command: Sequence[str] = ("llmkit", "run")
    """What the user typed: shown as the way to go on."""


def execute(plan: Plan, recipe: Recipe, console: Console, options: Options | None = None) -> None:
    """Run what is not finished. Raises StageFailed (exit code 130 after Ctrl-C), RunError."""
    options = options or Options()
    steps = select(plan, options.stage, options.start, options.step)
    check_machines(steps)
    # a single step leaves the others' folders alone, unless their numbers have changed
    with plan.run_dir.locked(None if moves(plan) else options.step), Workers() as workers:
        with plan.run_dir.for_a_moment():
            write_recipe(plan.run_dir.recipe, recipe)
            tidy(plan, console)
        for step in steps:
            if step.action == "skip":
                _say(console, f"[{step.index}/{len(plan.steps)}] {step.name}: skipped ({step.reason})")
            else:
                _run(plan, step, console, options, workers)


def tidy(plan: Plan, console: Console) -> None:
    """Folders of an earlier recipe get their numbers in this one, or are set aside."""
    for path in renumber(plan):
        _say(console, f"set aside {path}: no longer in the recipe")


def select(plan: Plan, stage: str | None = None, start: str | None = None, one: str | None = None) -> list[Step]:
    """The steps that are asked for. Raises RunError if one of them reads what no step has made.

    Args:
        one: name of the only step.
    """
    found = asked_for(plan, stage, start, one)
    if found is None:
        return plan.steps
    option, first = found
    last = first + 1 if one else len(plan.steps)
    steps = [s for s in plan.steps if s.name in (stage, f"eval-{stage}")] if stage else plan.steps[first:last]
    chosen = {step.name for step in steps}
    finished = {step.name for step in plan.steps if step.action == "skip"}
    for step in steps:
        for needed in filter(None, [step.parent, *step.data_stages]):
            if needed not in chosen | finished:
                what = f"'{step.name}' needs '{needed}', which is not finished"
                raise RunError(option, what, f"use --from {needed}")
    return steps


def asked_for(plan: Plan, stage: str | None, start: str | None, one: str | None) -> tuple[str, int] | None:
    """The option that names a step, and the step's place; None: all are asked for. Raises RunError for no such step."""
    wanted = one or stage or start
    if wanted is None:
        return None
    option, names = f"--{'step' if one else 'stage' if stage else 'from'} {wanted}", [step.name for step in plan.steps]
    if wanted not in names:
        raise RunError(option, "no such stage", f"have: {', '.join(names)}")
    return option, names.index(wanted)


def check_machines(steps: Sequence[Step]) -> None:
    """Raises RunError where a step takes several machines and nobody says which one this is."""
    missing = [name for name in MACHINE_VARIABLES if not os.environ.get(name)]
    for step in steps:
        machines = step.stage.launch.num_machines
        if machines > 1 and missing and step.action != "skip":
            what = f"takes {machines} machines, and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
            raise RunError(f"stage '{step.name}'", what, "start it on each of them as docs/cluster.md says")


def write_recipe(path: Path, recipe: Recipe) -> None:
    """The recipe as resolved: overlays, `key=value` words and variables filled in. It can be run again as it is."""
    text = StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.dump(_read_again(recipe), text)
    write_text(path, text.getvalue())


def _read_again(recipe: Recipe) -> dict[str, Any]:
    """Plain data. The recipe was checked, so what is wrong with it now are defaults that nothing reads, spelled out."""
    data: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    for loc, _, _ in check(Recipe.model_validate(data)):
        node: Any = data
        for part in loc[:-1]:
            node = node[part]
        del node[loc[-1]]
    return data


def _run(plan: Plan, step: Step, console: Console, options: Options, workers: Workers) -> None:
    _say(console, f"[{step.index}/{len(plan.steps)}] {step.name}: {step.action} ({step.reason})")
    with plan.run_dir.for_a_moment():
        prepare(plan.run_dir, step)
    started = time.monotonic()
    progress = progress_for(console, step.name)
    try:
        code = workers.run(step, progress, options.verbose)
    except Stopped:
        text = f"stopped in stage '{step.name}'; finished stages are kept\ngo on with: {shlex.join(options.command)}"
        raise StageFailed(text, exit_code=130) from None
    finally:
        progress.close()
    manifest = step.stage_dir.manifest()
    if manifest is None or manifest.fingerprint != step.fingerprint:
        raise _failure(step, code, options.command)
    _say(console, f"[{step.index}/{len(plan.steps)}] {step.name}: done in {time.monotonic() - started:.0f} s")


def _failure(step: Step, code: int, command: Sequence[str]) -> StageFailed:
    """The worker's own words if it left any, else the end of its log."""
    said = _error_of(step.stage_dir.error)
    if said is None and is_disk_full(step.stage_dir.path):
        raise disk_error(step.stage_dir.path, OSError(errno.ENOSPC, "")) from None
    log = step.stage_dir.log
    resume = f"log: {log}\ngo on with: {shlex.join(command)}"
    if said and said.get("exit_code") == 2:
        problems = [_problem(p) for p in said.get("problems", [])]
        return StageFailed("\n".join([*problems, f"stage '{step.name}' stopped", resume]), exit_code=2)
    why = f": {said['type']}: {said.get('message', '')}" if said else f" (exit code {code})"
    lines = "\n".join(f"  | {line}" for line in last_lines(log))
    return StageFailed(f"stage '{step.name}' failed{why}\n{lines}\n{resume}")


def _error_of(path: Path) -> dict[str, Any] | None:
    try:
        data = read_json(path)
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _problem(item: dict[str, str]) -> str:
    text = f"{item['where']}: {item['what']}" if item.get("where") else item["what"]
    return f"{text}; {item['cure']}" if item.get("cure") else text


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
