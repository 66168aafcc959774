"""How the raw rows of a source become rows to train on: its format, recognised or named, and the shape that fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from llmkit.data import trees
from llmkit.data.files import Raw
from llmkit.data.formats import check_columns, convert, recognise
from llmkit.data.messages import Row
from llmkit.data.pool import Opened, Opener
from llmkit.errors import DataError
from llmkit.recipe.parts import DataSource
from llmkit.recipe.reads import name_of


def shape_of(row: Row) -> str:
    """`text`, `messages`, `prompt_completion`, `preference` or `ranking`."""
    if "rankings" in row:
        return "ranking"
    if "chosen" in row:
        return "preference"
    return "prompt_completion" if "prompt" in row else next(key for key in ("messages", "text") if key in row)


def training_rows(accept: tuple[str, ...], stage_kind: str) -> Opener:
    """Opens sources of rows that are trained on.

    Args:
        accept: shapes of rows that the stage can train on.
        stage_kind: for messages.
    """

    def opened(source: DataSource, raws: Iterator[Raw]) -> Opened:
        format, rows = _recognised(source, name_of(source), raws)
        columns = {} if format == "oasst" else source.columns

        def converted(raw: Raw) -> Row:
            row = convert(raw.value, format, columns)
            if shape_of(row) not in accept:
                what = f"holds {shape_of(row)} rows, and a '{stage_kind}' stage takes {' or '.join(accept)}"
                cure = "choose another source, or name its 'format' and 'columns'"
                raise DataError(f"{raw.file}:{raw.line}", what, cure)
            return row

        return Opened(rows, converted)

    return opened


def _recognised(source: DataSource, name: str, raws: Iterator[Raw]) -> tuple[str, Iterable[Raw]]:
    """The format, read off the first good row unless the recipe names it, and the rows from the first on."""
    format = check_columns(name, source.columns, source.format)
    read: list[Raw] = []
    while format is None and (raw := next(raws, None)) is not None:
        read.append(raw)
        if raw.error or not isinstance(raw.value, dict):
            continue
        format = recognise(set(raw.value))
        if format is None:
            columns = ", ".join(map(str, raw.value))
            cure = "name its 'format', or map its columns, such as columns: {prompt: question, completion: answer}"
            raise DataError(f"{raw.file}:{raw.line}", f"the columns {columns} fit no known format", cure)
    rows: Iterable[Raw] = chain(read, raws)
    return format or "text", trees.conversations(rows, source.columns) if format == "oasst" else rows
