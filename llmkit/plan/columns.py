"""Whether the columns that a recipe names stand in its local question files, by their first rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from llmkit.recipe.knowledge import QuestionSource
from llmkit.recipe.parts import DataSource
from llmkit.recipe.templates import parse_path

FIRST_ROWS = 20
"""A column must stand in one of them: the first may be odd."""


def missing_columns(source: DataSource, files: list[Path]) -> Iterator[tuple[str, str, str]]:
    """(part of a question, what is wrong, cure). Nothing of files that cannot be read cheaply: the stage will tell."""
    if not isinstance(source, QuestionSource) or source.templates or not files:
        return
    if not (rows := _first_rows(files[0])):
        return
    have = list(dict.fromkeys(name for row in rows for name in row))
    for part in dict.fromkeys((*source.required, *source.columns)):
        path = source.columns.get(part, part)
        if path in have or _first_key(path) in have:
            continue
        near = get_close_matches(path, have, n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"map '{part}' in 'columns'; have: {', '.join(have)}"
        yield part, f"no column '{path}' in the first rows of {files[0].name}", cure


def _first_key(path: str) -> str:
    """`answer` of `answer.aliases[0]`."""
    try:
        return str(next(iter(parse_path(path)), ""))
    except ValueError:
        return ""


def _first_rows(path: Path) -> list[dict[str, Any]]:
    """Empty where there is none that has columns."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                return [dict(row) for row in islice(csv.DictReader(file), FIRST_ROWS)]
            if path.suffix in (".jsonl", ".ndjson"):
                rows = [json.loads(line) for line in islice(file, FIRST_ROWS) if line.strip()]
                return [row for row in rows if isinstance(row, dict)]
    except (OSError, ValueError, csv.Error, RecursionError):
        # the stage says what is wrong with its rows, and counts them
        return []
    return []
