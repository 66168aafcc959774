"""Answers of an honesty evaluation with their verdicts: `evals/<name>.jsonl`, and what the metrics keep of it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.artifacts.files import sha256_of
from llmkit.errors import RunError
from llmkit.evaluate.results import Document
from llmkit.knowledge.honesty import refusal_wording
from llmkit.knowledge.records import Question, Verdict


@dataclass(frozen=True)
class Answered(Document):
    """One question, as the model answered it. `metrics` has 0 or 1 for accuracy, hallucination and refusal_rate; it is
    empty for an answer that was left undecided."""

    id: str
    """Of the question and its accepted answers."""
    verdict: Verdict
    confidence: float | None
    """exp of the mean log-probability of the answer's tokens."""
    group: str = ""
    entity: str = ""
    label: str = ""
    """SliCK's, where a probe asked the question."""
    thought: str | None = None
    """The reasoning in front of the completion; None: there is none."""

    @property
    def judged(self) -> Judged:
        # names that many questions share are one string
        group, label = sys.intern(self.group), sys.intern(self.label)
        wording = refusal_wording(self.completion, self.entity) if self.verdict == "refused" else ""
        return Judged(self.id, self.verdict, self.confidence, group, label, bool(self.target), sys.intern(wording))


@dataclass(frozen=True, slots=True)
class Judged:
    """What the metrics need of an answered question: some 200 bytes. Its texts stay on disk."""

    id: str
    verdict: Verdict
    confidence: float | None = None
    group: str = ""
    label: str = ""
    has_answers: bool = True
    refusal: str = ""
    """The wording of a refusal, without the entity."""


def read_answered(folder: Path, name: str) -> list[Judged] | None:
    """What the metrics need of an earlier evaluation; None if it did not have this one. Raises as `answered_rows`."""
    path = folder / f"{name}.jsonl"
    return [row.judged for row in answered_rows(path)] if path.is_file() else None


def answered_rows(path: Path) -> Iterator[Answered]:
    """Rows of `evals/<name>.jsonl`, one at a time.

    Raises:
        RunError: the file was written by another version, or is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield Answered(**json.loads(line))
    except (ValueError, TypeError) as error:
        cure = f"delete {path.parent.parent} to run that evaluation again"
        raise RunError(str(path), f"does not hold answers of this version ({error})", cure) from None


def questions_sha256(answered: Sequence[Judged]) -> str:
    """Of the questions with their accepted answers, in any order."""
    return sha256_of(sorted(a.id for a in answered))


def answered_of(
    place: int, question: Question, label: str, prompt: str, answer: dict[str, Any], verdict: Verdict
) -> Answered:
    """A row of `evals/<name>.jsonl`, from the answer that `llmkit.knowledge.answering` wrote."""
    return Answered(
        doc_id=place,
        prompt=prompt,
        target=" | ".join(question.answers),
        completion=answer["text"],
        metrics=metrics_of(verdict),
        id=question.id,
        verdict=verdict,
        confidence=_confidence(answer),
        group=question.group,
        entity=question.entity,
        label=label,
        thought=answer["thought"],
    )


def _confidence(answer: dict[str, Any]) -> float | None:
    """exp of the mean log-probability of the answer's tokens, its stop token among them."""
    if answer["logprob"] is None or not answer["num_tokens"]:
        return None
    return min(1.0, math.exp(answer["logprob"] / answer["num_tokens"]))


def metrics_of(verdict: Verdict) -> dict[str, float]:
    """What `Answered.metrics` holds."""
    if verdict == "undecided":
        return {}
    kinds = {"accuracy": "correct", "hallucination": "wrong", "refusal_rate": "refused"}
    return {name: float(verdict == kind) for name, kind in kinds.items()}
