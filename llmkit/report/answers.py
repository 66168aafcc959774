"""The recipe's prompts with every model's answer."""

from __future__ import annotations

from dataclasses import dataclass

from llmkit.artifacts.manifest import Sample
from llmkit.report.run import RunReport, StageReport

_HEADINGS = {"kept answer": "Kept answers"}


@dataclass(frozen=True)
class SampleGroup:
    """Samples under one heading; `samples` holds (what is said of it, the sample)."""

    heading: str
    samples: tuple[tuple[str, Sample], ...]


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


def sample_groups(stage: StageReport) -> list[SampleGroup]:
    """A label of practice, such as `longest of the last steps: step 118, reward 1`, begins with its heading."""
    samples = other_samples(stage)
    if not (stage.practises or stage.kind == "best_of_n"):
        return [SampleGroup("", tuple((sample.label, sample) for sample in samples))] if samples else []
    found: dict[str, list[tuple[str, Sample]]] = {}
    for sample in samples:
        heading, _, told = sample.label.partition(": ")
        heading = _HEADINGS.get(heading, heading[:1].upper() + heading[1:])
        found.setdefault(heading, []).append((told, sample))
    return [SampleGroup(heading, tuple(group)) for heading, group in found.items()]


def _prompted(stage: StageReport) -> list[Sample]:
    if stage.manifest is None:
        return []
    asked = stage.manifest.settings.get("prompts") or []
    return [sample for sample in stage.manifest.samples if not asked or sample.prompt in asked]


def _place(report: RunReport, stage: StageReport) -> int:
    models = report.models
    return models.index(stage.measured) if stage.measured in models else len(models)
