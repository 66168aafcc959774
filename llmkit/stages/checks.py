"""Preflight as a training stage calls it: each shape of rows by its own rules, before the model loads."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from llmkit.artifacts.manifest import read_manifest
from llmkit.chat.encode import document_eos
from llmkit.chat.preflight import PreflightContext, preflight
from llmkit.chat.template import ChatTemplate
from llmkit.data.build import Built
from llmkit.data.tokens import settings_of
from llmkit.errors import PreflightError, Problem
from llmkit.modeling.tokens import stop_token_ids
from llmkit.stages.common import Worker
from llmkit.stages.training import Rows, train_stage

COLUMNS = ["input_ids", "labels", "truncated"]


def check_rows(
    worker: Worker, rows: Rows, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None, new_tokens: list[str]
) -> None:
    """Raises PreflightError with all that is wrong in training and held-out rows; warnings go to the manifest."""
    problems: list[Problem] = []
    for name, built in {"train": rows.train, **rows.heldout}.items():
        problems += _check_built(worker, name, built, tokenizer, template, new_tokens)
    if problems:
        raise PreflightError(problems)


def _check_built(
    worker: Worker,
    name: str,
    built: Built,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate | None,
    new_tokens: list[str],
) -> list[Problem]:
    stage = train_stage(worker)
    problems: list[Problem] = []
    if spelling := built.summary.num_spelling_tokens:
        worker.warn(
            f"{name}: {spelling} of {built.summary.num_rows} rows spell out special tokens, which stay plain text; "
            "rows that were formatted before belong into a 'messages' column"
        )
    shapes = built.rows.unique("shape")
    for shape in shapes:
        part = built.rows if len(shapes) == 1 else _of_shape(built.rows, shape)
        label = f"stage '{stage.name}': {name} ({shape})"
        context = _context(worker, label, shape, part, tokenizer, template, new_tokens)
        try:
            report = preflight(part.select_columns(COLUMNS), tokenizer, context)
        except PreflightError as error:
            problems += error.problems
        else:
            for warning in report.warnings:
                worker.warn(f"{name} ({shape}): {warning}")
    return problems


def _of_shape(rows: Dataset, shape: str) -> Dataset:
    return rows.select([index for index, found in enumerate(rows["shape"]) if found == shape])


def _context(
    worker: Worker,
    name: str,
    shape: str,
    part: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate | None,
    new_tokens: list[str],
) -> PreflightContext:
    stage = train_stage(worker)
    trains_all = stage.kind == "sft" and not stage.trainer["assistant_only_loss"]
    conversational = shape == "conversation"
    end = template.stop_token if conversational and template else document_eos(tokenizer)
    parent = read_manifest(Path(worker.file.parent)) if worker.file.parent else None
    trained_tokens = sorted({*new_tokens, *(template.special_tokens if template else ())})
    return PreflightContext(
        # documents of a pretrain stage are cut into rows and need not end in one
        stop_token_id=None if stage.kind == "pretrain" else tokenizer.convert_tokens_to_ids(end),
        generation_eos_ids=tuple(stop_token_ids(tokenizer)),
        conversational=conversational,
        num_rows=len(part),
        num_truncated=sum(part["truncated"]),
        max_truncated=stage.max_truncated,
        max_length=settings_of(stage).max_length,
        train_on="all" if trains_all else "assistant",
        embedding_rows=len(tokenizer),
        parent_template_sha=parent.chat_template_sha256 if parent and conversational else None,
        new_token_ids=tuple(tokenizer.convert_tokens_to_ids(new_tokens)),
        trainable_token_ids=tuple(tokenizer.convert_tokens_to_ids(trained_tokens)) if stage.peft else None,
        name=name,
    )
