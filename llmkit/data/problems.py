"""Problems with checkable answers: what the stages read that sample answers and score them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from llmkit.artifacts.files import disk_error
from llmkit.artifacts.manifest import SourceCount
from llmkit.chat.turn import last_text
from llmkit.data.messages import Row
from llmkit.data.mixture import Mixture, mix
from llmkit.data.pool import packed
from llmkit.data.problem_rows import Prompt, problem_rows
from llmkit.errors import DataError
from llmkit.recipe.practice import ProblemSource

# Rows between two calls of `progress`.
_STEP = 1000


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        prompt: a text, or messages of which the last is not the assistant's.
        columns: the other columns of its row, JSON values, none of them None.
        place: where it was read, "file:line".
        key: hash of prompt and answer, the same in every run and for every order of the problems.
    """

    prompt: Prompt
    columns: dict[str, Any]
    place: str
    key: str

    @property
    def asked(self) -> str:
        """What is asked last: the text itself, or the content of the last message."""
        return last_text(self.prompt)


class Problems:
    """Problems in the order in which they are trained on, read from disk by number.

    Memory: 56 bytes a problem, and 24 for every other row that was read. Temporary files last as long as this does.
    """

    def __init__(self, mixture: Mixture, progress: Callable[[int, int], None] | None = None) -> None:
        self._mixture = mixture
        self._places_N = np.arange(len(mixture))
        self._prompts_N, self._columns = _survey(mixture, progress)
        self._levels: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._places_N)

    def __getitem__(self, index: int) -> Problem:
        placed = self._mixture[int(self._places_N[index])]
        row = placed.row
        prompt = row.pop("prompt")
        return Problem(prompt, row, placed.where, _key(prompt, row.get("answer")))

    def __iter__(self) -> Iterator[Problem]:
        return (self[index] for index in range(len(self)))

    def only(self, numbers: Sequence[int]) -> Problems:
        """The same without the others, in this order. They share what was read."""
        chosen = copy(self)
        chosen._places_N, chosen._prompts_N = self._places_N[list(numbers)], self._prompts_N[list(numbers)]
        chosen._levels = {}
        return chosen

    @property
    def counts(self) -> list[SourceCount]:
        """What each source gave."""
        return self._mixture.counts

    @property
    def rejected_file(self) -> str | None:
        """Where the bad rows were written, if there were any."""
        return self._mixture.rejected_file

    def columns_of_all(self) -> set[str]:
        """Columns that every problem has."""
        return set(self._columns)

    def levels(self, column: str, has_level: Callable[[Problem], bool] = lambda problem: True) -> np.ndarray:
        """A column of numbers, (N,) float64; a text that is a number counts as one. Read once.

        Args:
            has_level: problems of which it is not true are NaN, and need no such column.

        Raises:
            DataError: a problem lacks the column, or has something else there.
        """
        if column not in self._levels:
            numbers = (_number(problem, column) if has_level(problem) else math.nan for problem in self)
            self._levels[column] = np.fromiter(numbers, np.float64, len(self))
        return self._levels[column]

    def shared_with(self, others: Problems) -> np.ndarray:
        """Numbers of those whose prompt `others` hold as well, word for word."""
        return np.flatnonzero(np.isin(self._prompts_N, others._prompts_N))


def build_problems(
    sources: Sequence[ProblemSource],
    *,
    seed: int,
    data_stages: dict[str, Path],
    cache_dir: Path,
    max_rejected: float,
    dedup: bool,
    rejected_file: Path | None,
    chat: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Problems:
    """Read and mix problems, as `llmkit.data.mixture` mixes rows.

    Args:
        data_stages: folder of each stage that a source's `from` may name.
        cache_dir: folder for temporary files.
        max_rejected: share of a source's rows that may be bad.
        dedup: leave out rows whose prompt stood earlier in their source.
        rejected_file: where bad rows are written.
        chat: whether prompts become messages (a text becomes the user's). If not, they are texts.
        progress: called now and then with (problems looked at, problems in all), once they are read.

    Raises:
        DataError: see `llmkit.data.mixture`; or the settings of a source do not fit problems, or a column has a name
            that reward functions cannot take.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        mixture = mix(
            sources,
            seed=seed,
            folder=cache_dir,
            data_stages=data_stages,
            opener=problem_rows(chat),
            max_rejected=max_rejected,
            dedup=dedup,
            rejected_file=rejected_file,
        )
    except OSError as error:
        raise disk_error(cache_dir, error) from error
    return Problems(mixture, progress)


def _survey(mixture: Mixture, progress: Callable[[int, int], None] | None) -> tuple[np.ndarray, set[str]]:
    """Hash of every prompt, (N,) uint64, and the columns that all rows have."""
    prompts_N = np.empty(len(mixture), dtype=np.uint64)
    columns: set[str] | None = None
    for index, placed in enumerate(mixture):
        row: Row = placed.row
        prompts_N[index] = int.from_bytes(blake2b(packed(row.pop("prompt")), digest_size=8).digest(), "little")
        columns = set(row) if columns is None else columns & row.keys()
        if progress is not None and ((index + 1) % _STEP == 0 or index + 1 == len(mixture)):
            progress(index + 1, len(mixture))
    return prompts_N, columns or set()


def _key(prompt: Prompt, answer: Any) -> str:
    return blake2b(json.dumps([prompt, answer], sort_keys=True).encode("ascii"), digest_size=16).hexdigest()


def _number(problem: Problem, column: str) -> float:
    if column not in problem.columns:
        what = f"has no column '{column}' (has {', '.join(problem.columns) or 'none'})"
        raise DataError(problem.place, what, "every problem needs its level there: add it, or name another column")
    value = problem.columns[column]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        what = f"has {json.dumps(value, ensure_ascii=False)[:80]} in '{column}', which is no number"
        raise DataError(problem.place, what, "write levels as numbers: 1, 2, 3")
    return number
