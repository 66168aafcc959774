"""Rows of token ids as flat arrays, and what is looked for in them. Used by preflight.

Shape letters: T tokens of all rows of a block, N rows, R runs (a run is an unbroken stretch of trained tokens).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

IGNORED = -100


@dataclass(frozen=True)
class Block:
    """Some rows, end to end.

    Attributes:
        first: index of the first row among all rows.
        ids_T, trained_T: token ids, and whether the loss is taken on each.
        labels_T: labels if the rows have them, else ids_T.
        starts_N, ends_N: [start, end) of each row.
        row_T: which row a token belongs to, counted from 0 in this block.
        opens_T: whether a document begins here: each row's first token, and those that packing put behind.
        truncated_N: whether the row was cut.
    """

    first: int
    ids_T: Ints
    trained_T: Bools
    labels_T: Ints
    starts_N: Ints
    ends_N: Ints
    row_T: Ints
    opens_T: Bools
    truncated_N: Bools

    @classmethod
    def of(cls, rows: list[Mapping[str, Any]], first: int, max_length: int | None) -> Block:
        """Lay out rows with input_ids and either labels or assistant_masks (one of them for all rows).

        Rows that do not say whether they were `truncated` count as cut if they are as long as `max_length`.

        Raises:
            ValueError: a row has neither, or lists of different lengths. Its text names the row.
        """
        key = "labels" if "labels" in rows[0] else "assistant_masks"
        for index, row in enumerate(rows):
            if key not in row or len(row[key]) != len(row["input_ids"]):
                found = f"{len(row[key])} {key}" if key in row else f"no {key}"
                raise ValueError(f"row {first + index} has {len(row['input_ids'])} input_ids and {found}")
        lengths_N = np.array([len(row["input_ids"]) for row in rows], dtype=np.int64)
        ids_T, other_T = _flat(rows, "input_ids"), _flat(rows, key)
        ends_N = np.cumsum(lengths_N)
        opens_T = np.zeros(len(ids_T), dtype=bool)
        opens_T[
            list(chain.from_iterable(_opens(row, end - n) for row, end, n in zip(rows, ends_N, lengths_N, strict=True)))
        ] = True
        at_limit_N = lengths_N >= max_length if max_length and "truncated" not in rows[0] else np.zeros_like(lengths_N)
        return cls(
            first=first,
            ids_T=ids_T,
            trained_T=other_T != IGNORED if key == "labels" else other_T == 1,
            labels_T=other_T if key == "labels" else ids_T,
            starts_N=ends_N - lengths_N,
            ends_N=ends_N,
            row_T=np.repeat(np.arange(len(rows)), lengths_N),
            opens_T=opens_T,
            truncated_N=np.array([bool(row.get("truncated")) for row in rows]) | (at_limit_N > 0),
        )

    def per_row(self, what_T: Bools) -> Ints:
        """How often something is true in each row: N."""
        sums: Ints = np.concatenate([[0], np.cumsum(what_T)])
        counts_N: Ints = sums[self.ends_N] - sums[self.starts_N]
        return counts_N

    def runs(self) -> tuple[Ints, Ints]:
        """First and last position of each run: R, R. A run does not cross into the next document."""
        if not len(self.ids_T):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        before_T = np.concatenate([[False], self.trained_T[:-1]]) & ~self.opens_T
        after_T = np.concatenate([self.trained_T[1:] & ~self.opens_T[1:], [False]])
        return np.flatnonzero(self.trained_T & ~before_T), np.flatnonzero(self.trained_T & ~after_T)

    def ends_with(self, pattern: tuple[int, ...]) -> Bools:
        """At each position, whether the tokens before it (in its row) end with the pattern: T + 1."""
        size = len(self.ids_T)
        found = np.zeros(size + 1, dtype=bool)
        length = len(pattern)
        if length == 0 or size < length:
            return found
        hits = np.ones(size - length + 1, dtype=bool)
        for offset, token in enumerate(pattern):
            hits &= self.ids_T[offset : size - length + 1 + offset] == token
        hits &= self.row_T[: size - length + 1] == self.row_T[length - 1 :]
        found[length:] = hits
        return found


@dataclass
class Finding:
    """One kind of fault: its first place and how many rows have it."""

    row: int
    ids: list[int]  # tokens around the first place
    num_rows: int = 0


@dataclass
class Findings:
    """Faults by kind, in the order in which they were first seen."""

    kinds: dict[str, Finding] = field(default_factory=dict)

    def add(self, kind: str, block: Block, rows: Ints, positions: Ints) -> None:
        """Note that these rows (N' of the block, one entry per fault) have a fault at these positions."""
        if not len(rows):
            return
        if kind not in self.kinds:
            row, position = int(rows[0]), int(positions[0])
            start, end = max(int(block.starts_N[row]), position - 8), min(int(block.ends_N[row]), position + 8)
            self.kinds[kind] = Finding(block.first + row, block.ids_T[start:end].tolist())
        self.kinds[kind].num_rows += len(np.unique(rows))

    def at(self, kind: str, block: Block, positions: Ints) -> None:
        """Faults at positions."""
        self.add(kind, block, block.row_T[positions], positions)

    def whole(self, kind: str, block: Block, is_bad_N: Bools) -> None:
        """Faults of whole rows, shown from their beginning."""
        rows = np.flatnonzero(is_bad_N)
        self.add(kind, block, rows, block.starts_N[rows])


def _flat(rows: list[Mapping[str, Any]], key: str) -> Ints:
    return np.fromiter(chain.from_iterable(row[key] for row in rows), dtype=np.int64)


def _opens(row: Mapping[str, Any], start: int) -> Iterator[int]:
    """Where documents begin in a row: by position_ids or seq_lengths, as packing leaves them, else at its start."""
    if len(row["input_ids"]) == 0:
        return
    yield int(start)
    if row.get("position_ids") is not None:
        yield from (int(start) + i for i, position in enumerate(row["position_ids"]) if position == 0)
    elif row.get("seq_lengths") is not None:
        ends = np.cumsum(row["seq_lengths"])
        yield from (int(start) + int(end) for end in ends[:-1])
