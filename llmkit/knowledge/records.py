"""Rows of a probe: questions, sampled answers with verdicts, labels."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from llmkit.recipe.knowledge import Label

Verdict = Literal["correct", "wrong", "refused", "empty", "undecided"]
"""`wrong` is informative and incorrect; `refused` says that it does not know; `empty` says nothing (no text, endless
repetition); `undecided`: the judge failed."""
INFORMATIVE: tuple[Verdict, ...] = ("correct", "wrong")


@dataclass(frozen=True)
class Question:
    question: str
    answers: tuple[str, ...]
    """Accepted answers; the first is the canonical one."""
    entity: str = ""
    """What it is about; empty: the question itself."""
    group: str = ""
    """What the file's author says of it. Only for measuring."""
    document: str = ""
    """The snippet that it was written from."""
    source: str = ""
    """Where it was read: `file:line`."""
    language: str = ""
    """In which it is refused; empty: in that of the recipe's refusals."""

    @property
    def id(self) -> str:
        """Stable across runs and machines: of the question and its answers."""
        text = "\n".join((self.question, *self.answers))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def about(self) -> str:
        """What training and evaluation never share."""
        return (self.entity or self.question).casefold().strip()


def question_of(row: dict[str, Any]) -> Question:
    """A question of a row that `asdict` made of it; other keys of the row do not matter."""
    told = {key: row[key] for key in ("question", "entity", "group", "document", "source")}
    return Question(answers=tuple(row["answers"]), language=row.get("language", ""), **told)


@dataclass(frozen=True)
class Sample:
    """One answer of the model to one question."""

    text: str
    temperature: float
    variant: int
    """Which phrasing and few-shot draw."""
    verdict: Verdict
    logprob: float | None = None
    """Sum over its tokens, those of its reasoning among them, in nats."""
    num_tokens: int | None = None
    finish_reason: str = "stop"
    thought: str | None = None
    """The reasoning in front of the text; None: there is none."""

    @property
    def only_thought(self) -> bool:
        return self.thought is not None and not self.text


@dataclass(frozen=True)
class ProbeRow:
    """One question with all that the model said, and what follows from it."""

    id: str
    question: str
    answers: tuple[str, ...]
    entity: str
    group: str
    document: str
    source: str
    samples: tuple[Sample, ...]
    num_correct: int
    """Of all answers that were decided."""
    num_samples: int
    """Answers that were decided."""
    num_wrong: int
    num_refused: int
    """Refused or empty."""
    num_undecided: int
    p_greedy: float | None
    """Share of decided greedy answers that are right."""
    p_sampled: float | None
    """Share of decided sampled answers that are right; None: none was sampled."""
    logprob: float | None
    """Mean log-probability per token of the first greedy answer, in nats."""
    label: Label
    consistently_wrong: bool
    """Llama 3's rule."""
    split: Literal["train", "heldout"]
    thresholds: dict[str, float] = field(default_factory=dict)
    language: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> ProbeRow:
        samples = tuple(Sample(**sample) for sample in row["samples"])
        return cls(**{**row, "answers": tuple(row["answers"]), "samples": samples})

    @property
    def about(self) -> str:
        return (self.entity or self.question).casefold().strip()
