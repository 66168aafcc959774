"""Each reported bug is found; healthy variants of the same things are not refused."""

from __future__ import annotations

import pytest
from mask_bugs import CASES, Case
from mask_bugs.cases import TALK, fly, good_row, ready, row
from mask_bugs.toys import bos_tokenizer, byte_tokenizer, metaspace_tokenizer

from llmkit.chat.prove import prove
from llmkit.chat.render import render, render_prompt_completion, render_text
from llmkit.chat.rows import IGNORED
from llmkit.chat.template import load_template, shipped_names

TOKENIZERS = [byte_tokenizer, bos_tokenizer, metaspace_tokenizer]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.origins[0]}-{case.find.__name__}")
def test_reported_bug_is_found(case: Case) -> None:
    found = case.find()
    assert any(case.expected in text for text in found), found


def test_corpus_is_as_large_as_promised() -> None:
    assert len({origin for case in CASES for origin in case.origins if "#" in origin}) >= 30


@pytest.mark.parametrize("build", TOKENIZERS)
@pytest.mark.parametrize("name", shipped_names())
def test_healthy_rows_pass(name: str, build) -> None:  # type: ignore[no-untyped-def]
    tokenizer = ready(name, build())
    assert prove(tokenizer) == []
    rows = [good_row(tokenizer), row(render(tokenizer, [{"role": "system", "content": "Be kind."}, *TALK[:2]]))]
    report = fly(rows, tokenizer, embedding_rows=len(tokenizer), parent_template_sha=load_template(name).sha256)
    assert (report.num_rows, report.num_trained_turns, report.num_untrained_turns) == (2, 3, 0)
    assert report.num_tokens == sum(len(one["input_ids"]) for one in rows)
    assert report.num_trained_tokens == sum(sum(one["assistant_masks"]) for one in rows)
    assert report.longest_row == max(len(one["input_ids"]) for one in rows)
    assert report.warnings == ()


@pytest.mark.parametrize("by", ["seq_lengths", "position_ids", "nothing"])
@pytest.mark.parametrize("name", shipped_names())
def test_healthy_packed_rows_pass(name: str, by: str) -> None:
    tokenizer = ready(name, bos_tokenizer())
    parts = [good_row(tokenizer), row(render(tokenizer, TALK[:2]))]
    packed = {key: parts[0][key] + parts[1][key] for key in parts[0]}
    if by == "seq_lengths":
        packed[by] = [len(part["input_ids"]) for part in parts]
    if by == "position_ids":
        packed[by] = [position for part in parts for position in range(len(part["input_ids"]))]
    assert fly([packed], tokenizer).num_trained_turns == 3


def test_healthy_adapter_passes() -> None:
    tokenizer = ready()
    ids = tuple(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))
    fly([good_row(tokenizer)], tokenizer, new_token_ids=ids, trainable_token_ids=ids)
    fly([good_row(tokenizer)], tokenizer, trainable_token_ids=(), parent_template_sha=load_template("chatml").sha256)


def test_healthy_labels_pass() -> None:
    tokenizer = ready()
    good = good_row(tokenizer)
    labels = [token if mask else IGNORED for token, mask in zip(*good.values(), strict=True)]
    report = fly([{"input_ids": good["input_ids"], "labels": labels}], tokenizer)
    assert report.num_trained_tokens == sum(good["assistant_masks"])


def test_untrained_turn_is_counted_and_not_refused() -> None:
    tokenizer = ready()
    for rendered in (
        render(tokenizer, [TALK[0], {**TALK[1], "train": False}, *TALK[2:]]),
        render(tokenizer, TALK, train_on="last_assistant"),
    ):
        report = fly([row(rendered)], tokenizer)
        assert (report.num_trained_turns, report.num_untrained_turns) == (1, 1)


def test_training_on_everything_passes_when_asked_for() -> None:
    tokenizer = ready()
    fly([row(render(tokenizer, TALK, train_on="all"))], tokenizer, train_on="all")


def test_documents_and_completions_pass() -> None:
    tokenizer = bos_tokenizer()
    eos = tokenizer.eos_token_id
    changes = {"conversational": False, "stop_token_id": eos, "generation_eos_ids": (eos,)}
    rows = [row(render_text(tokenizer, "a world\n")), row(render_prompt_completion(tokenizer, "6 * 7 =", " 42"))]
    assert fly(rows, tokenizer, **changes).num_rows == 2


def test_truncation_within_the_limit_is_counted_and_warned_of() -> None:
    tokenizer = ready()
    cut = {key: values[:-2] for key, values in good_row(tokenizer).items()}
    report = fly([good_row(tokenizer), {**cut, "truncated": True}], tokenizer, num_truncated=1, max_truncated=0.5)
    assert (report.num_truncated, report.num_stops_cut) == (1, 1)
    assert report.warnings == ("1 answers were cut before their stop token and teach no end",)
