"""Preflight as a whole: all problems at once, where they are, over many rows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from mask_bugs.cases import fly, good_row, ready, texts, with_source
from mask_bugs.toys import byte_tokenizer

from llmkit.chat.preflight import BLOCK_ROWS
from llmkit.chat.rows import Block
from llmkit.errors import PreflightError


def test_all_problems_at_once_each_with_row_excerpt_and_cure() -> None:
    tokenizer = ready(tokenizer=byte_tokenizer(pad_token="<|endoftext|>"))
    good = good_row(tokenizer)
    zeros = {**good, "assistant_masks": [0] * len(good["input_ids"])}
    ones = {**good, "assistant_masks": [1] * len(good["input_ids"])}
    with pytest.raises(PreflightError) as caught:
        fly([good, zeros, good, ones, zeros], tokenizer, generation_eos_ids=(), name="stage sft, train")
    found = {problem.where: problem for problem in caught.value.problems}
    assert set(found) == {
        "generation_config.eos_token_id",
        "tokenizer",
        "stage sft, train row 1",
        "stage sft, train row 3",
    }
    assert len(found) == len(caught.value.problems)
    row = found["stage sft, train row 1"]
    assert "(1 more rows alike)" in row.what and "What" in row.what and row.cure
    assert all(problem.cure for problem in caught.value.problems)


def test_rows_behind_the_first_block_keep_their_number() -> None:
    tokenizer = ready()
    good = good_row(tokenizer)
    zeros = {**good, "assistant_masks": [0] * len(good["input_ids"])}
    bad_at = BLOCK_ROWS + 7

    def rows() -> Iterator[dict[str, Any]]:
        for index in range(2 * BLOCK_ROWS + 10):
            yield zeros if index == bad_at else good

    (found,) = texts(lambda: fly(rows(), tokenizer, num_rows=5000))
    assert found.startswith(f"train row {bad_at}: no token of it is trained")


def test_datasets_rows_and_report() -> None:
    tokenizer = ready()
    rows = Dataset.from_list([good_row(tokenizer)] * 3)
    report = fly(rows, tokenizer)
    assert report.num_rows == 3 and 0 < report.share_trained < 1
    assert json.loads(json.dumps(report.as_dict()))["share_trained"] == report.share_trained
    assert fly(rows.with_format("numpy"), tokenizer) == report


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"input_ids": [1, 2], "assistant_masks": [1]}, "row 0 has 2 input_ids and 1 assistant_masks"),
        ({"input_ids": [1, 2]}, "row 0 has 2 input_ids and no assistant_masks"),
        ({"input_ids": [], "assistant_masks": []}, "row 0: it has no tokens"),
        ({"input_ids": [10**6], "assistant_masks": [1]}, "a token id that the embedding has no row for"),
        ({"input_ids": [-1], "assistant_masks": [1]}, "a token id that the embedding has no row for"),
    ],
)
def test_malformed_rows(row: dict[str, list[int]], what: str) -> None:
    assert any(what in text for text in texts(lambda: fly([row], ready())))


def test_no_rows_and_no_template() -> None:
    assert any("there are no rows" in text for text in texts(lambda: fly([], ready())))
    bare = byte_tokenizer()
    assert any("it has no chat template" in text for text in texts(lambda: fly([], bare, stop_token_id=None)))
    assert any("without a stop token" in text for text in texts(lambda: fly([], bare, stop_token_id=None)))


def test_warns_when_hardly_anything_is_trained() -> None:
    tokenizer = ready()
    good = good_row(tokenizer)
    long = {"input_ids": [65] * 3000 + good["input_ids"], "assistant_masks": [0] * 3000 + good["assistant_masks"]}
    assert fly([long], tokenizer).warnings[0].startswith("only 0.")


def test_packed_rows_are_checked_at_their_borders() -> None:
    """Two documents without a border would read as one BOS too many or as a run that goes on."""
    tokenizer = byte_tokenizer(bos_token="<s>")
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    plain = {"conversational": False, "stop_token_id": eos, "generation_eos_ids": (eos,)}
    ids = [bos, 65, eos, bos, bos, 66, eos]
    row = {"input_ids": ids, "assistant_masks": [1] * 7}
    assert texts(lambda: fly([row], tokenizer, **plain)) == []
    found = texts(lambda: fly([{**row, "seq_lengths": [3, 4]}], tokenizer, **plain))
    assert len(found) == 1 and "two BOS" in found[0]
    lone = {"input_ids": [bos, bos, 65, eos], "assistant_masks": [1] * 4, "seq_lengths": [1, 3]}
    assert texts(lambda: fly([lone], tokenizer, **{**plain, "stop_token_id": None})) == []
    open_end = {"input_ids": [bos, 65, bos, 66, eos], "assistant_masks": [1] * 5}
    assert texts(lambda: fly([open_end], tokenizer, **plain)) == []
    found = texts(lambda: fly([{**open_end, "position_ids": [0, 1, 0, 1, 2]}], tokenizer, **plain))
    assert len(found) == 1 and "does not end with the trained stop token" in found[0]


def test_pattern_does_not_match_across_rows() -> None:
    rows = [
        {"input_ids": [1, 2], "assistant_masks": [0, 1]},
        {"input_ids": [3, 1, 2, 3], "assistant_masks": [0, 0, 0, 1]},
    ]
    block = Block.of(rows, 0, None)
    assert np.flatnonzero(block.ends_with((2, 3))).tolist() == [6]
    assert np.flatnonzero(block.ends_with((1, 2))).tolist() == [2, 5]
    assert [positions.tolist() for positions in block.runs()] == [[1, 5], [1, 5]]


def test_cost_is_linear_and_small() -> None:
    """At most 1 microsecond of CPU per token: a million rows of 500 tokens in minutes, not hours."""
    tokenizer = ready()
    good = good_row(tokenizer)
    num_rows = 20_000
    fly([good], tokenizer)
    start = time.process_time()
    report = fly([good] * num_rows, tokenizer)
    assert (time.process_time() - start) / report.num_tokens < 1e-6


def test_a_row_that_says_it_was_not_cut_is_not_excused() -> None:
    """It is as long as max_length by chance; its missing stop token is another's fault."""
    tokenizer = ready()
    cut = {key: values[:-2] for key, values in good_row(tokenizer).items()}
    limits = {"num_truncated": 1, "max_truncated": 0.5, "max_length": len(cut["input_ids"]), "num_rows": 2}
    assert fly([cut], tokenizer, **limits).num_stops_cut == 1
    found = texts(lambda: fly([{**cut, "truncated": False}], tokenizer, **limits))
    assert len(found) == 1 and "does not end with the trained stop token" in found[0]


def test_a_row_cut_at_its_front_may_begin_inside_an_answer() -> None:
    for name in ("chatml", "chatml_sep"):  # chatml_sep: the row before ends with a trained token
        tokenizer = ready(name)
        good = good_row(tokenizer)
        first = good["assistant_masks"].index(1) + 1
        cut = {key: values[first:] for key, values in good.items()}
        limits = {"num_truncated": 1, "max_truncated": 1.0}
        assert fly([good, {**cut, "truncated": True}], tokenizer, **limits).num_trained_turns == 4
        assert len(texts(lambda: fly([cut], tokenizer))) == 1  # noqa: B023


def test_format_without_a_generation_prompt_of_its_own() -> None:
    """As Mistral's, where the user's turn ends with the token behind which the assistant answers."""
    source = (
        "{#- special_tokens: [INST] [/INST] <end>; stop_token: <end> -#}{% for m in messages %}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<end>' }}{% endgeneration %}"
        "{% else %}{{ '[INST]' + m.content + '[/INST]' }}{% endif %}{% endfor %}"
    )
    tokenizer = with_source(source, ["[INST]", "[/INST]", "<end>"])
    stop = tokenizer.convert_tokens_to_ids("<end>")
    fly([good_row(tokenizer)], tokenizer, stop_token_id=stop, generation_eos_ids=(stop,))
    bad = good_row(tokenizer)
    bad["assistant_masks"][bad["assistant_masks"].index(1)] = 0
    found = texts(lambda: fly([bad], tokenizer, stop_token_id=stop, generation_eos_ids=(stop,)))
    assert len(found) == 1 and "right behind the generation prompt '[/INST]'" in found[0]


def test_everything_trained_must_still_hold_a_stop_token() -> None:
    tokenizer = ready()
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = [token for token in good_row(tokenizer)["input_ids"] if token != stop]
    found = texts(lambda: fly([{"input_ids": ids, "assistant_masks": [1] * len(ids)}], tokenizer, train_on="all"))
    assert len(found) == 1 and "does not end with the trained stop token" in found[0]


def test_two_faults_in_one_row_are_one_row() -> None:
    tokenizer = byte_tokenizer()
    plain = {"conversational": False, "stop_token_id": None, "generation_eos_ids": ()}
    (found,) = texts(lambda: fly([{"input_ids": [65, 10**6, 10**6], "assistant_masks": [1] * 3}], tokenizer, **plain))
    assert "more rows alike" not in found
