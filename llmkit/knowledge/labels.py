"""Verdicts -> a label for each question.

SliCK (Gekhman et al. 2024, section 3), with p_greedy and p_sampled the shares of right answers at T = 0 and T > 0:

    HighlyKnown   p_greedy = 1 (or at least the recipe's `highly_known`)
    MaybeKnown    0 < p_greedy < 1
    WeaklyKnown   p_greedy = 0, p_sampled > 0
    Unknown       never right

Llama 3 (section 4.3.6): a question whose answers are consistently informative and wrong gets a refusal.
An answer that the judge left undecided counts nowhere; a question with too few decided ones is Undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from llmkit.knowledge.records import ProbeRow, Question, Sample
from llmkit.recipe.knowledge import Label, ThresholdSpec

EPSILON = 1e-9
"""Shares are quotients of small whole numbers: 0.75 must reach 0.75."""


def probe_row(
    question: Question, samples: Sequence[Sample], thresholds: ThresholdSpec, split: Literal["train", "heldout"]
) -> ProbeRow:
    """One question with its answers, counted and labelled."""
    decided = [sample for sample in samples if sample.verdict != "undecided"]
    counts = {verdict: sum(s.verdict == verdict for s in decided) for verdict in ("correct", "wrong")}
    p_greedy = share_right([sample for sample in decided if sample.temperature == 0])
    p_sampled = share_right([sample for sample in decided if sample.temperature > 0])
    enough = len(decided) >= thresholds.min_decided * len(samples) - EPSILON
    wrong_enough = counts["wrong"] >= thresholds.consistently_wrong * len(decided) - EPSILON
    return ProbeRow(
        id=question.id,
        question=question.question,
        answers=question.answers,
        entity=question.entity,
        group=question.group,
        document=question.document,
        source=question.source,
        samples=tuple(samples),
        num_correct=counts["correct"],
        num_samples=len(decided),
        num_wrong=counts["wrong"],
        num_refused=len(decided) - counts["correct"] - counts["wrong"],
        num_undecided=len(samples) - len(decided),
        p_greedy=p_greedy,
        p_sampled=p_sampled,
        logprob=mean_logprob(samples),
        label=slick(p_greedy, p_sampled, thresholds.highly_known) if enough else "Undecided",
        consistently_wrong=enough and bool(decided) and not counts["correct"] and wrong_enough,
        split=split,
        thresholds=thresholds.model_dump(),
        language=question.language,
    )


def slick(p_greedy: float | None, p_sampled: float | None, highly_known: float = 1.0) -> Label:
    """The table above. Without a decided greedy answer there is no label."""
    if p_greedy is None:
        return "Undecided"
    if p_greedy >= highly_known - EPSILON:
        return "HighlyKnown"
    if p_greedy > 0:
        return "MaybeKnown"
    return "WeaklyKnown" if p_sampled else "Unknown"


def share_right(decided: Sequence[Sample]) -> float | None:
    """None: there is none to judge by."""
    return sum(sample.verdict == "correct" for sample in decided) / len(decided) if decided else None


def mean_logprob(samples: Sequence[Sample]) -> float | None:
    """Mean log-probability per token of the first greedy answer, in nats; None where the engine gives none."""
    first = next((sample for sample in samples if sample.temperature == 0), None)
    return first.logprob / first.num_tokens if first and first.logprob is not None and first.num_tokens else None
