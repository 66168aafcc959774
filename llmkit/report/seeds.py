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

from llmkit.artifacts.manifest import EvalRow
from llmkit.artifacts.rundir import RunDir
from llmkit.errors import UserError
from llmkit.report.collect import collect
from llmkit.report.compare import ResultLine, columns, headlines
from llmkit.report.numbers import value
from llmkit.report.run import RunReport

Key = tuple[str, str, str]
"""Model, task, metric."""


def over_runs(runs: Sequence[RunDir]) -> list[dict[str, Any]]:
    """{"stage", "task", "metric", "mean", "min", "max", "values"} of all that every run measured; `values` in the order
    of the runs. Raises UserError where they have nothing in common."""
    found = _values([collect(run) for run in runs])
    return [
        {**dict(zip(("stage", "task", "metric"), key, strict=True)), **_spread(values), "values": values}
        for key, values in found.items()
    ]


def print_over_runs(runs: Sequence[RunDir], console: Console) -> None:
    """What stands for every task, a column per model: mean (least to most)."""
    reports = [collect(run) for run in runs]
    found, first = _values(reports), reports[0]
    names = columns(first)
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("", *names):
        table.add_column(name, justify="right" if name else "left")
    for line in headlines(first):
        table.add_row(Text(f"{line.task} {line.metric}"), *(_cell(found, line, row) for row in line.cells))
    console.print(Text(f"{len(runs)} runs: mean (least to most)", style="bold"))
    console.print(table)


def _values(reports: Sequence[RunReport]) -> dict[Key, list[float]]:
    rows = [{(row.stage, row.task, row.metric): row.value for row in report.evals()} for report in reports]
    shared = {key: [each[key] for each in rows] for key in rows[0] if all(key in each for each in rows)}
    if not shared:
        names = ", ".join(report.name for report in reports)
        raise UserError(names, "have no evaluation in common", "give runs of one recipe")
    return shared


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": mean(values), "min": min(values), "max": max(values)}


def _cell(found: dict[Key, list[float]], line: ResultLine, row: EvalRow | None) -> str:
    values = found.get((row.stage, row.task, row.metric)) if row else None
    if values is None:
        return ""
    centre, low, high = (value(number, line.is_share) for number in _spread(values).values())
    return f"{centre} ({low} to {high})"
