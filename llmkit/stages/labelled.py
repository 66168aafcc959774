"""Answers that people have labelled, and what a judge makes of them.

A row of a labelled file: {"question", "answers", "answer", "verdict", perhaps "document"}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from llmkit.data.files import READERS, kind_of, read_file
from llmkit.errors import DataError
from llmkit.intervals import wilson
from llmkit.knowledge.judge import Item, Judge
from llmkit.knowledge.records import Verdict

CHUNK = 256
"""Answers that are judged at a time."""
LABELS: tuple[str, ...] = tuple(label for label in get_args(Verdict) if label != "undecided")


@dataclass(frozen=True)
class Labelled:
    item: Item
    verdict: str
    where: str
    """`file:line`"""


@dataclass
class Result:
    """What a judge made of labelled answers."""

    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(label, verdict) -> number of rows."""
    misjudged: list[tuple[Labelled, str]] = field(default_factory=list)
    num_asked: int = 0
    """Answers that rules did not decide, and a model was asked about."""
    failures: Counter[str] = field(default_factory=Counter)
    """Why it left some of these undecided -> number."""

    @property
    def num_rows(self) -> int:
        return self.confusion.total()

    @property
    def num_undecided(self) -> int:
        return sum(number for (_, verdict), number in self.confusion.items() if verdict == "undecided")

    @property
    def num_errors(self) -> int:
        return len(self.misjudged)

    @property
    def often(self) -> str:
        """The commonest failure, for the end of a sentence."""
        return f"; most often: {self.failures.most_common(1)[0][0]}" if self.failures else ""

    def to_json(self) -> dict[str, Any]:
        """`error_rate` is the share of the decided answers; None if none was decided."""
        num_decided = self.num_rows - self.num_undecided
        interval = wilson(self.num_errors, num_decided) if num_decided else None
        return {
            "num_rows": self.num_rows,
            "num_asked": self.num_asked,
            "num_undecided": self.num_undecided,
            "num_errors": self.num_errors,
            "error_rate": self.num_errors / num_decided if num_decided else None,
            "error_interval": list(interval) if interval else None,
            "failures": dict(self.failures.most_common()),
            "confusion": {
                label: {verdict: self.confusion[label, verdict] for verdict in get_args(Verdict)} for label in LABELS
            },
            "misjudged": [
                {
                    "where": row.where,
                    "question": row.item.question,
                    "answers": list(row.item.accepted),
                    "answer": row.item.answer,
                    "label": row.verdict,
                    "verdict": verdict,
                }
                for row, verdict in self.misjudged
            ],
        }


def read_labelled(path: Path) -> Iterator[Labelled]:
    """Rows of a labelled file, one at a time.

    Raises:
        DataError: the file is missing, empty or of an unknown kind, or a row that cannot be used, with its line.
    """
    if not path.is_file():
        raise DataError(str(path), "no such file", f"the current folder is {Path.cwd()}")
    if not kind_of(path):
        raise DataError(str(path), "is of no known kind", f"known are {' '.join(READERS)}, each also with .gz")
    empty = True
    for raw in read_file(path):
        empty = False
        where = f"{raw.file}:{raw.line}"
        problem = raw.error or _problem(raw.value)
        if problem:
            raise DataError(where, problem, f"a row has question, answers, answer, verdict ({', '.join(LABELS)})")
        row = raw.value
        accepted = (row["answers"],) if isinstance(row["answers"], str) else tuple(row["answers"])
        item = Item(row["question"], accepted, row["answer"], row.get("document") or "")
        yield Labelled(item, row["verdict"], where)
    if empty:
        raise DataError(str(path), "holds no rows", "label some answers")


def _problem(row: Any) -> str:
    """Why a row cannot be used; empty for a good one."""
    if not isinstance(row, dict):
        return "is no object"
    for name in ("question", "answer", "verdict"):
        if not isinstance(row.get(name), str):
            return f"'{name}' is missing" if name not in row else f"'{name}' is no text"
    accepted = row.get("answers")
    texts = [accepted] if isinstance(accepted, str) else accepted
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        return "'answers' is no text and no list of texts"
    if not isinstance(row.get("document") or "", str):
        return "'document' is no text"
    if not row["question"].strip():
        return "'question' is empty"
    return "" if row["verdict"] in LABELS else f"the verdict '{row['verdict']}' is none of them"


def check(judge: Judge, rows: Iterator[Labelled]) -> Result:
    """Judge all rows and compare with their labels."""
    result = Result()
    chunk: list[Labelled] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            _count(judge, chunk, result)
            chunk = []
    if chunk:
        _count(judge, chunk, result)
    result.num_asked, result.failures = judge.num_asked, judge.failures
    return result


def _count(judge: Judge, rows: Sequence[Labelled], result: Result) -> None:
    for row, verdict in zip(rows, judge.judge([row.item for row in rows]), strict=True):
        result.confusion[row.verdict, verdict] += 1
        if verdict not in (row.verdict, "undecided"):
            result.misjudged.append((row, verdict))
