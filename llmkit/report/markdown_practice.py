"""Practice and evaluations on problems, as markdown."""

from __future__ import annotations

from collections.abc import Sequence

from llmkit.artifacts.manifest import Manifest
from llmkit.report.answers import sample_groups
from llmkit.report.heldout import HeldoutLine, is_share
from llmkit.report.marks import cell, fence, metrics_table, table
from llmkit.report.metrics import PROBLEMS
from llmkit.report.numbers import number, value
from llmkit.report.practice import MAIN, attempts, measured, names_of, practised
from llmkit.report.problems import Solving, solving
from llmkit.report.run import RunReport, StageReport


def problem_parts(report: RunReport) -> list[str]:
    return [part for found in solving(report) for part in _solving(found)]


def _solving(found: Solving) -> list[str]:
    title = "## Problems" if found.task == PROBLEMS else f"## Problems: {cell(found.task)}"
    parts = [title, metrics_table(found.columns, found.main), *(f"- {cell(text)}" for text in found.verdicts)]
    if found.rest:
        parts += ["<details><summary>More budgets</summary>", metrics_table(found.columns, found.rest), "</details>"]
    if found.thinking:
        parts += ["### Accuracy against reasoning", metrics_table(found.columns, found.thinking)]
    if found.levels:
        parts += [f"### Accuracy by {cell(found.by)}", metrics_table(found.columns, found.levels)]
    return parts


def practice_parts(report: RunReport, stage: StageReport) -> list[str]:
    """What a practice stage, or rejection sampling, has that others have not."""
    parts = [_steps(stage, name) for name in names_of(stage)] if stage.practises else []
    if found := practised(report, stage):
        parts.append(heldout_table("held-out problems", [*found.lines, *found.rest], found.controls))
    if stage.manifest and stage.kind == "best_of_n":
        parts += _attempts(stage.manifest)
    if stage.practises or stage.kind == "best_of_n":
        parts += _rollouts(stage)
    return parts


def heldout_table(title: str, lines: Sequence[HeldoutLine], controls: Sequence[str] = ()) -> str:
    if not lines:
        return ""
    rows = [
        [f"{line.name}, {line.size}" if line.size else line.name, line.key, str(line.before), str(line.after)]
        + [str(other) for other in line.beside]
        for line in lines
    ]
    return table([title, "", "before", "after", *(f"after {name} (control)" for name in controls)], rows)


def _steps(stage: StageReport, name: str) -> str:
    """The two curves of a held-out set, step by step."""
    found = {metric: measured(stage).get(f"{name}/{metric}", {}) for metric in MAIN}
    told = {metric: {at: value(y, is_share(metric)) for at, y in points.items()} for metric, points in found.items()}
    steps = sorted({step for points in found.values() for step in points})
    rows = [[number(step), *(points.get(step, "") for points in told.values())] for step in steps]
    return table([f"step, {name}", "accuracy", "tokens of an answer"], rows)


def _attempts(made: Manifest) -> list[str]:
    found = attempts(made)
    if found is None:
        return []
    return [table(["k", *map(str, found.ks)], [[name, *shares] for _, name, shares in found.rows])]


def _rollouts(stage: StageReport) -> list[str]:
    groups = sample_groups(stage)
    if not groups:
        return []
    parts = ["<details><summary>Answers to read</summary>"]
    for group in groups:
        for told, sample in group.samples:
            about = f"{group.heading}: {told}" if told else group.heading
            parts += [f"{cell(about)}\n\n{fence(sample.prompt)}\n\n{fence(sample.completion or '(nothing)')}"]
    return [*parts, "</details>"]
