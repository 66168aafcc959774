"""Rows as the trainer will see them, for a terminal or a log.

Trained tokens are green, the others dim, those beyond `max_length` red and struck through. Without colours they stand
as [[trained]], plain, and {{cut off}}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from llmkit.data.canonical import shape_of
from llmkit.data.encode import IGNORE, Encoded, at, encode, sides
from llmkit.data.pool import Placed
from llmkit.data.tokens import Settings, quantiles
from llmkit.errors import DataError, TemplateError

Part = Literal["trained", "shown", "cut"]
STYLES = {"trained": "bold green", "shown": "dim", "cut": "red strike"}
BRACKETS = {"trained": ("[[", "]]"), "shown": ("", ""), "cut": ("{{", "}}")}
NUM_BINS = 10
BAR = 40


@dataclass
class Totals:
    """What a sample of rows looks like as a whole. Lengths are in tokens before truncation."""

    lengths: list[int] = field(default_factory=list)
    num_trained: int = 0
    num_untrained_rows: int = 0
    num_truncated: int = 0
    shapes: set[str] = field(default_factory=set)

    def add(self, encoded: Encoded, max_length: int | None) -> None:
        kept = encoded.labels[:max_length]
        num_trained = len(kept) - kept.count(IGNORE)
        self.lengths.append(len(encoded.input_ids))
        self.num_trained += num_trained
        self.num_untrained_rows += not num_trained
        self.num_truncated += max_length is not None and len(encoded.input_ids) > max_length


def encode_all(tokenizer: PreTrainedTokenizerBase, placed: Placed, settings: Settings) -> list[tuple[str, Encoded]]:
    """A row's sequences with their labels: one, or `chosen` and `rejected`. Errors carry the row's file and line."""
    try:
        shape = shape_of(placed.row)
        if shape == "preference":
            return list(zip(("chosen", "rejected"), sides(tokenizer, placed.row), strict=True))
        only = settings.assistant_only_loss
        encoded = encode(
            tokenizer, placed.row, assistant_only_loss=only, completion_only_loss=settings.completion_only_loss
        )
        return [(shape, encoded)]
    except (DataError, TemplateError) as error:
        raise at(placed.where, error) from error


def parts_of(encoded: Encoded, max_length: int | None) -> list[Part]:
    """For each of the L tokens what becomes of it."""
    limit = len(encoded.input_ids) if max_length is None else max_length
    return [
        "cut" if index >= limit else "shown" if label == IGNORE else "trained"
        for index, label in enumerate(encoded.labels)
    ]


def sequence(tokenizer: PreTrainedTokenizerBase, encoded: Encoded, max_length: int | None, colours: bool) -> Text:
    """The decoded text, each part marked."""
    text = Text()
    tokens = zip(parts_of(encoded, max_length), encoded.input_ids, strict=True)
    for part, group in groupby(tokens, key=lambda item: item[0]):
        decoded = tokenizer.decode([token for _, token in group])
        left, right = ("", "") if colours else BRACKETS[part]
        text.append(f"{left}{decoded}{right}", style=STYLES[part] if colours else "")
    return text


def token_table(tokenizer: PreTrainedTokenizerBase, encoded: Encoded, max_length: int | None) -> Table:
    """One line a token: position, id, what becomes of it, its text."""
    table = _table("#", "id", "loss", "text")
    for index, (token, part) in enumerate(zip(encoded.input_ids, parts_of(encoded, max_length), strict=True)):
        text = repr(tokenizer.decode([token]))
        table.add_row(str(index), str(token), part if part != "shown" else "-", Text(text, style=STYLES[part]))
    return table


def cut_table(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[Table, int, int]:
    """How a text is cut into tokens, special ones recognised: a table, the number of tokens, the UTF-8 bytes."""
    table = _table("#", "id", "token", "bytes", "text")
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = found["input_ids"]
    for index, (token, size) in enumerate(zip(ids, _byte_sizes(text, found["offset_mapping"]), strict=True)):
        piece = tokenizer.convert_ids_to_tokens(token)
        table.add_row(str(index), str(token), Text(piece), str(size), Text(repr(tokenizer.decode([token]))))
    return table, len(ids), len(text.encode("utf-8"))


def _byte_sizes(text: str, offsets: list[tuple[int, int]]) -> list[int]:
    """UTF-8 bytes that each token stands for. Tokens that share a character share its bytes, the first the odd ones."""
    sizes = []
    for (start, end), group in groupby(offsets):
        num_tokens, num_bytes = len(list(group)), len(text[start:end].encode("utf-8"))
        sizes += [num_bytes // num_tokens + (index < num_bytes % num_tokens) for index in range(num_tokens)]
    return sizes


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for name in names:
        table.add_column(name, justify="right" if name in ("#", "id", "bytes") else "left", overflow="fold")
    return table


def histogram(lengths: list[int], max_length: int | None) -> Iterator[str]:
    """Lines `from-to  rows  bar`; bins that `max_length` cuts are marked."""
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // NUM_BINS))
    bins = [0] * ((high - low) // width + 1)
    for length in lengths:
        bins[(length - low) // width] += 1
    digits = len(str(high))
    for index, num in enumerate(bins):
        start, end = low + index * width, low + (index + 1) * width - 1
        over = "  > max_length" if max_length is not None and start > max_length else ""
        yield f"{start:>{digits}}-{end:<{digits}} {num:>7} {'#' * round(BAR * num / max(bins))}{over}"


def summary_lines(totals: Totals, max_length: int | None) -> Iterator[str]:
    """Lengths, share of trained tokens, share of truncated rows."""
    if not totals.lengths:
        return
    num = len(totals.lengths)
    kept = sum(min(length, max_length or length) for length in totals.lengths)
    yield f"lengths of {num} sequences in tokens: " + ", ".join(
        f"{k} {v}" for k, v in quantiles(totals.lengths).items()
    )
    yield from histogram(totals.lengths, max_length)
    yield f"trained tokens: {totals.num_trained} of {kept} ({totals.num_trained / kept:.1%})"
    limit = f"max_length {max_length}" if max_length is not None else "no max_length"
    yield f"truncated: {totals.num_truncated} of {num} sequences ({totals.num_truncated / num:.1%}), {limit}"
    if totals.num_untrained_rows:
        yield f"WARNING: {totals.num_untrained_rows} sequences have no trained token"


def show_rows(
    console: Console,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Placed],
    settings: Settings,
    *,
    num_rows: int,
    ids: bool = False,
) -> Totals:
    """Print the first `num_rows` and a summary of all `rows`."""
    colours = has_colours(console)
    truncates = settings.kind != "pretrain"
    limit = settings.max_length if truncates else None
    totals = Totals()
    for number, placed in enumerate(rows):
        totals.shapes.add(shape_of(placed.row))
        for label, encoded in encode_all(tokenizer, placed, settings):
            totals.add(encoded, limit)
            if number < num_rows:
                body: RenderableType = sequence(tokenizer, encoded, limit, colours)
                table = [token_table(tokenizer, encoded, limit)] if ids else []
                title = f"row {number} ({label}, {len(encoded.input_ids)} tokens, {placed.where})"
                console.print(Text(title, style="bold"), Group(body, *table), "", sep="\n", soft_wrap=True)
    if not colours:
        console.print("[[trained]]  {{beyond max_length}}", markup=False)
    for line in summary_lines(totals, limit):
        console.print(line, markup=False, highlight=False)
    if not truncates and settings.max_length is not None:
        console.print(f"documents longer than {settings.max_length} tokens go on in another row; no token is lost")
    return totals


def has_colours(console: Console) -> bool:
    return console.is_terminal and not console.no_color and console.color_system is not None
