"""Rows that another program sets aside at random: here the first ones of each source, the same in each run."""

from __future__ import annotations

from typing import Any

from llmkit.importing.draft import Draft
from llmkit.importing.foreign import Loc, as_number


def heldout_slice(split: str, rows: int, percent: int) -> tuple[str, str]:
    """(training slice, held-out slice) of a whole split: so many rows, or so many percent."""
    mark = str(rows) if rows else f"{percent}%"
    return f"{split}[{mark}:]", f"{split}[:{mark}]"


def set_aside(draft: Draft, sources: list[dict[str, Any]], size: Any, loc: Loc) -> None:
    """Takes the first rows of each source that is not sliced out of training: a share (below 1) or a count in all."""
    size = as_number(size)
    if isinstance(size, bool) or not isinstance(size, (int, float)) or not 0 <= size < float("inf"):
        raise draft.refuse(loc, f"{size!r:.40} is no share and no number of rows")
    whole = [source for source in sources if "[" not in source.get("split", "train")]
    if not whole or not size:
        draft.listed(
            loc, "every source is a slice already: give `heldout` by hand" if size else "0: nothing is set aside"
        )
        return
    rows = 0 if size < 1 else max(1, int(size) // len(whole))
    percent = 0 if rows else max(1, round(size * 100))
    aside = []
    for source in whole:
        train, held = heldout_slice(source.get("split", "train"), rows, percent)
        aside.append({**{k: v for k, v in source.items() if k not in ("fraction", "num_rows")}, "split": held})
        source["split"] = train
    draft.stage["heldout"] = {"test": aside}
    taken = f"{rows} rows" if rows else f"{percent} %"
    draft.moved(loc, "heldout.test", f"the first {taken} of each source")
