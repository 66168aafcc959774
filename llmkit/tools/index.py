"""An index of documents on disk: BM25 by bm25s, and the passages beside it.

    FOLDER/manifest.json            what it holds, of which documents, and where that lies:
    FOLDER/data-.../passages.jsonl  {"title", "id", "text"}, one passage a line
    FOLDER/data-.../offsets.npy     where each line begins
    FOLDER/data-.../bm25/           bm25s' own files

The manifest is written last, in one step: a kill leaves the old index or the new one. Reading maps the files into
memory, so that processes share them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import bm25s
import numpy as np

from llmkit.artifacts.files import disk_error, read_json, write_json
from llmkit.artifacts.index import ANEW, IndexManifest, read_index_manifest
from llmkit.errors import DataError, UserError
from llmkit.tools.passages import passages
from llmkit.tools.words import words

MARK = "llmkit-index"
"""Empty file in every folder of data: what has it may be deleted."""
MAX_WORDS = 64
"""Different ones of a query; more are left out."""


class Document(NamedTuple):
    """What is indexed."""

    text: str
    title: str = ""
    id: str = ""


class Passage(NamedTuple):
    """What is found."""

    text: str
    title: str
    id: str
    score: float


def build_index(
    documents: Iterable[Document],
    folder: Path,
    *,
    passage_chars: int = 800,
    overlap: int = 100,
    sources: Iterable[str] = (),
) -> IndexManifest:
    """Reads the documents once and writes the index; one that is there is replaced when the new one is whole.

    Args:
        passage_chars: longest passage.
        overlap: characters that a passage may repeat from the one before.
        sources: names of what the documents came from, for people.

    Raises:
        UserError: the folder holds something else, or sizes do not fit.
        DataError: there is nothing to index.
        RunError: the disk is full, or cannot be written.
    """
    if not 0 <= overlap < passage_chars:
        raise UserError("overlap", f"is {overlap}, with passages of {passage_chars}", "give less than a passage has")
    if not _may_write(folder):
        raise UserError(str(folder), "is there already and is no index", "give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            try:
                data = Path(tempfile.mkdtemp(prefix="data-", dir=folder))
                (data / MARK).touch()
                data.chmod(0o755)
                manifest = _write(documents, data, passage_chars, overlap, list(sources))
                write_json(folder / "manifest.json", manifest.model_dump())
            finally:
                _remove_others(folder)
    except OSError as error:
        raise disk_error(folder, error, "--out") from error
    return manifest


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other builders away, each of which would remove what the other writes."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UserError(str(folder), "is being written by another process", "wait until that has ended") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(lock)


def _may_write(folder: Path) -> bool:
    """Whether nothing is there, or an index (of whatever format), or what is left of building one."""
    if not folder.is_dir():
        return not folder.exists()
    if (folder / "manifest.json").exists():
        with contextlib.suppress(OSError, ValueError, TypeError):
            return {"format", "data", "num_passages"} <= set(read_json(folder / "manifest.json"))
        return False
    return all((path / MARK).is_file() for path in folder.iterdir())


def _remove_others(folder: Path) -> None:
    """Data of ours that the manifest does not name: of the index before, or of one that was never finished."""
    with contextlib.suppress(UserError, OSError):
        kept = read_index_manifest(folder).data if (folder / "manifest.json").is_file() else None
        for path in folder.glob("data-*"):
            if path.name != kept and (path / MARK).is_file():
                shutil.rmtree(path, ignore_errors=True)


def _write(
    documents: Iterable[Document], folder: Path, passage_chars: int, overlap: int, sources: list[str]
) -> IndexManifest:
    digest, num_documents = hashlib.sha256(), 0
    vocabulary: dict[str, int] = {}
    ids: list[array[int]] = []
    offsets = array("q")
    with (folder / "passages.jsonl").open("wb") as file:
        for document in documents:
            num_documents += 1
            digest.update(json.dumps(document).encode())
            for text in passages(document.text, passage_chars, overlap):
                offsets.append(file.tell())
                file.write(json.dumps({"title": document.title, "id": document.id, "text": text}).encode() + b"\n")
                found = words(f"{document.title} {text}")
                ids.append(array("i", (vocabulary.setdefault(word, len(vocabulary)) for word in found)))
    if not vocabulary:
        raise DataError("documents", "there is no word in them", "check the files and their column 'text'")
    np.save(folder / "offsets.npy", np.array(offsets, dtype=np.int64))
    retriever = bm25s.BM25(backend="numpy")
    retriever.index((ids, vocabulary), show_progress=False)
    retriever.save(folder / "bm25", show_progress=False)
    return IndexManifest(
        data=folder.name,
        digest=digest.hexdigest(),
        num_documents=num_documents,
        num_passages=len(ids),
        passage_chars=passage_chars,
        overlap=overlap,
        sources=sources,
    )


@dataclass
class Index:
    """An index that can be asked, from several threads at once."""

    manifest: IndexManifest
    _retriever: Any
    _offsets: Any
    _passages: mmap.mmap

    @classmethod
    def open(cls, folder: str | Path, digest: str | None = None) -> Index:
        """Raises UserError where there is none, or one of another version or of other documents."""
        folder = Path(folder).expanduser()
        manifest, before = read_index_manifest(folder), ""
        while manifest.data != before:  # else another has just taken its place
            manifest.check_digest(folder, digest)
            try:
                return cls._read(manifest, folder / manifest.data)
            except (OSError, EOFError, ValueError, KeyError) as error:
                before, broken, manifest = manifest.data, error, read_index_manifest(folder)
        raise UserError(str(folder), f"is a damaged index ({broken})", ANEW)

    @classmethod
    def _read(cls, manifest: IndexManifest, data: Path) -> Index:
        retriever = bm25s.BM25.load(data / "bm25", mmap=True, show_progress=False)
        offsets = np.load(data / "offsets.npy", mmap_mode="r")
        with (data / "passages.jsonl").open("rb") as file:
            return cls(manifest, retriever, offsets, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def search(self, query: str, num_results: int, match: Literal["any", "all"] = "any") -> list[Passage]:
        """The best passages that hold a word of the query, or all of its words; best first."""
        known = self._retriever.vocab_dict
        different = list(dict.fromkeys(words(query[: 100 * MAX_WORDS])))
        if match == "all" and not known.keys() >= set(different[:MAX_WORDS]):
            return []
        asked = [known[word] for word in different if word in known][:MAX_WORDS]
        if not asked:
            return []
        scores = self._retriever.get_scores_from_ids(asked)
        if match == "all":
            scores = np.where(self._have_all(asked), scores, 0)
        best = np.argpartition(-scores, min(num_results, len(scores) - 1))[:num_results]
        order = best[np.lexsort((best, -scores[best]))]
        return [self._passage(int(place), float(scores[place])) for place in order if scores[place] > 0]

    def _have_all(self, asked: list[int]) -> Any:
        """(passages,), whether each holds all of these words. bm25s keeps the passages of a word as a column."""
        columns = self._retriever.scores
        num_words = np.zeros(self.manifest.num_passages, dtype=np.int32)
        for word in asked:
            num_words[columns["indices"][columns["indptr"][word] : columns["indptr"][word + 1]]] += 1
        return num_words == len(asked)

    def close(self) -> None:
        """Lets its file go; a search then raises ValueError."""
        self._passages.close()

    def _passage(self, place: int, score: float) -> Passage:
        start = int(self._offsets[place])
        end = int(self._offsets[place + 1]) if place + 1 < len(self._offsets) else len(self._passages)
        row = json.loads(self._passages[start:end])
        return Passage(row["text"], row["title"], row["id"], score)
