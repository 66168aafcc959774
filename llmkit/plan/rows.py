"""Row counts of local files, where counting is cheap, and how many questions come of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from llmkit.plan.files import WHOLE, is_local, local_files
from llmkit.recipe.knowledge import HonestySpec, QuestionSource
from llmkit.recipe.parts import DataSource
from llmkit.recipe.rows import HELDOUT
from llmkit.recipe.schema import EvaluateStage
from llmkit.recipe.stages import BestOfNStage, TrainStage
from llmkit.recipe.stages_knowledge import InterrogateStage
from llmkit.recipe.stages_preference import RolloutStage

Probed = Mapping[str, tuple[int | None, float]]
"""Interrogation -> questions that it asks, share of them that it holds out."""


def count(stage: TrainStage | BestOfNStage | RolloutStage) -> int | None:
    """Rows before duplicates and bad rows are dropped; None where a source cannot be counted without loading it."""
    if any(source.fraction is not None for source in stage.data):
        return None
    counts = [_of_source(source) for source in stage.data]
    known = [number for number in counts if number is not None]
    return sum(known) if len(known) == len(counts) else None


def questions(stage: InterrogateStage | EvaluateStage, probed: Probed) -> int | None:
    """Those that a stage asks, before repeats and what cannot be asked are dropped; of documents at most, and of what a
    probe holds out about so many. None where that cannot be known without reading the data, or nothing is asked."""
    if isinstance(stage, EvaluateStage):
        sources = [source for spec in stage.evals if isinstance(spec, HonestySpec) for source in spec.questions]
    else:
        sources = stage.questions
    counts = [_of_questions(source, probed) for source in sources]
    if isinstance(stage, InterrogateStage) and stage.documents:
        written = stage.writer.num_questions if stage.writer.by != "templates" else len(stage.writer.templates)
        counts.append(stage.num_snippets * written if stage.num_snippets else None)
    known = [number for number in counts if number is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _of_questions(source: QuestionSource, probed: Probed) -> int | None:
    probe = probed.get(source.from_ or "")
    if probe is None:
        rows = _of_source(source)
        return rows * max(1, len(source.templates)) if rows is not None else None
    asked, heldout = probe if source.split == "train" else (None, 0.0)
    total = round(asked * heldout) if asked is not None and source.name == HELDOUT else asked
    return source.num_rows if total is None else min(total, source.num_rows or total)


def _of_source(source: DataSource) -> int | None:
    counts: list[int | None] = []
    if source.path and is_local(source.path) and source.split == "train":
        counts = [_of_file(path) for path in local_files(source.path)]
    known = [number for number in counts if number is not None]
    total = sum(known) if known and len(known) == len(counts) else None
    if source.num_rows is None:
        return total
    return source.num_rows if total is None else min(total, source.num_rows)


def _of_file(path: Path) -> int | None:
    if path.stat().st_size > WHOLE:
        return None
    try:
        if path.suffix in (".jsonl", ".ndjson"):
            with path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as text:
                return max(0, sum(1 for _ in csv.reader(text)) - 1)
        if path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
            return len(rows) if isinstance(rows, list) else 1
    except (ValueError, csv.Error):
        # the stage will say what is wrong with it
        return None
    return None
