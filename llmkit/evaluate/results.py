"""What an evaluation found, document by document, and its files: one `<task>.jsonl` per task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmkit.artifacts.files import write_text

Key = tuple[int, str]
"""Of a document: its place in the task's split, and its target."""


@dataclass(frozen=True)
class Document:
    """One document of a task: what the model was given, what it wrote, how that was scored."""

    doc_id: int
    """Place in the task's split."""
    prompt: str
    target: str
    completion: str
    """The generated text before filters; for multiple choice the likeliest choice."""
    metrics: dict[str, float]


@dataclass(frozen=True)
class Member:
    """A task's part in a mean: of a group one for each of its tasks, of a task itself alone."""

    task: str
    metric: str
    """Its name in the task's documents."""
    weight: float
    """Of the task's mean; the weights of a metric sum to 1."""
    values: dict[Key, float]


@dataclass(frozen=True)
class Metric:
    """One metric over all documents of a task."""

    name: str
    """lm-eval's name, followed by ",filter" where a task has several filters."""
    value: float
    num_samples: int
    values: list[Any] = field(default_factory=list)
    """lm-eval's value for each document that has one; empty for a group's mean over its tasks."""
    aggregate: Callable[[list[Any]], float] | None = None
    """How `values` become `value`, where that is not the mean."""
    members: list[Member] = field(default_factory=list)
    """Of a group whose metric is a mean of means."""
    higher_is_better: bool = True
    interval: tuple[float, float] | None = None
    """95 %, where it is not that of the mean of `values`."""


def mean_of(name: str, values: Sequence[float], interval: tuple[float, float] | None = None) -> Metric:
    """The metric that is the mean of its values."""
    return Metric(name, sum(values) / len(values), len(values), list(values), interval=interval)


def columns_of(numbers: Iterable[Mapping[str, float]]) -> dict[str, list[float]]:
    """What documents say of each metric, in the order of the documents that have it."""
    found: dict[str, list[float]] = {}
    for each in numbers:
        for name, value in each.items():
            found.setdefault(name, []).append(value)
    return found


@dataclass(frozen=True)
class TaskResult:
    task: str
    metrics: list[Metric]
    documents: list[Document] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    num_fewshot: int | None = None
    """Worked examples in each prompt; None for a group."""


def values_of(documents: Iterable[Document], metric: str) -> dict[Key, float]:
    """What a metric says of each document that has it."""
    return {(each.doc_id, each.target): each.metrics[metric] for each in documents if metric in each.metrics}


def members_of(result: TaskResult, metric: Metric) -> list[Member]:
    """The means that a metric is made of; none where it is no mean."""
    if metric.aggregate is not None:
        return []
    if metric.members:
        return metric.members
    values = values_of(result.documents, metric.name)
    return [Member(result.task, metric.name, 1.0, values)] if values else []


def write_documents(folder: Path, result: TaskResult) -> None:
    """Raises RunError where the disk is full or read-only."""
    lines = (json.dumps(asdict(document), ensure_ascii=False) for document in result.documents)
    write_text(folder / f"{_file_name(result.task)}.jsonl", "".join(line + "\n" for line in lines))


def read_documents(folder: Path, task: str) -> list[Document]:
    """The documents that an earlier evaluation kept; none if it did not have this task."""
    path = folder / f"{_file_name(task)}.jsonl"
    if not path.is_file():
        return []
    with path.open(
        encoding="utf-8", newline="\n"
    ) as lines:  # an answer may hold U+2028, which ends no line of the file
        return [Document(**json.loads(line)) for line in lines]


def _file_name(task: str) -> str:
    return task.replace("/", "_")
