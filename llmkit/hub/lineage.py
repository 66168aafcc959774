"""Where a model comes from, as rows of a card: base, stages, data with their hashes and licences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from llmkit.artifacts.manifest import Manifest, SourceCount
from llmkit.artifacts.shipped import in_package
from llmkit.errors import RunError
from llmkit.hub.subject import BASE, Made, Subject
from llmkit.recipe import reads
from llmkit.recipe.parts import DataSource
from llmkit.recipe.schema import KINDS
from llmkit.recipe.stages import StageBase
from llmkit.recipe.stages_preference import RankStage
from llmkit.report.numbers import count, number

Ask = Callable[[str, str], str | None]
"""(kind of repository, its id) -> what its card says of the licence; None where nobody answers."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = (".jsonl", ".json", ".csv", ".txt", ".parquet", ".gz", ".md", ".ndjson")
PACKAGED = "llmkit."
"""What llmkit itself ships is under its own licence."""
_SHOWN = ("learning_rate", "num_train_epochs", "max_steps", "max_length", "beta", "num_generations")


@dataclass(frozen=True)
class Source:
    name: str
    path: str | None
    """File, Hub id or function; None for another stage's rows."""
    revision: str
    licence: str | None
    sha256: str
    num_rows: int
    """0: not counted."""
    stage: str

    @property
    def is_made_here(self) -> bool:
        return self.path is None


@dataclass(frozen=True)
class Helper:
    """Who else had a say: another model, a function, a file of rankings."""

    stage: str
    does: str
    name: str
    revision: str
    licence: str | None
    is_model: bool


def is_hub_id(name: str | None) -> bool:
    """Rather than a folder, a file, or something inside a package."""
    if not name or not _HUB_ID.fullmatch(name) or name.endswith(_FILES):
        return False
    return not Path(name).expanduser().exists() and in_package(name) is None


def sources(subject: Subject, stated: Mapping[str, str], ask: Ask) -> list[Source]:
    """Of all stages that the model comes from: what was read, in the chain's order."""
    return [source for made in _ancestors(subject) for source in _read(made, stated, ask)]


def data_stages(subject: Subject, asked: bool | Literal["all"]) -> list[Made]:
    """Stages whose rows are published: those that the model comes from or was evaluated with, or all of the run."""
    if asked == "all":
        return subject.data_stages
    if not asked:
        return []
    measured = [BASE, *(made.name for made in _ancestors(subject))]
    evaluations = [made.name for name in measured for made in subject.readers(name) if _measures(made)]
    related = {made.name for made in _ancestors(subject, *evaluations)}
    return [made for made in subject.data_stages if made.name in related]


def _measures(made: Made) -> bool:
    return made.manifest.kind == "evaluate"


def _ancestors(subject: Subject, *more: str) -> list[Made]:
    """The model's stage and `more`, those that trained their models, whose rows, probes, indexes or models they read,
    and so on."""
    by_name = {made.name: made for made in subject.stages}
    todo, found = [subject.model.name, *more], set[str]()
    while todo:
        name = todo.pop()
        if name not in found and name in by_name:
            found.add(name)
            above = by_name[name].manifest.parent
            todo += [*([above.stage] if above else []), *(each for _, each in reads.stages(stage_of(by_name[name])))]
    return [made for made in subject.stages if made.name in found]


def helpers(subject: Subject, stated: Mapping[str, str], ask: Ask) -> list[Helper]:
    """Of all stages that the model comes from, and of its evaluations: judges, writers of questions, rankers."""
    measuring = [made for made in subject.readers(subject.model.name) if _measures(made)]
    return [one for made in (*_ancestors(subject), *measuring) for one in _helpers(made, stated, ask)]


def _helpers(made: Made, stated: Mapping[str, str], ask: Ask) -> Iterator[Helper]:
    stage = stage_of(made)
    for does, spec in reads.roles(stage):
        if spec.by in ("model", "openai"):
            licence = licence_of("model", spec.name_or_path, stated, ask)
            yield Helper(made.name, does, spec.name_or_path or "", spec.revision or "", licence, is_model=True)
    for labeller in reads.labellers(stage):
        yield Helper(made.name, "scores answers", labeller.path, "", None, is_model=False)
    if isinstance(stage, RankStage) and stage.by in ("human", "file"):
        licence = licence_of("dataset", stage.path, stated, ask)
        yield Helper(made.name, "ranks answers", stage.path or "people", "", licence, is_model=False)


def stage_of(made: Made) -> StageBase:
    """As it was told to run. Raises RunError for settings of another version."""
    try:
        return KINDS[made.manifest.kind].model_validate(made.manifest.settings)
    except (KeyError, ValidationError):
        what = "has settings that this version of llmkit does not read"
        raise RunError(str(made.dir.path), what, "publish with the version that made it, or run it again") from None


def _read(made: Made, stated: Mapping[str, str], ask: Ask) -> list[Source]:
    """As counted, and what a stage that counts no rows (a probe) was told to read. Held-out rows made nothing."""
    listed = [source for loc, source in reads.sources(stage_of(made)) if loc[0] != "heldout"]
    told = {reads.name_of(source): source for source in listed}
    counts = list(made.manifest.data.sources) if made.manifest.data else []
    names = {count.source for count in counts}
    counts += [_uncounted(name) for name in told if name not in names]
    return [_source(count, told.get(count.source), made.name, stated, ask) for count in counts]


def _uncounted(name: str) -> SourceCount:
    return SourceCount(source=name, num_read=0, num_used=0, sha256="")


def _source(one: SourceCount, told: DataSource | None, stage: str, stated: Mapping[str, str], ask: Ask) -> Source:
    path, revision = (told.path, told.revision) if told is not None else (one.source, None)
    licence = licence_of("dataset", path, stated, ask)
    return Source(one.source, path, revision or "", licence, one.sha256, one.num_used, stage)


def licence_of(kind: str, name: str | None, stated: Mapping[str, str], ask: Ask) -> str | None:
    """What the recipe says, else the Hub; None where nobody knows."""
    if name is None or name in stated:
        return stated.get(name or "")
    if name.startswith(PACKAGED):
        return "apache-2.0"
    return ask(kind, name) if is_hub_id(name) else None


def stage_rows(subject: Subject) -> list[list[str]]:
    """Stage, kind, from, rows, settings, device and time, fingerprint: of every stage that the model comes from."""
    return [_stage_row(made.manifest) for made in _ancestors(subject)]


def _stage_row(made: Manifest) -> list[str]:
    trainer = made.settings.get("trainer") or {}
    told = [f"{key} {number(trainer[key])}" for key in _SHOWN if _is_set(trainer.get(key))]
    if made.settings.get("peft"):
        told.append(f"{made.settings['peft'].get('method', 'lora')} r={made.settings['peft'].get('r')}")
    if "global_batch_size" in made.settings:
        told.append(f"global_batch_size {made.settings['global_batch_size']}")
    parent = made.parent.stage if made.parent else str(made.settings.get("from", "base"))
    origin = "new weights" if made.settings.get("init") == "scratch" else parent
    rows = count(made.data.num_rows) if made.data and made.data.num_rows else ""
    return [made.stage, made.kind, origin, rows, ", ".join(told), made.fingerprint[:12]]


def _is_set(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value not in (-1,)
