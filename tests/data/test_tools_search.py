"""Search: what is cut, found and written, and indexes that are damaged, foreign or half-built."""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.errors import DataError, RunError, UserError
from llmkit.recipe.tools import SearchSpec
from llmkit.stages.index import main
from llmkit.tools import index as index_module
from llmkit.tools.index import MARK, Document, Index, Passage, build_index
from llmkit.tools.passages import passages
from llmkit.tools.search import NOTHING, search_tool, written
from llmkit.tools.words import words

DOCUMENTS = [
    Document("Paris is the capital of France. It lies on the Seine.", "Paris", "a"),
    Document("Bogot\u00e1 is the capital of Colombia.", "Bogot\u00e1", "b"),
    Document("\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002", "\u65e5\u672c", "c"),
    Document("Rivers flow.\n\n" + "Water is wet. " * 100, "Rivers", "d"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "mine"
    build_index(DOCUMENTS, folder)
    return folder


def tool_of(folder: Path, **settings: Any) -> Any:
    return search_tool(SearchSpec(name="search", index=str(folder), **settings))


# Passages -------------------------------------------------------------------------------------------------------------


def test_passages_end_at_paragraphs_then_sentences_then_words() -> None:
    text = "One. Two.\n\nThree is longer. Four too.\n\nFive."
    assert list(passages(text, 100, 0)) == ["One. Two.\n\nThree is longer. Four too.\n\nFive."]
    assert list(passages(text, 30, 0)) == ["One. Two.", "Three is longer. Four too.", "Five."]
    assert list(passages(text, 20, 0)) == ["One. Two.", "Three is longer.", "Four too.\n\nFive."]
    assert list(passages("abc defgh", 5, 0)) == ["abc", "defgh"] and list(passages("abcdefgh", 5, 0)) == [
        "abcde",
        "fgh",
    ]
    assert list(passages(" \n\n ", 5, 0)) == []


def test_overlap_repeats_whole_pieces() -> None:
    text = "aa bb. cc dd. ee ff. gg hh."
    assert list(passages(text, 14, 0)) == ["aa bb. cc dd.", "ee ff. gg hh."]
    assert list(passages(text, 14, 9)) == ["aa bb. cc dd.", "cc dd. ee ff.", "ee ff. gg hh."]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    text=st.lists(st.sampled_from(["ab ", "c. ", "d", "\n", "\n\n", "\u3002", "efghijkl"]), max_size=40).map("".join),
    size=st.integers(3, 30),
    overlap=st.integers(0, 29),
)
def test_no_passage_is_too_long_and_no_letter_is_lost(text: str, size: int, overlap: int) -> None:
    cut = list(passages(text, size, min(overlap, size - 1)))
    assert all(0 < len(passage) <= size for passage in cut)
    without = "".join(passages(text, size, 0))
    assert re.sub(r"\s", "", without) == re.sub(r"\s", "", text)


# Finding --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("What is the capital of France?", "a"),
        ("BOGOTA", "b"),
        ("Bogot\u00e1", "b"),
        ("\u9996\u90fd", "c"),
        ("Paris", "a"),
        ("seine \ud800", "a"),
        ("rivers " * 10_000, "d"),
    ],
)
def test_search_finds(folder: Path, query: str, found: str) -> None:
    assert Index.open(folder).search(query, 3)[0].id == found


@pytest.mark.parametrize("query", ["", " ", "?!", "\x00", "zzzz", "<|im_end|>", "\ud800", "*" * 10**6, "'; DROP TABLE"])
def test_rubbish_finds_nothing_and_harms_nothing(folder: Path, query: str) -> None:
    result = tool_of(folder).result({"query": query})
    assert (result.text, result.failed) == (NOTHING, False)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(query=st.lists(st.sampled_from(["capital", "of", "France", "Seine", "paris", "water", "Anna"]), max_size=5))
def test_all_words_of_a_query_can_be_asked_for(folder: Path, query: list[str]) -> None:
    index, asked = Index.open(folder), {word.casefold() for word in query}
    holding = {each.id for each in DOCUMENTS if asked and asked <= set(words(f"{each.title} {each.text}"))}
    assert {each.id for each in index.search(" ".join(query), 20, "all")} == holding
    assert holding <= {each.id for each in index.search(" ".join(query), 20)}


def test_search_from_many_threads(folder: Path) -> None:
    tool, found = tool_of(folder), []
    ask = lambda: found.extend(tool.result({"query": "capital of France"}).text for _ in range(50))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400 and len(set(found)) == 1 and found[0].startswith("[1] Paris is the capital")


def test_settings_change_what_is_written(folder: Path) -> None:
    long = tool_of(folder, num_results=4).result({"query": "capital water"}).text
    assert long.count("[") > 2 and "\n\n[2] " in long
    assert "[2]" not in tool_of(folder, num_results=1).result({"query": "capital water"}).text
    named = tool_of(folder, tool_name="look_up")
    assert named.name == named.schema["function"]["name"] == "look_up" and tool_of(folder).name == "search"
    norway = {"query": "capital of Norway"}
    assert "Paris" in tool_of(folder).result(norway).text
    assert tool_of(folder, match="all").result(norway).text == NOTHING
    short = tool_of(folder, max_chars=100).result({"query": "water"}).text
    assert len(short) <= 100 and short.endswith("...")


def test_titles_stand_over_passages_that_lack_them() -> None:
    found = [Passage("It lies on the Seine.", "Paris", "", 1.0), Passage("Paris is old.", "Paris", "", 1.0)]
    assert written(found, 1000) == "[1] Paris\nIt lies on the Seine.\n\n[2] Paris is old."
    pages = [Passage("# Plums\n\nBlue.", "Plums", "", 1.0), Passage("= Nuts =\n\nHard.", "Nuts", "", 1.0)]
    assert written(pages, 1000) == "[1] # Plums\n\nBlue.\n\n[2] = Nuts =\n\nHard."


def test_words_are_without_case_accents_and_joints() -> None:
    assert words("The Stra\u00dfe's caf\u00e9, 3.5 \u6771\u4eac x_y") == [
        "the", "strasse", "s", "cafe", "3", "5", "\u6771", "\u4eac", "x", "y",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "found",
    [
        ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u092d\u093e\u0937\u093e"],
        ["\u0ba4\u0bae\u0bbf\u0bb4\u0bcd"],
        ["\u304c", "\u304b"],
        ["\ud55c\uad6d\uc5b4"],
        ["\u0e44", "\u0e17", "\u0e22"],
    ],
)
def test_words_of_other_scripts(found: list[str]) -> None:
    """Signs of vowels belong to a word (Hindi, Tamil), and a letter with its sign is another one (Japanese)."""
    assert words(" ".join(found)) == found == words(unicodedata.normalize("NFD", " ".join(found)))


def test_points_that_are_mostly_left_out_do_not_count() -> None:
    assert words("\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd") == ["\u05e9\u05dc\u05d5\u05dd"]
    assert words("\u0643\u0650\u062a\u0627\u0628 \u043c\u043e\u0439") == [
        "\u0643\u062a\u0627\u0628",
        "\u043c\u043e\u0438",
    ]


# Indexes --------------------------------------------------------------------------------------------------------------


def test_an_index_of_other_documents_or_versions_is_refused(folder: Path, tmp_path: Path) -> None:
    digest = Index.open(folder).manifest.digest
    assert Index.open(folder, digest[:12]).manifest.num_documents == 4
    with pytest.raises(UserError, match="is an index of other documents: its digest is"):
        tool_of(folder, digest="0123")
    other = build_index([DOCUMENTS[0], DOCUMENTS[1]._replace(title="x")], tmp_path / "other")
    assert other.digest != build_index(DOCUMENTS[:2], tmp_path / "two").digest
    manifest = tmp_path / "other" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 1}))
    with pytest.raises(UserError, match="is an index of format 1, and this llmkit reads format 2; build it anew"):
        Index.open(tmp_path / "other")
    build_index(DOCUMENTS[:1], tmp_path / "other")
    assert Index.open(tmp_path / "other").search("paris", 1), "and there, too"
    with pytest.raises(UserError, match="is no index; make one: llmkit index"):
        Index.open(tmp_path)
    manifest = tmp_path / "two" / "manifest.json"
    manifest.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        Index.open(tmp_path / "two")
    build_index(DOCUMENTS[:2], tmp_path / "three")
    next((tmp_path / "three").glob("data-*/bm25/data*")).unlink()
    build_index(DOCUMENTS[:2], tmp_path / "four")
    next((tmp_path / "four").glob("data-*/offsets.npy")).write_bytes(b"")
    for name in ("three", "four"):
        with pytest.raises(UserError, match="is a damaged index"):
            Index.open(tmp_path / name)


def test_a_closed_tool_reads_no_other_file(tmp_path: Path) -> None:
    """Its number may belong to somebody else's by then."""
    build_index(DOCUMENTS[:1], tmp_path / "mine")
    tool = tool_of(tmp_path / "mine")
    tool.close()
    (tmp_path / "other").write_text("x" * 1000)
    with (tmp_path / "other").open() as file:
        result = tool.result({"query": "paris"})
        assert result.failed and "ValueError" in result.text
        tool.close()
        assert file.read() == "x" * 1000


def test_two_builders_of_one_folder(tmp_path: Path) -> None:
    def begins_another() -> Iterator[Document]:
        yield DOCUMENTS[0]
        with pytest.raises(UserError, match="is being written by another process; wait"):
            build_index(DOCUMENTS[1:2], tmp_path / "mine")
        yield DOCUMENTS[1]

    build_index(begins_another(), tmp_path / "mine")
    assert Index.open(tmp_path / "mine").manifest.num_documents == 2
    build_index(DOCUMENTS[:1], tmp_path / "mine")


def test_a_reader_goes_on_with_what_took_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index(DOCUMENTS[:1], tmp_path / "mine")
    read = index_module.read_index_manifest
    replaced: list[bool] = []

    def replaces(folder: Path) -> Any:
        manifest = read(folder)
        if not replaced:
            replaced.append(True)
            build_index(DOCUMENTS[1:2], folder)
        return manifest

    monkeypatch.setattr(index_module, "read_index_manifest", replaces)
    assert Index.open(tmp_path / "mine").search("bogota", 1)


def test_a_new_index_replaces_the_old_one_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    build_index(DOCUMENTS[:1], folder)
    reader = Index.open(folder)

    def breaks() -> Any:
        yield DOCUMENTS[1]
        raise DataError("row 2", "is broken")

    with pytest.raises(DataError):
        build_index(breaks(), folder)
    assert Index.open(folder).search("paris", 1) and len(list(folder.iterdir())) == 2
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(index_module.np, "save", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(RunError, match="the disk is full"):
        build_index(DOCUMENTS, folder)
    monkeypatch.undo()
    assert Index.open(folder).search("paris", 1)
    (folder / "data-killed").mkdir()
    (folder / "data-killed" / MARK).touch()
    build_index(DOCUMENTS[1:2], folder)
    assert not Index.open(folder).search("paris", 1) and len(list(folder.iterdir())) == 2
    assert reader.search("paris", 1)[0].title == "Paris", "who has the old one open goes on with it"


def test_what_cannot_be_indexed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is there already and is no index"):
        build_index(DOCUMENTS, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    with pytest.raises(DataError, match="there is no word in them"):
        build_index([Document("?!")], tmp_path / "empty")
    build_index(DOCUMENTS, tmp_path / "empty")


@pytest.mark.parametrize("file", ["data-2023/thesis.txt", "manifest.json"])
def test_what_is_not_ours_is_neither_written_nor_deleted(tmp_path: Path, file: str) -> None:
    """A folder of one's own data, and a finished stage."""
    precious = tmp_path / "corp" / file
    precious.parent.mkdir(parents=True)
    precious.write_text('{"kind": "sft"}')
    with pytest.raises(UserError, match="is there already and is no index"):
        build_index(DOCUMENTS, tmp_path / "corp")
    assert precious.read_text() == '{"kind": "sft"}'


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give less than a passage has"):
        build_index(DOCUMENTS, tmp_path / "x", passage_chars=100, overlap=100)


# The command ----------------------------------------------------------------------------------------------------------


def test_index_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": "Apples are red.", "title": "Apple", "id": 7}\n')
    pyarrow.parquet.write_table(pyarrow.table({"text": ["Pears are green."]}), "b.parquet")
    Path("c.md").write_text("# Plums\n\nThey are blue.\n\n# Figs\n\nThey are sweet.\n")
    Path("d.txt").write_text(" = Nuts = \n\n They are hard . \n")
    assert (
        main(["a.jsonl", "*.parquet", "c.md", "d.txt", "--out", "out", "--passage-chars", "50", "--overlap", "5"]) == 0
    )
    assert "5 passages of 5 documents, digest " in capsys.readouterr().out
    index = Index.open("out")
    titles = [index.search(word, 1)[0].title for word in ("red", "green", "blue", "sweet", "hard")]
    assert titles == ["Apple", "", "Plums", "Figs", "Nuts"]
    assert index.search("red", 1)[0].id == "7" and index.search("green", 1)[0].id.endswith("b.parquet:1")
    assert (index.manifest.passage_chars, index.manifest.overlap) == (50, 5)
    for bad, what in [
        (["x.jsonl"], "no such file"),
        (["a.jsonl", "--text-column", "body"], "it has no text in 'body' (it has text, title, id)"),
        (["bad.jsonl"], "broken JSON"),
    ]:
        Path("bad.jsonl").write_text('{"text": "x"}\n{"text":\n')
        assert main([*bad, "--out", "out"]) == 2
        assert what in capsys.readouterr().err
    assert Index.open("out").search("red", 1), "and the index that was there still is"
