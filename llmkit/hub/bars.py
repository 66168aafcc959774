"""Whether a model is good enough to be published."""

from __future__ import annotations

from difflib import get_close_matches

from llmkit.artifacts.manifest import EvalRow
from llmkit.errors import UserError
from llmkit.hub.subject import Subject
from llmkit.recipe.hub import Bars, holds


def below(subject: Subject, bars: Bars) -> list[str]:
    """In words, each bar that the model does not reach, or that nobody has measured."""
    rows = {(row.task, row.metric): row for row in subject.evals(subject.model.name)}
    asked = [(task, metric, bar) for task, metrics in bars.items() for metric, bar in metrics.items()]
    return [
        words
        for task, metric, bar in asked
        if (words := _words(rows.get((task, metric)), f"{task}.{metric}", bar, [".".join(key) for key in rows]))
    ]


def _words(row: EvalRow | None, name: str, bar: str, have: list[str]) -> str:
    if row is None:
        near = get_close_matches(name, have, n=1)
        return f"{name} was not measured, and its bar is {bar}" + (f" (did you mean '{near[0]}'?)" if near else "")
    if holds(bar, row.value):
        return ""
    interval = "" if row.low is None or row.high is None else f"; 95 % interval {row.low:.4g} to {row.high:.4g}"
    return f"{name} is {row.value:.4g} ({row.num_samples} samples{interval}), and its bar is {bar}"


def check_bars(subject: Subject, bars: Bars, despite: bool) -> list[str]:
    """Those that the model does not reach. Raises UserError where nobody said to publish all the same."""
    found = below(subject, bars)
    if found and not despite:
        cure = "train on, lower the bar, or publish all the same with --despite-bars"
        raise UserError(f"ship: '{subject.model.name}'", "is below the bar: " + "; ".join(found), cure)
    return found
