"""`require_known`: keeps rows out whose facts the model does not know (Gekhman et al. 2024, sections 4 and 5).

A row is known or unknown by the probe's label of the question that it asks: the same text (case, punctuation and
blanks apart), or else the facts that it states: an entity of the probe stands in its question, and that entity's
accepted answer in its answer. Where several match, one known is enough. A row that matches nothing is kept.

A row that matches what the probe holds out for evaluation, in any turn of its conversation, is dropped, known or not.

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
from llmkit.recipe.stages import TrainSource

MAX_WORDS = 8
"""Longer entities and accepted answers are only found by the question's text."""
_WORD = re.compile(r"\w+")
_ODD = np.uint64(0x9E3779B97F4A7C15)
_UNKNOWN, _KNOWN, _HELDOUT = range(3)
"""Sides of a question. Of what comes twice the larger counts."""

Hashes = np.ndarray
Verdict = Literal["known", "unknown", "heldout", "not_probed"]


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
            question, answers, entity, side = _item(raw, spec)
            questions.add(_hash(question), side)
            if 0 < len(entity) <= MAX_WORDS:
                entities.append(_hash(entity))
                for answer in answers:
                    if 0 < len(answer) <= MAX_WORDS:
                        self._longest = max(self._longest, len(entity), len(answer))
                        facts.add(int(_joined(np.uint64(_hash(entity)), np.uint64(_hash(answer)))), side)
        self._questions, self._facts = questions.sorted(), facts.sorted()
        self._entities = np.unique(np.frombuffer(entities, np.uint64))

    def verdict(self, row: Row) -> Verdict:
        """Of a canonical row (`llmkit.data.formats`)."""
        sides = [self._side(question, answer) for question, answer in exchanges(row)]
        if _HELDOUT in sides:
            return "heldout"
        if not sides or sides[-1] is None:
            return "not_probed"
        return "known" if sides[-1] == _KNOWN else "unknown"

    def _side(self, question: str, answer: str) -> int | None:
        """Of a question and what is answered to it; None: the probe did not ask about it."""
        asked = words(question)
        if not asked:
            return None
        found = _looked_up(self._questions, np.array([_hash(asked)], np.uint64))
        if not len(found):
            found = self._stated(asked, words(answer))
        return int(found.max()) if len(found) else None

    def _stated(self, asked: list[str], answered: list[str]) -> np.ndarray:
        """Sides of the facts that an answer states of entities in the question."""
        about = np.intersect1d(_runs(asked, self._longest), self._entities)
        if not len(about) or not answered:
            return np.empty(0, dtype=np.uint8)
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
        pool.num_unknown += verdict == "unknown"
        pool.num_heldout += verdict == "heldout"
        passed[index] = verdict in ("known", "not_probed")
        if verdict == "unknown" and documents is not None:
            documents.add("\n".join(part.strip() for part in exchanges(row)[-1]))
    if len(rows) and not passed.any():
        cure = "leave the source out, or accept more labels in 'require_known: {labels: [...]}'"
        raise DataError(pool.name, f"'require_known' keeps out all of its {len(rows)} rows{held_out(pool)}", cure)
    return rows[passed]


def held_out(pool: Pool) -> str:
    """How many of the rows that `require_known` keeps out are about what the probe holds out, for messages."""
    return f", {pool.num_heldout} of them about what the probe holds out" if pool.num_heldout else ""


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


def exchanges(row: Row) -> list[tuple[str, str]]:
    """Each question of a row and what is answered to it (of a preference row, the better answer). A row of running
    text has none."""
    if "text" in row:
        return []
    prompt, answer = row.get("prompt", row.get("messages")), row.get("completion", row.get("chosen"))
    if isinstance(prompt, str):
        return [(prompt, str(answer))]
    found: list[tuple[str, list[str]]] = []
    for turn in [*(prompt or []), *(answer if isinstance(answer, list) else [])]:
        if turn["role"] == "user":
            found.append((turn["content"], []))
        elif turn["role"] == "assistant" and turn["content"] and found:
            found[-1][1].append(turn["content"])
    return [(question, "\n".join(said)) for question, said in found]


def words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class _Labels:
    """Hash -> side; of a hash that comes twice the larger."""

    def __init__(self) -> None:
        self._hashes, self._sides = array("Q"), bytearray()

    def add(self, hash: int, side: int) -> None:
        self._hashes.append(hash)
        self._sides.append(side)

    def sorted(self) -> tuple[Hashes, np.ndarray]:
        hashes, where = np.unique(np.frombuffer(self._hashes, np.uint64), return_inverse=True)
        sides = np.zeros(len(hashes), dtype=np.uint8)
        np.maximum.at(sides, where, np.frombuffer(self._sides, np.uint8))
        return hashes, sides


def _item(raw: Raw, spec: RequireKnown) -> tuple[list[str], list[list[str]], list[str], int]:
    """Words of the question, of its accepted answers and of its entity; its side."""
    row: Any = raw.value
    try:
        if raw.error:
            raise ValueError(raw.error)
        return (
            words(row["question"]),
            [words(a) for a in row["answers"]],
            words(row["entity"]),
            _HELDOUT if row["split"] == "heldout" else _KNOWN if row["label"] in spec.labels else _UNKNOWN,
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
    """Sides of those hashes that are there."""
    known_hashes, sides = labels
    if not len(known_hashes):
        return np.empty(0, dtype=np.uint8)
    place = np.minimum(np.searchsorted(known_hashes, hashes), len(known_hashes) - 1)
    found: np.ndarray = sides[place[known_hashes[place] == hashes]]
    return found
