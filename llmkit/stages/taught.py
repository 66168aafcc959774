"""Which questions of an evaluation the measured model was already asked in training.

Read from the manifests of the stages that made the model, and from the question files of their `refusals` and
`interrogate` stages. What is not there (a model from elsewhere, a folder that was moved away) is not looked at.

Memory: 16 bytes a training question.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmkit.artifacts.manifest import Manifest
from llmkit.artifacts.rundir import RunDir, StageDir
from llmkit.errors import RunError
from llmkit.knowledge.balance import digest64
from llmkit.knowledge.records import Question
from llmkit.knowledge.split import entity_key, words
from llmkit.knowledge.store import read_rows
from llmkit.recipe.rows import ASKED, PROBED, WATCHED
from llmkit.recipe.schema import KINDS

LONGEST_NAME = 8
"""Words of a name that is looked for in a question which names no entity."""
SHORTEST_NAME = 4
"""Its letters: "it" and "May" stand in questions about anything."""


@dataclass(frozen=True)
class Taught:
    """What training asked.

    Attributes:
        stages: whose rows ask it.
        keys: digests of entities (of a question without one, its text) and of questions, each once and in order.
    """

    stages: list[str] = field(default_factory=list)
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def again(self, questions: Sequence[Question]) -> list[Question]:
        """Those that training asked, or that are about an entity that it asked about."""
        return [question for question in questions if len(self.keys) and self._has(_keys_of(question))]

    def _has(self, keys: np.ndarray) -> bool:
        # `np.isin` would sort all keys anew for every question
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return bool((self.keys[places] == keys).any())


def taught_to(stage_dir: Path) -> Taught | None:
    """What the rows of all stages asked that trained the model in a stage's folder; None: no such rows are known."""
    stages, keys = list[str](), array("Q")
    for name, file in _files(StageDir(stage_dir)):
        stages += [name] if name not in stages else []
        for row in read_rows(file):
            keys.extend(_keys_of_row(row))
    return Taught(stages, np.unique(np.frombuffer(keys, np.uint64))) if stages else None


def _keys_of_row(row: dict[str, Any]) -> tuple[int, int]:
    question = str(row.get("question", ""))
    return digest64(entity_key(str(row.get("entity") or question))), digest64(entity_key(question))


def _keys_of(question: Question) -> np.ndarray:
    """Of its text and its entity; of a question that names no entity, all names that may stand in it."""
    names = [question.entity] if question.entity else _runs(words(question.question))
    return np.array([digest64(entity_key(text)) for text in (question.question, *names)], np.uint64)


def _runs(said: Sequence[str]) -> list[str]:
    sizes = range(1, LONGEST_NAME + 1)
    runs = ("".join(said[start : start + size]) for size in sizes for start in range(len(said) - size + 1))
    return [run for run in runs if len(run) >= SHORTEST_NAME]


def _files(model: StageDir) -> Iterator[tuple[str, Path]]:
    """Stages that left questions, and the files of these that training read, each once."""
    folders = {each.name: each for each in RunDir(model.path.parent).stages()}
    todo, seen = [model.name], set[str | Path]()
    while todo:
        name = todo.pop()
        made = _manifest(folders.get(name))
        if made is None or name in seen:
            continue
        seen.add(name)
        for source, rows in _read_by(made):
            file = _questions(folders.get(source), rows)
            if file is None:
                todo.append(source)
            elif file.is_file() and file not in seen:
                seen.add(file)
                yield source, file
        todo += _before(made, folders)


def _read_by(made: Manifest) -> list[tuple[str, str | None]]:
    """Stages whose rows a stage trains on or has answered, and the name of these rows."""
    sources = made.settings.get("data") or []
    found = [(source["from"], source.get("name")) for source in sources if source.get("from")]
    return [*found, (made.settings["rollouts"], None)] if made.kind == "rank" else found


def _before(made: Manifest, folders: dict[str, StageDir]) -> list[str]:
    """The stage whose model it trained further, unless that was run anew since."""
    if made.parent is None or made.kind not in KINDS or not KINDS[made.kind].makes_model:
        return []
    above = _manifest(folders.get(made.parent.stage))
    return [made.parent.stage] if above is not None and above.fingerprint == made.parent.fingerprint else []


def _questions(folder: StageDir | None, rows: str | None) -> Path | None:
    """The questions behind the rows that a stage left; None for a stage that passes on what it read."""
    made = _manifest(folder)
    if folder is None or made is None or made.kind not in ("refusals", "interrogate"):
        return None
    asked = rows if rows in WATCHED else ASKED
    name = asked if made.kind == "refusals" else rows or next(iter(PROBED))
    return folder.data / f"{name}.jsonl"


def _manifest(folder: StageDir | None) -> Manifest | None:
    """Of a finished stage of this version."""
    try:
        return folder.manifest() if folder is not None else None
    except RunError:
        return None
