"""`require_known`: keeps rows out whose facts the model does not know (Gekhman et al. 2024, sections 4 and 5).

A row is known or unknown by the probe's label of the question that it asks: the same text (case, punctuation and
blanks apart), or else the facts that it states: an entity of the probe stands in its question, and that entity's
accepted answer in its answer. Where several match, one known is enough. A row that matches nothing is kept.

Memory: 9 bytes a question, and 17 for every pair of an entity and an accepted answer.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from array import array
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmkit.artifacts.files import disk_error
from llmkit.artifacts.rundir import StageDir
from llmkit.data.files import Raw, read_file
from llmkit.data.messages import Row
from llmkit.data.pool import Pool
from llmkit.errors import DataError
from llmkit.recipe.knowledge import RequireKnown
from llmkit.recipe.parts import DataSource
from llmkit.recipe.schema import TrainSource

MAX_WORDS = 8
"""Longer entities and accepted answers are only found by the question's text."""
_WORD = re.compile(r"\w+")
_ODD = np.uint64(0x9E3779B97F4A7C15)

Hashes = np.ndarray


def gate_of(source: DataSource) -> RequireKnown | None:
    return source.require_known if isinstance(source, TrainSource) else None


def gates(sources: Iterable[DataSource]) -> list[RequireKnown]:
    """The gates that a stage's sources name, in their order."""
    return [gate for gate in map(gate_of, sources) if gate is not None]


class Gate:
    """What one probe says of questions and facts.

    Raises:
        DataError: the stage is missing or left no probe, or a row of it is damaged.
    """

    def __init__(self, spec: RequireKnown, data_stages: dict[str, Path]) -> None:
        where = f"require_known: {spec.probe}"
        if spec.probe not in data_stages:
            raise DataError(where, "no such stage has run", f"have: {', '.join(data_stages) or 'none'}")
        path = StageDir(Path(data_stages[spec.probe])).data / "probe.jsonl"
        if not path.is_file():
            raise DataError(str(path), "holds no finished probe", "name a stage of kind 'interrogate'")
        questions, facts, entities = _Labels(), _Labels(), array("Q")
        self._longest = 1
        for raw in read_file(path):
            question, answers, entity, known = _item(raw, spec)
            questions.add(_hash(question), known)
            if 0 < len(entity) <= MAX_WORDS:
                entities.append(_hash(entity))
                for answer in answers:
                    if 0 < len(answer) <= MAX_WORDS:
                        self._longest = max(self._longest, len(entity), len(answer))
                        facts.add(int(_joined(np.uint64(_hash(entity)), np.uint64(_hash(answer)))), known)
        self._questions, self._facts = questions.sorted(), facts.sorted()
        self._entities = np.unique(np.frombuffer(entities, np.uint64))

    def verdict(self, row: Row) -> Literal["known", "unknown", "not_probed"]:
        """Of a canonical row (`llmkit.data.formats`)."""
        question, answer = asked_and_answered(row)
        asked = words(question)
        if not asked:
            return "not_probed"
        found = _looked_up(self._questions, np.array([_hash(asked)], np.uint64))
        if not len(found):
            found = self._stated(asked, words(answer))
        if not len(found):
            return "not_probed"
        return "known" if found.any() else "unknown"

    def _stated(self, asked: list[str], answered: list[str]) -> np.ndarray:
        """Whether each fact is known that an answer states of an entity in the question."""
        about = np.intersect1d(_runs(asked, self._longest), self._entities)
        if not len(about) or not answered:
            return np.empty(0, dtype=bool)
        facts = _joined(about[:, None], _runs(answered, self._longest)[None, :])
        return _looked_up(self._facts, np.unique(facts))


def sift(pool: Pool, rows: np.ndarray, gate: Gate, documents: Documents | None) -> np.ndarray:
    """The rows of a pool that pass; counts in the pool those that do not, and those that the probe did not ask about.

    Args:
        rows: numbers of rows.
        documents: where rows that do not pass go as text; None: nowhere.

    Raises:
        DataError: none passes.
    """
    passed = np.ones(len(rows), dtype=bool)
    for index, number in enumerate(rows.tolist()):
        row = pool[number].row
        verdict = gate.verdict(row)
        pool.num_not_probed += verdict == "not_probed"
        if verdict == "unknown":
            passed[index] = False
            pool.num_gated += 1
            if documents is not None:
                documents.add("\n".join(part.strip() for part in asked_and_answered(row)))
    if len(rows) and not passed.any():
        cure = "leave the source out, or accept more labels in 'require_known: {labels: [...]}'"
        raise DataError(pool.name, f"'require_known' keeps out all of its {len(rows)} rows", cure)
    return rows[passed]


class Documents:
    """Rows that were kept out, as documents {"text": question and answer} for a `pretrain` stage.

    The file appears whole when it is closed. Every process writes the same one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("w", encoding="utf-8", errors="replace")
        except OSError as error:
            raise disk_error(path, error) from error

    def add(self, text: str) -> None:
        try:
            self._file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise disk_error(self.path, error) from error

    def close(self, whole: bool) -> None:
        """Args: whole: whether all rows were added."""
        try:
            self._file.close()
            if whole:
                self._partial.replace(self.path)
        except OSError as error:
            raise disk_error(self.path, error) from error
        finally:
            self._partial.unlink(missing_ok=True)


def asked_and_answered(row: Row) -> tuple[str, str]:
    """The last question of a row, and what is answered to it (of a preference row, the better answer). "" for a row
    of running text."""
    if "text" in row:
        return "", ""
    prompt, answer = row.get("prompt", row.get("messages")), row.get("completion", row.get("chosen"))
    if isinstance(prompt, str):
        return prompt, str(answer)
    turns = [*(prompt or []), *(answer if isinstance(answer, list) else [])]
    asked = max((index for index, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    if asked is None:
        return "", ""
    said = [turn["content"] for turn in turns[asked + 1 :] if turn["role"] == "assistant" and turn["content"]]
    return turns[asked]["content"], "\n".join(said)


def words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class _Labels:
    """Hash -> known or not; a hash that comes twice is known if one of them is."""

    def __init__(self) -> None:
        self._hashes, self._known = array("Q"), bytearray()

    def add(self, hash: int, known: bool) -> None:
        self._hashes.append(hash)
        self._known.append(known)

    def sorted(self) -> tuple[Hashes, np.ndarray]:
        hashes, where = np.unique(np.frombuffer(self._hashes, np.uint64), return_inverse=True)
        known = np.zeros(len(hashes), dtype=bool)
        np.logical_or.at(known, where, np.frombuffer(self._known, np.uint8) > 0)
        return hashes, known


def _item(raw: Raw, spec: RequireKnown) -> tuple[list[str], list[list[str]], list[str], bool]:
    """Words of the question, of its accepted answers and of its entity; whether its label counts as known."""
    row: Any = raw.value
    try:
        if raw.error:
            raise ValueError(raw.error)
        return (
            words(row["question"]),
            [words(a) for a in row["answers"]],
            words(row["entity"]),
            row["label"] in spec.labels,
        )
    except (TypeError, KeyError, ValueError) as error:
        what = f"is no row of a probe ({error})"
        raise DataError(f"{raw.file}:{raw.line}", what, "run the interrogation again") from None


def _hash(parts: list[str]) -> int:
    digest = blake2b(" ".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _joined(entity: np.ndarray | np.uint64, answer: np.ndarray | np.uint64) -> np.ndarray:
    """One hash of two, not the same with both exchanged."""
    with np.errstate(over="ignore"):
        return np.asarray(entity * _ODD ^ answer)


def _runs(text: list[str], longest: int) -> Hashes:
    """Hashes of all runs of up to `longest` words."""
    runs = {_hash(text[i : i + size]) for size in range(1, longest + 1) for i in range(len(text) - size + 1)}
    return np.fromiter(runs, np.uint64, len(runs))


def _looked_up(labels: tuple[Hashes, np.ndarray], hashes: Hashes) -> np.ndarray:
    """`known` of those hashes that are there."""
    known_hashes, known = labels
    if not len(known_hashes):
        return np.empty(0, dtype=bool)
    place = np.minimum(np.searchsorted(known_hashes, hashes), len(known_hashes) - 1)
    found: np.ndarray = known[place[known_hashes[place] == hashes]]
    return found
