"""One recipe run with several seeds: every figure's mean and range over the runs.

The interval of an evaluation says how much its questions may mislead; the range says how much a training may.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmkit.artifacts.rundir import RunDir
from llmkit.errors import UserError
from llmkit.report.collect import collect
from llmkit.report.compare import ResultLine, columns, headlines, result_lines
from llmkit.report.heldout import PREFIX, WHEN, is_share, split
from llmkit.report.metrics import ACCURACY, budget, is_between
from llmkit.report.numbers import value
from llmkit.report.run import RunReport, StageReport

Key = tuple[str, str, str]
"""Model or stage, task or held-out set, metric."""
SHOWN = (ACCURACY, "num_tokens")
"""Of held-out problems, on a terminal."""
_WITH_NUMBERS = ("best_of_n", "rank", "reward")
"""Kinds, beside practice, whose own numbers are compared."""


def over_runs(runs: Sequence[RunDir]) -> list[dict[str, Any]]:
    """{"stage", "task", "metric", "mean", "min", "max", "values"} of all that every run measured; `values` in the order
    of the runs.

    Of a stage that practises or samples its own numbers are among them: those of held-out problems have the task
    `heldout/<set>` and a metric such as `after/accuracy`; the others have the kind of the stage as task.

    Raises:
        UserError: they have nothing in common.
    """
    found = _values([collect(run) for run in runs])
    return [
        {**dict(zip(("stage", "task", "metric"), key, strict=True)), **_spread(values), "values": values}
        for key, values in found.items()
    ]


def print_over_runs(runs: Sequence[RunDir], console: Console) -> None:
    """What stands for every task, a column per model, and held-out problems before and after practice: mean (least to
    most)."""
    reports = [collect(run) for run in runs]
    found, first = _values(reports), reports[0]
    console.print(Text(f"{len(runs)} runs: mean (least to most)", style="bold"))
    names = columns(first)
    if lines := _lines(first):
        table = _table(["", *names])
        for line in lines:
            cells = [_cell(found.get((name, line.task, line.metric)), line.is_share) for name in names]
            table.add_row(Text(f"{line.task} {line.metric}"), *cells)
        console.print(table)
    held = list(dict.fromkeys((stage, task) for stage, task, _ in found if task.startswith(PREFIX)))
    if held:
        table = _table(["held-out problems", "before", "after"])
        for stage, task in held:
            for metric in SHOWN:
                values = [found.get((stage, task, f"{when}/{metric}")) for when in WHEN]
                cells = [_cell(each, is_share(metric)) for each in values]
                if any(cells):
                    table.add_row(Text(f"{stage}: {task.removeprefix(PREFIX)} {metric}"), *cells)
        console.print(table)


def _table(head: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left")
    return table


def _lines(report: RunReport) -> list[ResultLine]:
    """What stands for every task; of problems also what many answers reach."""
    main, every = headlines(report), result_lines(report)
    metrics = {task: [line.metric for line in every if line.task == task] for task in report.problem_tasks}

    def is_shown(line: ResultLine) -> bool:
        found = budget(line.metric) if line.task in metrics else None
        return line in main or (found is not None and found[1] > 1 and not is_between(line.metric, metrics[line.task]))

    return [line for line in every if is_shown(line)]


def _values(reports: Sequence[RunReport]) -> dict[Key, list[float]]:
    rows = [_rows(report) for report in reports]
    shared = {key: [each[key] for each in rows] for key in rows[0] if all(key in each for each in rows)}
    if not shared:
        names = ", ".join(report.name for report in reports)
        raise UserError(names, "have no evaluation in common", "give runs of one recipe")
    return shared


def _rows(report: RunReport) -> dict[Key, float]:
    found = {(row.stage, row.task, row.metric): row.value for row in report.evals()}
    for stage in report.chain:
        if stage.practises or stage.kind in _WITH_NUMBERS:
            found |= _own(stage)
    return found


def _own(stage: StageReport) -> dict[Key, float]:
    """A stage's own numbers, without the bounds of their intervals."""
    found: dict[Key, float] = {}
    metrics = stage.manifest.metrics if stage.manifest else {}
    for key, number in metrics.items():
        if place := split(key):
            name, when, metric = place
            found[stage.name, f"{PREFIX}{name}", f"{when}/{metric}"] = number
        elif key.endswith(("_low", "_high")) and key.rpartition("_")[0] in metrics:
            continue
        elif not key.startswith(PREFIX) or stage.kind == "reward":
            found[stage.name, stage.kind, key] = number
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": mean(values), "min": min(values), "max": max(values)}


def _cell(values: Sequence[float] | None, shares: bool) -> str:
    if values is None:
        return ""
    centre, low, high = (value(number, shares) for number in _spread(values).values())
    return f"{centre} ({low} to {high})"
