"""Mixed rows -> one Arrow file of token ids and labels, packed if wanted. Memory stays bounded by a batch of rows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.arrow_writer import ArrowWriter
from transformers import PreTrainedTokenizerBase
from trl import pack_dataset

from llmkit.artifacts.manifest import DataSummary
from llmkit.chat.encode import spelled_tokens
from llmkit.data.encode import IGNORE, Encoded, at, encode
from llmkit.data.messages import Row
from llmkit.data.mixture import Mixture
from llmkit.data.pool import Placed
from llmkit.errors import DataError, TemplateError
from llmkit.recipe.stages import DpoStage, PretrainStage, SftStage
from llmkit.recipe.trainer_keys import declared

NUM_EXAMPLES = 8
# Tokens that are packed together: more fills rows better and takes more memory (8 bytes a token and column).
PACK_TOKENS = 2**21
_FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "labels": datasets.List(datasets.Value("int32")),
        "shape": datasets.Value("string"),
        "truncated": datasets.Value("bool"),
    }
)


@dataclass(frozen=True)
class Example:
    """One of the first rows, for people and for preflight."""

    row: Row
    where: str
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Settings:
    """What decides about the rows besides data and tokenizer."""

    kind: str
    max_length: int | None
    packing: bool
    packing_strategy: str
    assistant_only_loss: bool
    completion_only_loss: bool | None


def settings_of(stage: PretrainStage | SftStage | DpoStage) -> Settings:
    """How the rows of a stage are cut, masked and packed. Pairs are never packed, and train the answer alone."""
    pretrain = isinstance(stage, PretrainStage)
    return Settings(
        kind=stage.kind,
        max_length=stage.trainer.get("max_length") or declared(stage.kind)["max_length"],
        packing=pretrain or bool(stage.trainer.get("packing")),
        packing_strategy="bfd_split" if pretrain else stage.trainer.get("packing_strategy", "bfd"),
        assistant_only_loss=not pretrain and stage.trainer.get("assistant_only_loss", True),
        completion_only_loss=None if pretrain else stage.trainer.get("completion_only_loss"),
    )


def tokenise(
    mixture: Mixture,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    path: Path,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Write `input_ids`, `labels`, `shape` and `truncated` of all rows to `path`.

    Returns:
        `summary` (fields of DataSummary), `examples` and `num_bytes`, as plain data.

    Raises:
        DataError, TemplateError: a row cannot be rendered; with its file and line.
    """
    lengths: list[int] = []
    num_trained = num_truncated = num_spelling = num_bytes = 0
    examples: list[Example] = []
    with ArrowWriter(path=str(path), features=_FEATURES, writer_batch_size=1000) as writer:
        for placed in told(mixture, progress):
            try:
                encoded = encode(
                    tokenizer,
                    placed.row,
                    assistant_only_loss=settings.assistant_only_loss,
                    completion_only_loss=settings.completion_only_loss,
                )
            except (DataError, TemplateError) as error:
                raise at(placed.where, error) from error
            if len(examples) < NUM_EXAMPLES:
                examples.append(Example(placed.row, placed.where, encoded.input_ids, encoded.labels))
            num_bytes += encoded.num_bytes
            num_spelling += spells_tokens(tokenizer, placed.row)
            truncated = settings.kind == "sft" and len(encoded.input_ids) > (settings.max_length or 2**62)
            num_truncated += truncated
            shape = rendered_as(placed.row, tokenizer)
            for ids, labels in _cut(encoded, settings):
                writer.write({"input_ids": ids, "labels": labels, "shape": shape, "truncated": truncated})
                lengths.append(len(ids))
                num_trained += len(labels) - labels.count(IGNORE)
        writer.finalize()
    summary = DataSummary(
        num_rows=len(mixture),
        num_tokens=sum(lengths),
        num_trained_tokens=num_trained,
        num_truncated=num_truncated,
        num_spelling_tokens=num_spelling,
        length_quantiles=quantiles(lengths),
    )
    return facts_of(summary, examples, num_bytes)


def told(mixture: Mixture, progress: Callable[[int, int], None] | None) -> Iterator[Placed]:
    """The rows to be tokenised, one by one. Args: progress: called now and then with (rows done, rows in all)."""
    # starting threads for each row doubles the work, and on a busy machine far more
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for done, placed in enumerate(mixture, start=1):
        yield placed
        if progress is not None and (done % 1000 == 0 or done == len(mixture)):
            progress(done, len(mixture))


def spells_tokens(tokenizer: PreTrainedTokenizerBase, row: Row) -> bool:
    """Whether a row's texts spell control tokens."""
    return bool(spelled_tokens(tokenizer, json.dumps(row, ensure_ascii=False, default=str)))


def facts_of(summary: DataSummary, examples: Sequence[Example], num_bytes: int = 0) -> dict[str, Any]:
    """What `built.json` says of rows, as plain data."""
    return {"summary": summary.model_dump(), "examples": [asdict(each) for each in examples], "num_bytes": num_bytes}


def rendered_as(row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
    """How a row is rendered: "document" (text), "conversation" (through the template) or "completion" (without one)."""
    if "text" in row:
        return "document"
    return "conversation" if "messages" in row or tokenizer.chat_template else "completion"


def _cut(encoded: Encoded, settings: Settings) -> list[tuple[list[int], list[int]]]:
    ids, labels, size = encoded.input_ids, encoded.labels, settings.max_length
    if size is None or len(ids) <= size or (settings.packing and settings.kind == "pretrain"):
        return [(ids, labels)]  # packing cuts documents itself
    if settings.kind == "sft":
        return [(ids[:size], labels[:size])]
    return [(ids[start : start + size], labels[start : start + size]) for start in range(0, len(ids), size)]


def quantiles(lengths: list[int]) -> dict[str, int]:
    """Tokens per row at min, p50, p90, p99 and max."""
    points = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: int(np.quantile(lengths, point, method="higher")) for name, point in points.items()}


def pack(folder: Path, settings: Settings, num_tokens: int) -> datasets.Dataset:
    """`tokens.arrow` in the folder -> `packed.arrow` beside it: rows of at most `max_length` tokens."""
    rows = trainable(datasets.Dataset.from_file(str(folder / "tokens.arrow")))
    batch_size = max(64, PACK_TOKENS * len(rows) // num_tokens)
    options = {"cache_file_name": str(folder / "packed.arrow"), "batch_size": batch_size}
    with _quiet():
        return pack_dataset(rows, settings.max_length, settings.packing_strategy, options)


def trainable(rows: datasets.Dataset) -> datasets.Dataset:
    """Only the columns that a trainer reads."""
    return rows.select_columns(["input_ids", "labels"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, which would fill a worker's log."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
