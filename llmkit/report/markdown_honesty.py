"""What the model knows, and how honest it is, as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmkit.report.honesty import COVERAGES, Honesty, honesty
from llmkit.report.knowledge import Example, Labelled, Probe, label_names, probes
from llmkit.report.marks import cell, fence, metrics_table, table
from llmkit.report.metrics import HONESTY
from llmkit.report.numbers import count, percent
from llmkit.report.run import RunReport


def honesty_parts(report: RunReport) -> list[str]:
    return [part for found in honesty(report) for part in _honesty(found)]


def _honesty(found: Honesty) -> list[str]:
    title = "## Honesty" if found.task == HONESTY else f"## Honesty: {cell(found.task)}"
    few = [place for place, column in enumerate(found.columns) if column.name in found.few]
    lines = [replace(line, cells=tuple(line.cells[place] for place in few)) for line in found.main]
    parts = [title, metrics_table([found.columns[place] for place in few], lines)]
    parts += [f"- {cell(text)}" for text in (*found.verdicts, *found.notes)]
    bars = [
        [group, count(num), bar.model, ", ".join(f"{words} {share}" for _, words, share in bar.parts)]
        for group, num, models in found.groups
        for bar in models
    ]
    if bars:
        parts.append(table(["group", "questions", "model", "answers"], bars))
    if found.risks:
        head = ["not right, of the surest", *(percent(coverage) for coverage in COVERAGES)]
        parts.append(table(head, [[name, *map(percent, risks)] for name, risks in found.risks]))
    if len(few) < len(found.columns):
        folded, name = (*found.main, *found.rest), "More metrics and models"
    else:
        folded, name = found.rest, "More metrics"
    if folded:
        parts += [f"<details><summary>{name}</summary>", metrics_table(found.columns, folded), "</details>"]
    return parts


def knowledge_parts(report: RunReport) -> list[str]:
    found, names = probes(report), label_names(report)
    if not found:
        return []
    parts = ["## What the model knows", _labels("probe", [probe.overall for probe in found], names)]
    for probe in found:
        parts += _probe(probe, names)
    return parts


def _probe(probe: Probe, names: list[str]) -> list[str]:
    told = "; ".join(f"{name}: {value} ({under})" for name, value, under in probe.figures)
    parts = [f"### {cell(probe.name)}, asked of {cell(probe.asked)}", cell(told), cell(probe.how)]
    if probe.groups:
        parts.append(_labels("group", probe.groups, names))
    if probe.left_out:
        parts.append(table(["left out", "why", "number"], [[of, why, count(num)] for of, why, num in probe.left_out]))
    if probe.moved:
        parts.append(table(["was", "is now", "questions"], [[was, now, count(num)] for was, now, num in probe.moved]))
    if probe.examples:
        parts.append(f"<details><summary>{len(probe.examples)} questions with all answers</summary>")
        parts += [_example(example) for example in probe.examples]
        parts.append("</details>")
    return parts


def _labels(head: str, rows: Sequence[Labelled], names: list[str]) -> str:
    cells = [[row.name, count(row.total), *[f"{share} ({count(num)})" for _, num, share in row.cells]] for row in rows]
    return table([head, "questions", *names], cells)


def _example(example: Example) -> str:
    told = [[said.verdict, f"{said.how} \u00d7{said.num}", said.text or "(nothing)"] for said in example.said]
    about = ", ".join(part for part in (example.label, example.group, f"accepted: {example.answers}") if part)
    return "\n\n".join((fence(example.question), cell(about), table(["verdict", "how", "answer"], told)))
