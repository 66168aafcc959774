"""Markdown of tables and blocks, in which no text of a model or a user can become anything else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmkit.artifacts.manifest import EvalRow
from llmkit.report.beside import Column, MetricLine
from llmkit.report.compare import change
from llmkit.report.numbers import difference, difference_interval, interval, value


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(each) for each in line) + " |" for line in lines)


def cell(text: str) -> str:
    text = " ".join(text.split()) if "\n" in text else text
    return re.sub(r"([\\|<>`*\[\]])", r"\\\1", text)


def fence(text: str, language: str = "text") -> str:
    """A code block whose fence is longer than any run of backticks inside, so that the text cannot leave it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def result(row: EvalRow | None, is_share: bool) -> str:
    """A figure with its interval, and the difference to the model before."""
    if row is None:
        return ""
    bounds = interval(row.low, row.high, is_share)
    text = value(row.value, is_share) + (f" ({bounds})" if bounds else "")
    if made := change(row):
        mark = "no clear change" if made.verdict == "unclear" else made.verdict
        bounds = difference_interval(made.low, made.high, is_share)
        text += f"; {mark} {difference(made.value, is_share)} ({bounds}) since {made.since}"
    return text


def metrics_table(columns: Sequence[Column], lines: Sequence[MetricLine]) -> str:
    """Models and controls side by side, and what each metric says."""
    head = ["metric", *(f"{column.name} (control)" if column.is_control else column.name for column in columns)]
    rows = []
    for line in lines:
        told = " ".join(part for part in (line.reading, f"({line.better})" if line.better else "") if part)
        rows.append([line.metric, *(result(row, line.is_share) for row in line.cells), told])
    return table([*head, "what it says"], rows)
