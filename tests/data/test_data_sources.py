"""Raw rows: files of every kind, functions, stages, the Hub; and what each says when it is not there."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
from helpers_data import write_rows

from llmkit.data import sources
from llmkit.data.files import LONG_DOCUMENT, Raw
from llmkit.data.sources import is_local, read_source
from llmkit.errors import DataError
from llmkit.online import HUB_TIMEOUT
from llmkit.recipe.parts import DataSource

ROWS = [{"text": "one"}, {"text": "zwei ä"}, {"text": "three"}]


def read(path: Any, **fields: Any) -> list[Raw]:
    return list(read_source(DataSource(path=str(path), **fields), {}, 0))


def write_as(folder: Path, suffix: str) -> Path:
    path = folder / f"rows{suffix}"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    text = {
        ".jsonl": lines,
        ".ndjson": lines,
        ".json": json.dumps(ROWS, indent=2).encode(),
        ".csv": "text\none\nzwei ä\nthree\n".encode(),
    }
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(text[suffix.removesuffix(".gz")]))
    else:
        path.write_bytes(text[suffix])
    return path


@pytest.mark.parametrize(
    "suffix", [".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".jsonl.gz", ".csv.gz", ".json.gz"]
)
def test_every_kind_of_file_gives_its_rows_in_order(tmp_path: Path, suffix: str) -> None:
    raws = read(write_as(tmp_path, suffix))
    assert [raw.value for raw in raws] == ROWS
    assert not any(raw.error for raw in raws)
    first = 2 if suffix.startswith(".csv") else 1
    assert [raw.line for raw in raws] == [first, first + 1, first + 2]


def test_json_may_hold_lines_or_one_array_in_an_object(tmp_path: Path) -> None:
    lines = write_rows(tmp_path / "a.json", ROWS)
    wrapped = tmp_path / "b.json"
    wrapped.write_text(json.dumps({"data": ROWS}, indent=1))
    assert [raw.value for raw in read(lines)] == ROWS
    assert [raw.value for raw in read(wrapped)] == ROWS


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv"):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + write_as(tmp_path, path.suffix).read_bytes())
        assert read(path)[0].value == ROWS[0]


def test_bad_lines_come_with_line_and_reason(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "a"}, '{"text": ', "", b'{"text": "\xff"}', {"text": "b"}])
    bad = [(raw.line, raw.error) for raw in read(path) if raw.error]
    assert [line for line, _ in bad] == [2, 4]
    assert "broken JSON at column" in bad[0][1]
    assert bad[1][1] == "invalid UTF-8 at byte 11 of the line"


def test_csv_rows_of_the_wrong_width_and_with_invalid_bytes_are_bad(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'question,answer\na,b\nc\nd,e,f\n\xff,g\n"two\nlines",h\n')
    raws = read(path)
    reasons = {
        2: "",
        3: "1 fields where the header has 2",
        4: "3 fields where the header has 2",
        5: "invalid UTF-8",
        7: "",
    }
    assert {raw.line: raw.error for raw in raws} == reasons
    assert raws[-1].value == {"question": "two\nlines", "answer": "h"}


def test_globs_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, name in enumerate(["b.jsonl", "a.jsonl", "sub/c.jsonl"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_rows(tmp_path / name, [{"text": str(index)}])
    monkeypatch.chdir(tmp_path)
    assert [raw.value["text"] for raw in read("*.jsonl")] == ["1", "0"]
    assert len(read("**/*.jsonl")) == 3
    with pytest.raises(DataError, match=r"sub: is a folder; name its files: ./sub/\*.jsonl"):
        read("./sub")


def test_a_missing_file_names_its_path_the_folder_and_near_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "chats.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        read("chat.jsonl")
    assert str(caught.value) == (
        f"{tmp_path}/chat.jsonl: no such file; did you mean chats.jsonl? the current folder is {tmp_path}"
    )
    with pytest.raises(DataError, match="no such file"):
        read("nothing-*.jsonl")


@pytest.mark.parametrize(
    ("path", "local"), [("a/b.jsonl.gz", True), ("data/*", True), ("./x", True), ("~/x", True), ("org/name", False)]
)
def test_what_is_local(path: str, local: bool) -> None:
    assert is_local(path) is local


def test_damaged_and_unknown_files_are_refused_by_name(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])
    wrong = tmp_path / "wrong.parquet"
    wrong.write_bytes(b"not parquet")
    array = tmp_path / "array.json"
    array.write_text('[{"text": "a"}, {"te')
    other = tmp_path / "notes.docx"
    other.write_text("hello")
    for path, what in [
        (cut, "cannot be read"),
        (wrong, "cannot be read"),
        (array, "not valid JSON"),
        (other, "no known kind"),
    ]:
        with pytest.raises(DataError, match=what) as caught:
            read(path)
        assert caught.value.problems[0].where == str(path)


def test_running_text_is_cut_at_headings_and_blank_lines_without_loss(tmp_path: Path) -> None:
    paragraph = "word " * 200 + "\n\n"
    text = " = One = \n\n" + paragraph * 50 + " = Two = \n\n = = Part = = \n\nshort\n"
    path = tmp_path / "wiki.txt"
    path.write_text(text)
    raws = read(path)
    texts = [raw.value["text"] for raw in raws]
    assert len(texts) == 4
    assert all(len(part) <= LONG_DOCUMENT + 2 * len(paragraph) for part in texts)
    assert texts[-1].startswith("= Two =") and "= = Part = =" in texts[-1]
    assert "".join("".join(texts).split()) == "".join(text.split())
    lines = text.split("\n")
    assert all(lines[raw.line - 1] and raw.value["text"].startswith(lines[raw.line - 1].strip()) for raw in raws)


def test_text_without_line_ends_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "flat.txt"
    path.write_text("ab" * 200_000)
    texts = [raw.value["text"] for raw in read(path)]
    assert "".join(texts) == "ab" * 200_000
    assert max(map(len, texts)) <= 4 * LONG_DOCUMENT


def test_one_short_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("a\n\nb\n\nc\n")
    assert [raw.value for raw in read(path)] == [{"text": "a\n\nb\n\nc"}]


def test_functions_are_called_with_their_args(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llmkit_test_rows.py").write_text(
        "def numbers(*, upto, word='n'):\n"
        "    if upto > 9: raise ValueError('upto is at most 9')\n"
        "    yield from ({'text': f'{word}{i}'} for i in range(upto))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    raws = read("llmkit_test_rows:numbers", args={"upto": 2, "word": "x"})
    assert raws == [
        Raw({"text": "x0"}, "llmkit_test_rows:numbers", 1),
        Raw({"text": "x1"}, "llmkit_test_rows:numbers", 2),
    ]
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("llmkit_test_rows:numbers", {"upt": 2}, "does not take these args"),
        ("llmkit_test_rows:numbers", {"upto": 10}, "upto is at most 9"),
        ("llmkit_test_rows:number", {}, "did you mean 'numbers'"),
        ("llmkit_no_such_module:rows", {}, "No module named"),
    ]
    for path, args, what in cases:
        with pytest.raises(DataError, match=what):
            read(path, args=args)


def test_rows_of_an_earlier_stage(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "rows.jsonl", ROWS)
    source = DataSource.model_validate({"from": "probe"})
    assert [raw.value for raw in read_source(source, {"probe": tmp_path}, 0)] == ROWS
    with pytest.raises(DataError, match="no such stage has run; have: other"):
        list(read_source(source, {"other": tmp_path}, 0))
    (tmp_path / "data" / "rows.jsonl").unlink()
    with pytest.raises(DataError, match="left no rows"):
        list(read_source(source, {"probe": tmp_path}, 0))


def test_an_unknown_hub_id_without_network_is_one_clear_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def no_network(self: Any, path: str, **options: Any) -> None:
        asked.append(options["timeout"])
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", no_network)
    started = time.monotonic()
    for streaming in (False, True):
        with pytest.raises(DataError, match="nobody/none: is no file here, and the Hub cannot be reached") as caught:
            read("nobody/none", streaming=streaming)
        assert "current folder" in str(caught.value)
    assert asked == [HUB_TIMEOUT] * 2
    assert time.monotonic() - started < 5


def test_a_hub_data_set_is_read_with_its_name_split_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(path: str, **options: Any) -> list[dict[str, str]]:
        calls.append((path, options))
        return ROWS

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *args, **options: None)
    monkeypatch.setattr(sources.datasets, "load_dataset", load)
    raws = read("org/rows", name="small", split="test", revision="abc")
    assert [raw.value for raw in raws] == ROWS
    assert raws[0].file == "org/rows small test"
    assert calls == [("org/rows", {"name": "small", "revision": "abc", "split": "test", "streaming": False})]
