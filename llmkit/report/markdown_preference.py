"""Preferences as markdown: evaluations, reward models, and what a guard saw."""

from __future__ import annotations

from llmkit.report.guard import Watch, guarded
from llmkit.report.marks import cell, metrics_table, table
from llmkit.report.metrics import PREFERENCE
from llmkit.report.preference import Preference, preferences
from llmkit.report.rewarding import rewarding
from llmkit.report.run import RunReport, StageReport


def preference_parts(report: RunReport) -> list[str]:
    return [part for found in preferences(report) for part in _preference(found)]


def _preference(found: Preference) -> list[str]:
    title = "## Preference" if found.task == PREFERENCE else f"## Preference: {cell(found.task)}"
    parts = [title, cell(found.how), metrics_table(found.columns, found.main)]
    parts += [f"- {cell(text)}" for text in found.verdicts]
    if found.gaps:
        parts += ["### Can RLHF pay?", *(f"- {cell(text)}" for text in found.gaps)]
        parts.append(metrics_table(found.columns, found.knows))
    if found.best:
        names = [f"gold of {column.name}{' (control)' if column.is_control else ''}" for column in found.columns]
        parts.append(
            table(["best of n", "KL", *names], [[str(row.n), row.kl, *map(_cell, row.cells)] for row in found.best])
        )
    if found.rest:
        parts += ["<details><summary>More metrics</summary>", metrics_table(found.columns, found.rest), "</details>"]
    return parts


def _cell(told: tuple[str, str]) -> str:
    return f"{told[0]} ({told[1]})" if told[1] else told[0]


def stage_parts(report: RunReport, stage: StageReport) -> list[str]:
    """What a reward model, or training against one, has that other stages have not."""
    return [*_reward_model(report, stage), *_guard(report, stage)]


def _reward_model(report: RunReport, stage: StageReport) -> list[str]:
    found = rewarding(report, stage)
    if found is None:
        return []
    parts = [cell(" ".join(found.told)), metrics_table(found.columns, [*found.main, *found.rest])]
    for name, gaps in found.gaps:
        rows = [[gap.places, f"{gap.share} ({gap.bounds})" if gap.bounds else gap.share] for gap in gaps]
        parts.append(table([f"pairs of {name}", "in the raters' order"], rows))
    if found.points:
        parts.append(table(["prompts ranked", "pair accuracy"], found.points))
    return parts


def _guard(report: RunReport, stage: StageReport) -> list[str]:
    found = guarded(report, stage)
    if found is None:
        return []
    parts = [part for watch in (found.own, *found.twins) for part in _watch(watch, watch is not found.own)]
    return [*parts, table(found.head, found.rows)]


def _watch(found: Watch, is_control: bool) -> list[str]:
    name = f"Control {cell(found.name)}: " if is_control else ""
    return [f"**{name}{cell(found.title)}**", *(f"- {cell(text)}" for text in found.told)]
