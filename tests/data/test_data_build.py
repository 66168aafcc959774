"""Rows to trainer rows: labels, truncation, packing, cache."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers_data import built, byte_tokenizer, chat, write_rows

import llmkit.data.build as build_module
from llmkit.chat.template import apply_template, load_template
from llmkit.data.build import Built, texts
from llmkit.errors import DataError, TemplateError
from llmkit.recipe.parts import DataSource


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "docs.jsonl", [{"text": f"doc {i} " + "é" * (i * 7 % 90)} for i in range(60)])


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "chats.jsonl", [chat(f"What is {i}?", f"It is {i}." * (1 + i % 9)) for i in range(60)])


def trained_text(result: Built, row: int) -> str:
    labels = result.dataset[row]["labels"]
    return byte_tokenizer(chat=True).decode([token for token in labels if token != -100])


def all_tokens(rows: Iterable[list[int]]) -> list[int]:
    return sorted(token for row in rows for token in row)


def test_documents_are_trained_whole_with_one_eos(documents: Path) -> None:
    result = built(documents)
    eos = byte_tokenizer().eos_token_id
    for row in result.dataset:
        assert row["labels"] == row["input_ids"]
        assert row["input_ids"].index(eos) == len(row["input_ids"]) - 1
    assert result.num_bytes == sum(len(json.loads(line)["text"].encode()) for line in documents.open())
    assert result.summary.num_tokens == result.summary.num_trained_tokens == result.num_bytes + 60


def test_only_the_assistant_is_trained_in_chats(chats: Path) -> None:
    result = built(chats, chat=True)
    for index, example in enumerate(result.examples):
        answer = example.row["messages"][1]["content"]
        assert trained_text(result, index) == answer + "<|im_end|>"
        assert result.dataset[index]["input_ids"] == example.input_ids
    answers = [json.loads(line)["messages"][1]["content"] for line in chats.open()]
    assert result.num_bytes == sum(map(len, answers))
    assert result.summary.num_trained_tokens == result.num_bytes + len(answers)


def test_without_assistant_only_loss_every_token_is_trained(chats: Path) -> None:
    result = built(chats, chat=True, assistant_only_loss=False)
    assert all(row["labels"] == row["input_ids"] for row in result.dataset)


def test_prompt_and_completion_become_a_conversation_under_a_chat_template(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "qa.jsonl", [{"question": "Who?", "answer": "Me."}])
    source = DataSource(path=str(path), columns={"prompt": "question", "completion": "answer"})
    under = built(source, chat=True)
    assert under.dataset[0] == built(write_rows(tmp_path / "c.jsonl", [chat("Who?", "Me.")]), chat=True).dataset[0]
    raw = built(source, kind="sft")
    assert byte_tokenizer().decode(raw.dataset[0]["input_ids"]) == "Who?Me.<|endoftext|>"
    assert raw.dataset[0]["labels"][:4] == [-100] * 4
    assert -100 not in raw.dataset[0]["labels"][4:]
    for tokenizer_chat in (True, False):
        whole = built(source, kind="sft", tokenizer=byte_tokenizer(tokenizer_chat), completion_only_loss=False)
        assert whole.dataset[0]["labels"] == whole.dataset[0]["input_ids"]


def test_sft_truncates_and_counts_pretrain_cuts_and_loses_nothing(documents: Path, chats: Path) -> None:
    result = built(chats, chat=True, max_length=70)
    long = [len(e) for e in built(chats, chat=True).dataset["input_ids"] if len(e) > 70]
    assert result.summary.num_truncated == len(long) > 0
    assert result.summary.length_quantiles["max"] == 70
    whole = built(documents)
    pieces = built(documents, max_length=50)
    assert all_tokens(pieces.dataset["input_ids"]) == all_tokens(whole.dataset["input_ids"])
    assert max(map(len, pieces.dataset["input_ids"])) == 50
    assert pieces.summary.num_truncated == 0


@pytest.mark.parametrize("is_chat", [False, True])
def test_packed_rows_hold_the_same_sequences(documents: Path, chats: Path, is_chat: bool) -> None:
    path = chats if is_chat else documents
    loose = built(path, chat=is_chat, max_length=200)
    packed = built(path, chat=is_chat, max_length=200, packing=True)
    assert packed.summary.num_packed_rows == len(packed.dataset) < len(loose.dataset)
    sequences = []
    for row in packed.dataset:
        assert len(row["input_ids"]) == len(row["labels"]) == sum(row["seq_lengths"]) <= 200
        start = 0
        for length in row["seq_lengths"]:
            sequences.append((row["input_ids"][start : start + length], row["labels"][start : start + length]))
            start += length
    assert sorted(sequences) == sorted((row["input_ids"], row["labels"]) for row in loose.dataset)


def test_packing_long_documents_loses_no_token(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "long.jsonl", [{"text": f"{i}" * 333} for i in range(9)])
    packed = built(path, max_length=100, packing=True)
    assert all_tokens(packed.dataset["input_ids"]) == all_tokens(built(path).dataset["input_ids"])


def test_a_second_build_reads_the_cache_and_any_change_misses_it(
    chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    calls = []
    tokenise = build_module.tokenise

    def counted(*args: object) -> object:
        calls.append(1)
        return tokenise(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(build_module, "tokenise", counted)
    first = built(chats, chat=True, cache_dir=cache)
    again = built(chats, chat=True, cache_dir=cache)
    assert len(calls) == 1
    assert again.dataset[:] == first.dataset[:]
    assert (again.summary, again.examples, again.num_bytes) == (first.summary, first.examples, first.num_bytes)
    other = byte_tokenizer()
    apply_template(other, load_template("chatml_sep"))
    built(chats, chat=True, cache_dir=cache, tokenizer=other)
    built(chats, chat=True, cache_dir=cache, seed=1)
    built(chats, chat=True, cache_dir=cache, max_length=30)
    built(write_rows(chats, [chat("New?", "Yes.")]), chat=True, cache_dir=cache)
    monkeypatch.setattr(build_module, "_code_sha256", lambda: "changed")
    built(chats, chat=True, cache_dir=cache)
    assert len(calls) == 6
    assert not list(cache.glob(".building-*"))


def test_a_killed_build_leaves_nothing_that_looks_whole(
    chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object) -> None:
        raise KeyboardInterrupt

    cache = tmp_path / "cache"
    with monkeypatch.context() as patched:
        patched.setattr(build_module, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            built(chats, chat=True, cache_dir=cache)
    assert not list(cache.iterdir())
    assert len(built(chats, chat=True, cache_dir=cache).dataset) == 60


def test_progress_ends_at_all_rows(chats: Path) -> None:
    seen: list[tuple[int, int]] = []
    built(chats, chat=True, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (60, 60)


def test_summary_says_what_every_source_gave(documents: Path, chats: Path, tmp_path: Path) -> None:
    bad = write_rows(tmp_path / "bad.jsonl", [chat("a", "b"), chat("a", "b"), chat("a", "")])
    rejected = tmp_path / "rejected.jsonl"
    result = built(chats, documents, bad, chat=True, max_rejected=0.5, rejected_file=rejected)
    read = [(s.num_read, s.num_rejected, s.num_duplicates, s.num_used) for s in result.summary.sources]
    assert read == [(60, 0, 0, 60), (60, 0, 0, 60), (3, 1, 1, 1)]
    assert result.summary.num_rows == len(result.dataset) == 121
    assert result.summary.rejected_file == str(rejected) and rejected.is_file()


def test_a_row_that_the_template_refuses_is_named(chats: Path) -> None:
    tokenizer = byte_tokenizer()
    source = load_template("chatml").source
    tokenizer.chat_template = (
        source + "{% if messages[0].content == 'What is 7?' %}{{ raise_exception('no sevens') }}{% endif %}"
    )
    with pytest.raises(TemplateError, match=rf"{chats}:8: .*no sevens"):
        built(chats, chat=True, tokenizer=tokenizer)


def test_what_does_not_fit_is_refused(chats: Path) -> None:
    with pytest.raises(DataError, match="holds messages rows, and a 'pretrain' stage takes text"):
        built(chats)
    with pytest.raises(DataError, match="needs 'max_length'"):
        built(chats, chat=True, packing=True)


def test_texts_for_a_tokenizer(documents: Path) -> None:
    found = list(texts([DataSource(path=str(documents))], data_stages={}, seed=0, max_rejected=0.0, dedup=True))
    assert sorted(found) == sorted(json.loads(line)["text"] for line in documents.open())
