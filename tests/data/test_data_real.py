"""Real data that nobody on this project wrote; skipped without LLMKIT_REAL_DATA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers_data import built, byte_tokenizer

from llmkit.data.encode import sides
from llmkit.data.mixture import mix
from llmkit.recipe.parts import DataSource
from llmkit.stages.index import main as index_documents
from llmkit.tools.index import Index


def test_gsm8k_by_a_column_map(real_data: Path) -> None:
    source = DataSource(
        path=str(real_data / "gsm8k/test.jsonl"), columns={"prompt": "question", "completion": "answer"}, num_rows=200
    )
    result = built(source, chat=True, packing=True, max_length=2048)
    (count,) = result.summary.sources
    assert (count.num_read, count.num_rejected, count.num_used) == (1319, 0, 200)
    assert result.summary.num_packed_rows is not None and result.summary.num_packed_rows < 100
    assert 0.2 < result.summary.num_trained_tokens / result.summary.num_tokens < 0.8


def test_wikitext_is_packed_whole_and_its_slices_are_disjoint(real_data: Path) -> None:
    path = str(real_data / "wikitext-2/valid.txt")
    text = Path(path).read_text()
    train, heldout = (
        built(DataSource(path=path, split=split), packing=True, max_length=512)
        for split in ("train[:90%]", "train[90%:]")
    )
    num_documents = train.summary.num_rows + heldout.summary.num_rows
    assert num_documents >= text.count("\n = ") - text.count("\n = = ")
    assert 0.98 * len(text.encode()) < train.num_bytes + heldout.num_bytes <= len(text.encode())
    assert train.summary.num_tokens == train.num_bytes + train.summary.num_rows
    assert sum(map(len, train.dataset["input_ids"])) == train.summary.num_tokens
    assert 0.03 < heldout.num_bytes / train.num_bytes < 0.3


def test_tinyshakespeare_without_headings(real_data: Path) -> None:
    result = built(DataSource(path=str(real_data / "tinyshakespeare/input.txt")), packing=True, max_length=1024)
    assert result.summary.num_rows > 50
    assert result.summary.length_quantiles["max"] < 20_000


def test_hh_rlhf_preferences(real_data: Path, tmp_path: Path) -> None:
    source = DataSource(path=str(real_data / "hh_rlhf/harmless-base-test.jsonl.gz"))
    mixture = mix([source], seed=0, folder=tmp_path, data_stages={}, rejected_file=tmp_path / "rejected.jsonl")
    (count,) = mixture.counts
    assert count.num_read == 2312
    assert count.num_rejected <= 0.01 * 2312
    assert count.num_read == count.num_used + count.num_rejected + count.num_duplicates
    tokenizer = byte_tokenizer(chat=True)
    for placed, _ in zip(mixture, range(50), strict=False):
        chosen, rejected = sides(tokenizer, placed.row)
        assert chosen.num_bytes and rejected.num_bytes
        assert placed.row["prompt"][-1]["role"] == "user"
    assert all(len(placed.row["chosen"]) == len(placed.row["rejected"]) == 1 for placed in mixture)


def test_nq_open_has_several_answers(real_data: Path) -> None:
    source = DataSource(
        path=str(real_data / "nq_open/dev.jsonl"), columns={"prompt": "question", "completion": "answer"}, num_rows=100
    )
    result = built(source, chat=True)
    assert result.summary.num_rows == 100
    assert all(isinstance(example.row["completion"], str) for example in result.examples)


@pytest.fixture(scope="module")
def library(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Wikitext and a page on every country, as `llmkit index` makes it."""
    folder = tmp_path_factory.mktemp("library")
    countries = json.loads((real_data / "countries/countries.json").read_text())
    with (folder / "countries.jsonl").open("w") as file:
        for one in countries:
            name, tongues = one["name"]["common"], ", ".join(one["languages"].values())
            text = (
                f"{name} is a country in {one['region']}. Capital: {', '.join(one['capital'])}. Languages: {tongues}."
            )
            file.write(json.dumps({"title": name, "text": text}) + "\n")
    documents = [str(folder / "countries.jsonl"), str(real_data / "wikitext-2/valid.txt")]
    assert index_documents([*documents, "--out", str(folder / "index"), "--passage-chars", "600"]) == 0
    return Index.open(folder / "index")


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("capital of Mongolia", "Mongolia"),
        ("which country has the capital Ouagadougou", "Burkina Faso"),
        ("Where is Thimphu the capital?", "Bhutan"),
        ("dzongkha LANGUAGE", "Bhutan"),
        ("European lobster Homarus gammarus", "Homarus gammarus"),
        ("Meridian Mississippi railroad", "Meridian , Mississippi"),
        ("who wrote Angel of Death by Slayer", "Angel of Death ( Slayer song )"),
        ("High Five Interchange Dallas", "High Five Interchange"),
        ("Scientology in Germany court", "Scientology in Germany"),
        ("Sonic the Hedgehog Mega Drive game", "Sonic the Hedgehog ( 1991 video game )"),
        ("Battle of Sullivan's Island 1776", "Battle of Sullivan 's Island"),
        ("Japanese battleship Asahi", "Japanese battleship Asahi"),
        ("Raid on Manila 1798", "Raid on Manila ( 1798 )"),
    ],
)
def test_search_finds_what_is_asked_for(library: Index, query: str, title: str) -> None:
    first, *_ = library.search(query, 3, "any")
    assert first.title == title


def test_search_finds_nothing_of_rubbish(library: Index) -> None:
    assert library.search("xyzzy plugh", 3, "any") == []
