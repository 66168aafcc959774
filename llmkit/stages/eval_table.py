"""What `llmkit eval` prints: figures with intervals, and which differences between two models are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from llmkit.evaluate.versus import ALPHA, Difference

COLOURS = {"better": "green", "worse": "red", "noise": "dim"}


def print_results(console: Console, names: Sequence[str], results: Sequence[Sequence[dict[str, Any]]]) -> None:
    """One line for each task and metric, a column for each model."""
    table = _table(["task", "metric", "shots", "documents", *names], num_texts=2)
    others = [{(row["task"], row["metric"]): row for row in rows} for rows in results[1:]]
    for row in results[0]:
        same = [found.get((row["task"], row["metric"])) for found in others]
        shots = "" if row["num_fewshot"] is None else str(row["num_fewshot"])
        values = [_figure(each) for each in (row, *same)]
        table.add_row(row["task"], row["metric"], shots, f"{row['num_samples']:,}", *values)
    console.print(table)


def print_differences(console: Console, names: Sequence[str], found: Sequence[Difference]) -> None:
    """The first model minus the second, over the documents that both answered."""
    if not found:
        console.print("no figure can be compared document by document")
        return
    table = _table(["task", "metric", "difference", "95 %", "p", "corrected", ""], num_texts=2)
    for each in found:
        interval = "" if each.low is None or each.high is None else f"{each.low:+.3f} to {each.high:+.3f}"
        figures = (f"{each.delta:+.3f}", interval, f"{each.p_value:.2g}", f"{each.p_adjusted:.2g}")
        colour = COLOURS[each.verdict]
        table.add_row(each.task, each.metric, *figures, f"[{colour}]{each.verdict}[/{colour}]")
    console.print(f"\n{names[0]} against {names[1]}", markup=False)
    console.print(table)
    num = sum(each.verdict != "noise" for each in found)
    line = (
        f"{num} of {len(found)} differences are more than chance (paired tests, {ALPHA:.0%} for all figures together)"
    )
    console.print(line, style="dim")


def _figure(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    interval = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['value']:.3f}{interval}"


def _table(columns: Sequence[str], *, num_texts: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < num_texts else "right")
    return table
