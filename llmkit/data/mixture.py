"""Several sources -> one order of rows, the same for the same seed.

Within a source: bad rows are rejected, exact repeats dropped, then the slice of `split` is taken, then rows go that
`require_known` keeps out, then the rows are shuffled, then `num_rows` are kept. A slice is by position, as on the Hub:
`train[:90%]` and `train[90%:]` of one file are disjoint.

Between sources: without `fraction`, all that each has. With it, the largest mixture in which each such source makes up
its share, the others share what is left in proportion to their sizes, and no row stands twice. So the source that is
short for its share sets the size, and the others give less than they have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import ReadInstruction

from llmkit.artifacts.manifest import SourceCount
from llmkit.data.canonical import training_rows
from llmkit.data.gate import Documents, Gate, gate_of, gates, held_out, sift
from llmkit.data.pool import Opener, Placed, Pool, Rejects, read_pool
from llmkit.data.sources import is_function, is_local
from llmkit.errors import DataError
from llmkit.recipe.parts import DataSource

ALL_SHAPES = ("text", "messages", "prompt_completion", "preference", "ranking")


@dataclass(frozen=True)
class Mixture:
    """Rows in training order.

    Attributes:
        counts: what each source gave, with a hash of its rows.
        rejected_file: where the bad rows were written, if there were any.
        sha256: of all rows in order.
    """

    pools: list[Pool]
    pool_of: np.ndarray
    row_of: np.ndarray
    counts: list[SourceCount]
    rejected_file: str | None
    sha256: str

    def __len__(self) -> int:
        return len(self.row_of)

    def __getitem__(self, index: int) -> Placed:
        pool, row = int(self.pool_of[index]), int(self.row_of[index])
        return self.pools[pool][row]

    def __iter__(self) -> Iterator[Placed]:
        for pool, row in zip(self.pool_of.tolist(), self.row_of.tolist(), strict=True):
            yield self.pools[pool][row]


def mix(
    sources: Sequence[DataSource],
    *,
    seed: int,
    folder: Path,
    data_stages: dict[str, Path],
    accept: tuple[str, ...] = ALL_SHAPES,
    stage_kind: str = "",
    opener: Opener | None = None,
    max_rejected: float = 0.01,
    dedup: bool = True,
    rejected_file: Path | None = None,
    gated_file: Path | None = None,
) -> Mixture:
    """Read all sources and put their rows in order.

    Args:
        folder: where rows are kept while the mixture is used (temporary files).
        accept: shapes of rows that fit.
        opener: how raw rows become rows; None: rows to train on, of a shape in `accept`.
        max_rejected: share of a source's rows that may be bad.
        rejected_file: where bad rows go.
        gated_file: where rows go that `require_known: {unknown: pretrain}` keeps out; None: nowhere.

    Raises:
        DataError: a source is missing, empty, too bad or too small for what is asked of it.
    """
    rejects, pools = Rejects(rejected_file), []
    opener = opener or training_rows(accept, stage_kind)
    if rejected_file is not None:
        rejected_file.unlink(missing_ok=True)
    try:
        for source in sources:
            pools.append(
                read_pool(
                    source,
                    opener=opener,
                    data_stages=data_stages,
                    seed=seed,
                    dedup=dedup,
                    max_rejected=max_rejected,
                    rejects=rejects,
                    folder=folder,
                )
            )
    finally:
        rejected = rejects.close()
    offered = _offered(pools, data_stages, gated_file)
    chosen = [choose_rows(pool, rows, np.random.default_rng([seed, i])) for i, (pool, rows) in enumerate(offered)]
    sizes = mixture_sizes([len(rows) for rows in chosen], [source.fraction for source in sources])
    for pool, size in zip(pools, sizes, strict=True):
        if not size:
            cure = "the others are too small for its share: change 'fraction'"
            raise DataError(pool.name, "gives no row to the mixture", cure)
    chosen = [rows[:size] for rows, size in zip(chosen, sizes, strict=True)]
    counts = [count_of(pool, rows) for pool, rows in zip(pools, chosen, strict=True)]
    order = np.random.default_rng([seed, len(pools)]).permutation(sum(sizes))
    pool_of = np.repeat(np.arange(len(pools)), sizes)[order]
    row_of = np.concatenate(chosen)[order]
    sha256 = hashlib.sha256(f"{seed} {[count.sha256 for count in counts]}".encode()).hexdigest()
    return Mixture(pools, pool_of, row_of, counts, rejected, sha256)


def mixture_sizes(available: list[int], fractions: list[float | None]) -> list[int]:
    """Rows to take of each source; see the rule above. Shares are met to within one row.

    >>> mixture_sizes([1000, 100, 300], [0.5, None, None])
    [400, 100, 300]
    """
    if all(fraction is None for fraction in fractions):
        return list(available)
    left = 1 - sum(fraction or 0 for fraction in fractions)
    open_rows = sum(n for n, fraction in zip(available, fractions, strict=True) if fraction is None)
    shares = [left * n / max(open_rows, 1) if f is None else f for n, f in zip(available, fractions, strict=True)]
    total = int(min(n / share for n, share in zip(available, shares, strict=True) if share > 0) + 1e-6)
    exact = [total * share for share in shares]
    sizes = [min(int(size + 1e-9), n) for size, n in zip(exact, available, strict=True)]
    by_remainder = sorted(range(len(sizes)), key=lambda index: sizes[index] - exact[index])
    for index in by_remainder:
        if sum(sizes) < total and sizes[index] < available[index]:
            sizes[index] += 1
    return sizes


def _offered(pools: list[Pool], data_stages: dict[str, Path], gated_file: Path | None) -> list[tuple[Pool, np.ndarray]]:
    """Numbers of the rows that each source offers: its slice without what `require_known` keeps out."""
    wanted = any(gate.unknown == "pretrain" for gate in gates(pool.source for pool in pools))
    documents = Documents(gated_file) if wanted and gated_file is not None else None
    offered, whole = [], False
    try:
        for pool in pools:
            rows, spec = slice_rows(pool), gate_of(pool.source)
            if spec is not None:
                to_documents = documents if spec.unknown == "pretrain" else None
                rows = sift(pool, rows, Gate(spec, data_stages), to_documents)
            offered.append((pool, rows))
        whole = True
    finally:
        if documents is not None:
            documents.close(whole)
    return offered


def choose_rows(pool: Pool, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of the rows that a source offers those that it gives, shuffled."""
    rng.shuffle(rows)
    wanted = pool.source.num_rows
    if wanted is not None and pool.source.streaming:
        wanted -= pool.num_gated  # no more were read
    if wanted is not None and wanted > len(rows):
        what = f"'num_rows' is {wanted}, but there are {len(rows)} good rows"
        if pool.num_duplicates:
            what += f" (and {pool.num_duplicates} repeats)"
        if pool.num_gated:
            what += f" (and {pool.num_gated} that 'require_known' keeps out{held_out(pool)})"
        raise DataError(pool.name, what, f"set it to {len(rows)} or less, or leave it out")
    return rows[:wanted]


def slice_rows(pool: Pool) -> np.ndarray:
    """Files, stages and functions have one split, `train`, that can be sliced; the Hub slices its own."""
    source = pool.source
    here = source.from_ is not None or is_local(source.path or "") or is_function(source.path or "")
    if not here or source.split == "train":
        return np.arange(len(pool))
    try:
        parts = ReadInstruction.from_spec(source.split).to_absolute({"train": len(pool)})
    except (ValueError, AssertionError) as error:
        what = f"'split: {source.split}' ({error})"
        raise DataError(pool.name, what, "a file has only 'train', which can be sliced: train[:90%]") from error
    rows = np.concatenate([np.arange(part.from_, part.to) for part in parts])
    if not len(rows):
        raise DataError(pool.name, f"'split: {source.split}' holds none of its {len(pool)} rows", "take a larger slice")
    return rows


def count_of(pool: Pool, rows: np.ndarray) -> SourceCount:
    """What a source gave, with a hash of those rows in their order."""
    digest = hashlib.sha256()
    for row in rows.tolist():
        digest.update(pool.data(row) + b"\n")
    return SourceCount(
        source=pool.name,
        num_read=pool.num_read,
        num_rejected=pool.num_rejected,
        num_duplicates=pool.num_duplicates,
        num_gated=pool.num_unknown,
        num_heldout=pool.num_heldout,
        num_not_probed=pool.num_not_probed,
        num_used=len(rows),
        sha256=digest.hexdigest(),
    )
