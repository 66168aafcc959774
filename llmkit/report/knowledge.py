"""What interrogations found: labels over all questions and by group, what moved, ten questions with all answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from llmkit.artifacts.manifest import ProbeExample, ProbeSummary
from llmkit.report.numbers import count, number, percent
from llmkit.report.run import RunReport, StageReport
from llmkit.report.svg import Part, stacked_bar

LABELS = {
    "HighlyKnown": "every greedy answer is right",
    "MaybeKnown": "greedy answers are right at times",
    "WeaklyKnown": "no greedy answer is right, but a sampled one is",
    "Unknown": "no answer is right",
    "Undecided": "the judge left too many answers open",
}
"""SliCK's classes (Gekhman et al. 2024, section 3), and one for what the judge could not tell."""
_LEFT_OUT = ("documents", "snippets", "written", "questions")
_VERDICTS = {"correct": "right", "wrong": "wrong", "refused": "refused"}
_MOST = 280
_UNGROUPED = "(no group)"


@dataclass(frozen=True)
class Labelled:
    """How many questions have each label; `cells` holds (label, number, share) in the order of the columns."""

    name: str
    total: int
    cells: tuple[tuple[str, int, str], ...]
    bar: Markup


@dataclass(frozen=True)
class Said:
    """What the model answered, and how often in these words."""

    text: str
    verdict: str
    css: str
    how: str
    num: int


@dataclass(frozen=True)
class Example:
    question: str
    answers: str
    label: str
    css: str
    group: str
    said: tuple[Said, ...]


@dataclass(frozen=True)
class Probe:
    """One interrogation.

    Attributes:
        moved: (label before, label now, questions), the most frequent first.
    """

    name: str
    asked: str
    """Stage whose model was asked."""
    overall: Labelled
    groups: tuple[Labelled, ...]
    figures: tuple[tuple[str, str, str], ...]
    """(name, value, what stands under it)"""
    how: str
    left_out: tuple[tuple[str, str, int], ...]
    """(of what, why, how many), the most frequent first."""
    moved: tuple[tuple[str, str, int], ...]
    examples: tuple[Example, ...]


def probes(report: RunReport) -> list[Probe]:
    """All finished interrogations, in the order of the chain."""
    names = label_names(report)
    return [
        _probe(stage, stage.manifest.probe, names) for stage in report.chain if stage.manifest and stage.manifest.probe
    ]


def label_names(report: RunReport) -> list[str]:
    """SliCK's labels, then what else was given to a question."""
    given = [stage.manifest.probe for stage in report.chain if stage.manifest and stage.manifest.probe]
    used = {
        label
        for probe in given
        for counts in (probe.labels, *probe.by_group.values())
        for label, num in counts.items()
        if num
    }
    return [*(label for label in LABELS if label != "Undecided" or label in used), *sorted(used - set(LABELS))]


def css_of(label: str) -> str:
    return f"label-{label}" if label in LABELS else "label-other"


def _probe(stage: StageReport, found: ProbeSummary, names: Sequence[str]) -> Probe:
    groups = tuple(_labelled(group or _UNGROUPED, counts, names) for group, counts in found.by_group.items())
    return Probe(
        name=stage.name,
        asked=stage.parent or "base",
        overall=_labelled(stage.name, found.labels, names),
        groups=groups,
        figures=_figures(found),
        how=_how(stage.settings),
        left_out=_left_out(stage.manifest.metrics if stage.manifest else {}),
        moved=_moved(found.moved),
        examples=tuple(_example(example) for example in found.examples),
    )


def _labelled(name: str, counts: Mapping[str, int], names: Sequence[str]) -> Labelled:
    total = sum(counts.values())
    cells = tuple((label, counts.get(label, 0), percent(counts.get(label, 0) / (total or 1))) for label in names)
    told = ", ".join(f"{label} {share}" for label, num, share in cells if num)
    bar = stacked_bar(f"{name}: {told or 'no questions'}", [Part(css_of(label), num) for label, num, _ in cells])
    return Labelled(name, total, cells, bar)


def _figures(found: ProbeSummary) -> tuple[tuple[str, str, str], ...]:
    per_question = found.num_answers / found.num_questions if found.num_questions else 0.0
    return (
        ("questions", count(found.num_questions), f"{number(per_question)} answers to each"),
        (
            "consistently wrong",
            count(found.num_consistently_wrong),
            f"{percent(found.num_consistently_wrong / (found.num_questions or 1))} of the questions, by Llama 3's rule",
        ),
        (
            "answers left undecided",
            count(found.num_undecided),
            f"{percent(found.num_undecided / (found.num_answers or 1))} of {count(found.num_answers)}",
        ),
    )


def _how(settings: Mapping[str, Any]) -> str:
    """How it was asked, and where the labels' thresholds lie; what the manifest does not tell is left out."""
    ask, limits = _mapping(settings.get("ask")), _mapping(settings.get("thresholds"))
    judge = _mapping(settings.get("judge")).get("by")
    told = []
    if ask:
        variants = len(ask.get("phrasings") or [""]) * (ask.get("num_variants") or 1)
        wordings = "once greedily" if variants == 1 else f"greedily in {variants} variants"
        fewshot = f", after {ask['num_fewshot']} answered examples" if ask.get("num_fewshot") else ""
        sampled = f", and {_times(ask.get('num_samples') or 0)} at temperature {ask.get('temperature')}"
        told.append(f"Each question is asked {wordings}{sampled if ask.get('num_samples') else ''}{fewshot}.")
    if judge:
        told.append(f"Judge: {judge}.")
    words = {
        "highly_known": "HighlyKnown from {} of the greedy answers right",
        "consistently_wrong": "consistently wrong from {} of all answers informative and wrong, with none right",
        "min_decided": "Undecided below {} of the answers decided",
    }
    limits_told = [text.format(percent(limits[key])) for key, text in words.items() if key in limits]
    return " ".join([*told, f"Thresholds: {'; '.join(limits_told)}." if limits_told else ""]).strip()


def _times(number: int) -> str:
    return "once" if number == 1 else f"{count(number)} times"


def _left_out(metrics: Mapping[str, float]) -> tuple[tuple[str, str, int], ...]:
    found = [(*why, int(num)) for key, num in metrics.items() if num and (why := why_left_out(key))]
    return tuple(sorted(found, key=lambda one: -one[2]))


def why_left_out(metric: str) -> tuple[str, str] | None:
    """`questions_empty_answer` -> ("questions", "empty answer"); None for a metric that counts something else."""
    of, _, why = metric.partition("_")
    return (of, why.replace("_", " ")) if of in _LEFT_OUT and why not in ("read", "per_second") else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _moved(moved: Mapping[str, int]) -> tuple[tuple[str, str, int], ...]:
    rows = []
    for key, num in moved.items():
        before, _, now = key.partition("->")
        rows.append((before.strip(), now.strip(), num))
    return tuple(sorted(rows, key=lambda row: -row[2]))


def _example(example: ProbeExample) -> Example:
    """Answers that are the same in every respect are told once, with their number."""
    same = Counter((shown.text.strip(), shown.verdict, shown.temperature) for shown in example.shown)
    said = tuple(
        Said(
            text=cut(text),
            verdict=verdict,
            css=_VERDICTS.get(verdict, "none"),
            how="greedy" if temperature == 0 else f"T = {temperature:g}",
            num=num,
        )
        for (text, verdict, temperature), num in same.items()
    )
    answers = cut("; ".join(example.answers))
    return Example(cut(example.question), answers, example.label, css_of(example.label), example.group, said)


def cut(text: str, most: int = _MOST) -> str:
    """The beginning of a long text, with the number of characters that are left out."""
    return text if len(text) <= most else f"{text[:most].rstrip()}\u2026 ({count(len(text) - most)} more characters)"
