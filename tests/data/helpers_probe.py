"""Probes made by hand: rows with chosen labels, on disk as an interrogation leaves them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llmkit.artifacts.rundir import StageDir
from llmkit.knowledge.labels import probe_row
from llmkit.knowledge.probe import ROWS, ProbeInfo, write_info
from llmkit.knowledge.records import ProbeRow, Question, Sample, Verdict
from llmkit.knowledge.store import writing
from llmkit.recipe.knowledge import ThresholdSpec
from llmkit.recipe.stages_knowledge import RefusalsStage

MODEL = "fingerprint-of-sft"


def sample(text: str, verdict: Verdict, temperature: float = 0.0, **extra: Any) -> Sample:
    return Sample(text=text, temperature=temperature, variant=0, verdict=verdict, **extra)


def row(
    question: str, answers: str | Sequence[str], samples: Sequence[Sample], *, entity: str = "", document: str = "",
    split: Any = "train",
) -> ProbeRow:  # fmt: skip
    accepted = (answers,) if isinstance(answers, str) else tuple(answers)
    asked = Question(question, accepted, entity=entity, document=document)
    return probe_row(asked, samples, ThresholdSpec(), split)


def known(question: str, answer: str, entity: str = "", **extra: Any) -> ProbeRow:
    """HighlyKnown; says its answer in a sentence."""
    said = [sample(f"It is {answer}.", "correct"), sample(answer, "correct", 0.7)]
    return row(question, answer, said, entity=entity, **extra)


def unknown(question: str, answer: str, entity: str = "", **extra: Any) -> ProbeRow:
    """Unknown, and consistently wrong."""
    return row(
        question, answer, [sample("Nowhere", "wrong"), sample("Elsewhere", "wrong", 0.7)], entity=entity, **extra
    )


def refusing(question: str, answer: str, entity: str = "") -> ProbeRow:
    """As a model answers that was taught to refuse."""
    return row(
        question, answer, [sample("I do not know.", "refused"), sample("No idea.", "refused", 0.7)], entity=entity
    )


def people(kind: Any, num: int, first: int = 0, question: str = "Where was {} born?") -> list[ProbeRow]:
    """One question each about `num` people, whose names hold no digit."""
    names = [name(number) for number in range(first, first + num)]
    return [kind(question.format(who), f"Town{index % 50}", who) for index, who in enumerate(names)]


def name(number: int) -> str:
    letters = [chr(ord("a") + (number // 26**place) % 26) for place in range(4)]
    return "Ann" + "".join(letters) + " Lee" + "".join(reversed(letters))


def write_probe(folder: Path, rows: Iterable[ProbeRow], model: str = MODEL) -> Path:
    """Returns: the stage's folder."""
    with writing(StageDir(folder).data / ROWS) as write:
        for item in rows:
            write(item.to_json())
    write_info(folder, ProbeInfo(model=model, input_model="runs/sft", chat_template_sha256="abc", seed=0))
    return folder


def refusals_stage(**options: Any) -> RefusalsStage:
    return RefusalsStage.model_validate({"kind": "refusals", "name": "idk", "probes": ["probe"], "seed": 0, **options})
