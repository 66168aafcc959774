"""The recipe's prompts with every model's answer."""

from __future__ import annotations

from dataclasses import dataclass

from llmkit.artifacts.manifest import Sample
from llmkit.report.run import RunReport, StageReport


@dataclass(frozen=True)
class Answers:
    prompt: str
    answers: tuple[tuple[str, str], ...]
    """(stage, what its model wrote) in the order of the chain."""


def answers(report: RunReport) -> list[Answers]:
    found: dict[str, dict[str, str]] = {}
    for evaluation in sorted(report.evaluations, key=lambda stage: _place(report, stage)):
        for sample in _prompted(evaluation):
            found.setdefault(sample.prompt, {})[evaluation.measured] = sample.completion
    return [Answers(prompt, tuple(given.items())) for prompt, given in found.items()]


def other_samples(stage: StageReport) -> list[Sample]:
    """What a stage wrote that is not an answer to one of the recipe's prompts."""
    if stage.manifest is None:
        return []
    prompted = _prompted(stage) if stage.kind == "evaluate" else []
    return [sample for sample in stage.manifest.samples if sample not in prompted]


def _prompted(stage: StageReport) -> list[Sample]:
    if stage.manifest is None:
        return []
    asked = stage.manifest.settings.get("prompts") or []
    return [sample for sample in stage.manifest.samples if not asked or sample.prompt in asked]


def _place(report: RunReport, stage: StageReport) -> int:
    models = report.models
    return models.index(stage.measured) if stage.measured in models else len(models)
