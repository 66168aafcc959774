"""A plan as text for people and as JSON for machines."""

from __future__ import annotations

import json
import shlex
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmkit.artifacts.stagefile import Batch
from llmkit.plan.memory import Memory
from llmkit.plan.step import Plan, Step
from llmkit.recipe.schema import EvaluateStage
from llmkit.recipe.stages import SampledStage, TrainStage
from llmkit.recipe.stages_knowledge import InterrogateStage

_COLOURS = {"skip": "dim", "run": "bold green", "resume": "bold yellow"}
UNKNOWN = "?"
_LOADS = (TrainStage, SampledStage, InterrogateStage, EvaluateStage)
"""Stages that load a model."""


def print_plan(plan: Plan, console: Console, *, commands: bool = False) -> None:
    """An overview, then each step that will run in full; with its command if `commands`."""
    console.print(Text(f"Run folder: {plan.run_dir.path}"), soft_wrap=True)
    console.print(_overview(plan))
    for step in plan.steps:
        if step.action != "skip":
            _print_details(step, console, commands)
    for path in plan.stale:
        console.print(Text(f"{path.name} is no longer in the recipe: it will be set aside", style="yellow"))


def _overview(plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "stage", "kind", "input", "rows", "tokens", "memory", ""):
        table.add_column(name, overflow="fold", justify="right" if name in ("rows", "tokens", "memory") else "left")
    for step in plan.steps:
        trains, known = isinstance(step.stage, TrainStage), isinstance(step.stage, _LOADS)
        table.add_row(
            str(step.index),
            Text(step.name),
            step.kind,
            Text(step.parent or step.input_model or "new weights"),
            _number(step.rows) if trains else "" if step.rows is None else f"{step.rows:,} asked",
            _number(step.tokens) if trains else "",
            (size(step.memory.total) if step.memory else UNKNOWN) if known else "",
            Text.assemble((step.action, _COLOURS[step.action]), f": {step.reason}"),
        )
    return table


def _print_details(step: Step, console: Console, commands: bool) -> None:
    console.print(Text(f"\n{step.index} {step.name}", style="bold"))
    facts = {"input": step.input, "output": str(step.stage_dir.path)}
    if step.batch is not None:
        facts["batch"] = batch_words(step.batch)
    if isinstance(step.stage, InterrogateStage):
        number = UNKNOWN if step.rows is None else f"about {step.rows:,}"
        facts["questions"] = f"{number}, {step.stage.ask.answers_per_question} answers to each"
    elif isinstance(step.stage, EvaluateStage) and step.rows is not None:
        facts["questions"] = f"about {step.rows:,} of honesty evaluations"
    if isinstance(step.stage, _LOADS):
        facts["memory"] = memory_words(step.memory)
    if step.fit is not None:
        said = "yes" if step.fit.fits else "no"
        facts["fits"] = f"{said}: {size(step.fit.given)} a process, a tenth of it left free"
    if commands:
        facts["command"] = str(step.command)
    for place, change in enumerate(step.fit.changes if step.fit else (), start=1):
        facts[f"change {place}"] = shlex.join(change)
    for name, words in facts.items():
        # whole lines, so that the command can be copied
        console.print(Text.assemble((f"  {name:<10}", "dim"), words), soft_wrap=True)


def batch_words(batch: Batch) -> str:
    accumulation, world = batch.gradient_accumulation_steps, batch.world_size
    product = f"{batch.per_device_train_batch_size} rows x {accumulation} accumulation x {world} processes"
    return f"global_batch_size {batch.global_batch_size} = {product}"


def memory_words(memory: Memory | None) -> str:
    if memory is None:
        return f"{UNKNOWN} (the model's config.json is not on this machine, or of an unknown architecture)"
    terms = ", ".join(f"{name} {size(number)}" for name, number in memory.terms.items())
    share = memory.num_trained / memory.num_parameters
    trained = f"{'' if share in (0, 1) else f'{share:.1%} of '}{memory.num_parameters:,} parameters"
    own = f"{terms} ({trained}{' trained' if share else ''})"
    others = [f"{name}: {UNKNOWN if number is None else size(number)}" for name, number in memory.others.items()]
    return f"about {size(memory.total)} a process: {'; '.join([own, *others])}"


def size(num_bytes: float) -> str:
    """`1.5 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if num_bytes >= 10 or unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def to_json(plan: Plan) -> str:
    """`{"run_dir", "steps": [...], "stale": [...]}`; unknown numbers are null."""
    steps = [_step_data(step) for step in plan.steps]
    data = {"run_dir": str(plan.run_dir.path), "steps": steps, "stale": [str(path) for path in plan.stale]}
    return json.dumps(data, indent=2, ensure_ascii=False)


def _step_data(step: Step) -> dict[str, Any]:
    memory = step.memory
    return {
        "index": step.index,
        "name": step.name,
        "kind": step.kind,
        "automatic": step.automatic,
        "action": step.action,
        "reason": step.reason,
        "stage_dir": str(step.stage_dir.path),
        "parent": step.parent,
        "input_model": step.input_model,
        "compare_with": step.compare_with,
        "rows": step.rows,
        "tokens": step.tokens,
        "batch": step.batch.model_dump() if step.batch else None,
        "memory": {**memory.terms, "total": memory.total} if memory else None,
        "num_parameters": memory.num_parameters if memory else None,
        "num_trained": memory.num_trained if memory else None,
        "other_models": memory.others if memory else None,
        "fits": step.fit.fits if step.fit else None,
        "changes": [list(change) for change in step.fit.changes] if step.fit else [],
        "argv": list(step.command.argv),
        "env": step.command.env,
        "fingerprint": step.fingerprint,
        "settings": step.stage.model_dump(mode="json", by_alias=True),
    }
