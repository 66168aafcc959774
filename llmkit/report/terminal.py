"""A few lines at the end of `llmkit run`."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from llmkit.artifacts.manifest import EvalRow
from llmkit.artifacts.rundir import RunDir
from llmkit.report.answers import answers
from llmkit.report.collect import collect
from llmkit.report.compare import ResultLine, change, columns
from llmkit.report.numbers import value
from llmkit.report.words import final_figures, summary
from llmkit.visible import visible

# A no-break space keeps the column straight: rich strips ordinary ones at the end of a cell.
_ARROWS = {"up": " \u2191", "down": " \u2193", "unclear": "\u00a0\u00a0"}
_COLOURS = {"better": "green", "worse": "red", "neutral": "bold"}


def print_summary(run: RunDir, console: Console) -> None:
    """How long the chain took, what the final model reaches, where the report lies."""
    report = collect(run)
    console.print(Text(f"{report.name}: {summary(report)}", style="bold"))
    figures = final_figures(report)
    if figures:
        console.print(_table(columns(report), figures))
    for stage in report.stages:
        for warning in stage.warnings:
            console.print(Text(f"  {stage.name}: {visible(warning)}", style="yellow"))
    if run.report.is_file():
        console.print(Text(f"Report: {run.report}"), soft_wrap=True)


def print_answers(run: RunDir, console: Console) -> None:
    """The recipe's prompts: the first model's answer beside the final one's."""
    for item in answers(collect(run)):
        console.print(Text(f"\n{visible(item.prompt)}", style="bold"))
        ends = item.answers if len(item.answers) < 2 else (item.answers[0], item.answers[-1])
        table = Table(box=None, padding=(0, 2), expand=True, header_style="dim")
        for stage, _ in ends:
            table.add_column(stage, ratio=1, overflow="fold")
        table.add_row(*(Text(visible(text.strip()) or "(nothing)") for _, text in ends))
        console.print(table)


def _table(names: list[str], figures: list[ResultLine]) -> Table:
    """A row per task, a column per model; an arrow marks a clear change."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("", *names):
        table.add_column(name, justify="right" if name else "left")
    for line in figures:
        cells = [_cell(row, line.is_share) for row in line.cells]
        table.add_row(f"{escape(line.task)} [dim]{escape(line.words)}[/]", *cells)
    return table


def _cell(row: EvalRow | None, is_share: bool) -> Text:
    if row is None:
        return Text("")
    made = change(row)
    arrow = _ARROWS[made.verdict if made else "unclear"]
    return Text(
        value(row.value, is_share) + arrow, style=_COLOURS[made.colour] if made and made.verdict != "unclear" else ""
    )
