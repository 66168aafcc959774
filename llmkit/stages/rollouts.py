"""The answers that a stage practised on, on disk: `data/rollouts.parquet`, a row each.

While the stage runs, every process writes parts up to each checkpoint; a stage that goes on from a checkpoint drops
parts that are newer. At the end one process joins them, in the order of steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmkit.artifacts.files import whole_file
from llmkit.artifacts.manifest import Sample
from llmkit.chat.ask import Answer
from llmkit.chat.told import transcript
from llmkit.data.problems import Problem
from llmkit.visible import as_utf8

NAME = "rollouts"
ENOUGH = 20_000
"""Rows that a process holds in memory before it writes them."""
NUM_SHOWN = 3
"""Rollouts of each kind that the report shows."""
SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("problem", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("num_tokens", pa.int64()),
        ("truncated", pa.bool_()),
        ("right", pa.bool_()),
        ("reward", pa.float64()),
        ("advantage", pa.float64()),
        ("scores", pa.string()),
    ]
)
"""`problem`: file and line. `prompt`: the text, or messages as JSON. `scores`: reward -> score, as JSON."""


class Rollouts:
    """Collects and writes.

    Args:
        folder: the stage's `data/`.
        parts: folder beside the checkpoints, which goes with them once the manifest is written: a stage that is killed
            before that goes on from a checkpoint, and joins its parts again.
        process: number of this process.
    """

    def __init__(self, folder: Path, parts: Path, process: int = 0) -> None:
        self._folder, self._parts_folder, self._process = folder, parts, process
        self._rows: list[dict[str, Any]] = []

    def add(
        self,
        *,
        step: int,
        problem: Problem,
        answer: Answer,
        reward: float,
        advantage: float,
        is_right: bool,
        scores: dict[str, float],
    ) -> None:
        prompt = problem.prompt if isinstance(problem.prompt, str) else json.dumps(problem.prompt, ensure_ascii=False)
        applied = {label: value for label, value in scores.items() if value == value}
        row = {
            "step": step,
            "problem": problem.place,
            "prompt": prompt,
            "completion": transcript(answer.messages) if answer.messages else answer.text,
            "num_tokens": answer.num_tokens,
            "truncated": answer.finish_reason == "length",
            "right": is_right,
            "reward": reward,
            "advantage": advantage,
            "scores": json.dumps(applied),
        }
        self._rows.append({name: _clean(value) for name, value in row.items()})
        if len(self._rows) >= ENOUGH:
            # the checkpoint of `step` is older than these rows
            self.flush(step + 1)

    def flush(self, step: int) -> None:
        """Write what was collected, as a part that ends with `step`. Raises RunError on a full disk."""
        if not self._rows:
            return
        number = sum(_place(path)[:2] == (step, self._process) for path in self._parts())
        path = self._parts_folder / f"{NAME}-{step:08d}-{self._process:04d}-{number:04d}.parquet"
        with whole_file(path) as file:
            pq.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA), file)
        self._rows = []

    def drop_after(self, step: int) -> None:
        """Parts of steps that will be done again, of all processes. One process calls this before any writes."""
        for path in self._parts():
            if _place(path)[0] > step:
                path.unlink()

    def join(self) -> None:
        """All parts of all processes become one file. One process calls this, when all have flushed."""
        parts = self._parts()
        if not parts:
            return
        for path in self._folder.glob(f".{NAME}.parquet.*.partial"):
            path.unlink()
        with whole_file(self._folder / f"{NAME}.parquet") as file, pq.ParquetWriter(file, SCHEMA) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part, schema=SCHEMA))

    def _parts(self) -> list[Path]:
        return sorted(self._parts_folder.glob(f"{NAME}-*.parquet"), key=_place)


def shown(folder: Path, *, checked: bool) -> list[Sample]:
    """For people: of the last tenth of all steps the best, the worst, the longest, and of the first step some.

    Args:
        checked: whether a reward says of answers that they are right.
    """
    path = folder / f"{NAME}.parquet"
    if not path.is_file():
        return []
    steps = pq.read_table(path, columns=["step"])["step"]
    last = max(steps.to_pylist(), default=0)
    early = _rows(path, 0, 0)
    late = _rows(path, int(0.9 * last), last)
    by_reward = sorted(late, key=lambda row: -row["reward"])
    by_length = sorted(late, key=lambda row: -(row["num_tokens"] or 0))
    kinds = {
        "first step": early,
        "best of the last steps": by_reward,
        "worst of the last steps": by_reward[::-1],
        "longest of the last steps": by_length,
    }
    return [_sample(row, label, checked) for label, rows in kinds.items() for row in _distinct(rows)]


def _rows(path: Path, first: int, last: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path, filters=[("step", ">=", first), ("step", "<=", last)]).to_pylist()
    return rows


def _distinct(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for row in rows:
        if len(seen) < NUM_SHOWN and row["prompt"] not in seen:
            seen.add(row["prompt"])
            yield row


def _sample(row: dict[str, Any], label: str, checked: bool) -> Sample:
    prompt = row["prompt"]
    try:
        messages = json.loads(prompt)
        prompt = messages[-1]["content"]
    except (ValueError, TypeError, KeyError, IndexError):
        pass
    ended = ", cut off" if row["truncated"] else ""
    right = ("right, " if row["right"] else "not right, ") if checked else ""
    scores: dict[str, float] = json.loads(row["scores"])
    parts = ", ".join(f"{name} {value:.3g}" for name, value in scores.items())
    made = f" ({parts})" if len(scores) > 1 else ""
    said = f"{label}: step {row['step']}, {right}reward {row['reward']:.3g}{made}, {row['num_tokens']} tokens{ended}"
    return Sample(prompt=prompt, completion=row["completion"], label=said)


def _place(path: Path) -> tuple[int, int, int]:
    """Step, process, and number among the parts of both."""
    step, process, number = path.stem.split("-")[1:]
    return int(step), int(process), int(number)


def _clean(value: Any) -> Any:
    """Parquet holds UTF-8."""
    return as_utf8(value) if isinstance(value, str) else value
