"""Where a model comes from, as rows of a card: base, stages, data with their hashes and licences."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.artifacts.manifest import Manifest, SourceCount
from llmkit.artifacts.shipped import in_package
from llmkit.hub.subject import Subject
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
    revision: str
    licence: str | None
    sha256: str
    num_rows: int
    stage: str

    @property
    def is_made_here(self) -> bool:
        return self.name.startswith("from: ")


def is_hub_id(name: str | None) -> bool:
    """Rather than a folder, a file, or something inside a package."""
    if not name or not _HUB_ID.fullmatch(name) or name.endswith(_FILES):
        return False
    return not Path(name).expanduser().exists() and in_package(name) is None


def sources(subject: Subject, stated: Mapping[str, str], ask: Ask) -> list[Source]:
    """Of all stages that trained the model, and of those whose rows they read: what was read, in the chain's order."""
    found = []
    for made in (each for each in subject.stages if each.name in _ancestors(subject)):
        specs = _specs(made.manifest)
        for one in made.manifest.data.sources if made.manifest.data else []:
            spec = specs.get(one.source, {})
            found.append(_source(one, spec, made.name, stated, ask))
    return found


def _ancestors(subject: Subject) -> set[str]:
    by_name = {made.name: made for made in subject.stages}
    todo, found = [made.name for made in subject.chain], set[str]()
    while todo:
        name = todo.pop()
        if name in found or name not in by_name:
            continue
        found.add(name)
        settings = by_name[name].manifest.settings
        named = [spec.get("from") for spec in settings.get("data") or [] if isinstance(spec, dict)]
        named += [*(settings.get("probes") or []), settings.get("rollouts")]
        model = settings.get("reward_model")
        named += model.get("from", []) if isinstance(model, dict) else []
        todo += [str(each) for each in named if each]
    return found


def _specs(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """What a stage was told to read, by the beginnings of the names that its counts have."""
    listed = [spec for key in ("data", "questions", "documents") for spec in manifest.settings.get(key) or []]
    named = {str(spec["path"]): spec for spec in listed if isinstance(spec, dict) and spec.get("path")}
    counted = [one.source for one in manifest.data.sources] if manifest.data else []
    return {name: spec for name in counted for path, spec in named.items() if name.startswith(path)}


def _source(one: SourceCount, spec: Mapping[str, Any], stage: str, stated: Mapping[str, str], ask: Ask) -> Source:
    path = str(spec.get("path") or one.source)
    licence = licence_of("dataset", path, stated, ask)
    return Source(one.source, str(spec.get("revision") or ""), licence, one.sha256, one.num_used, stage)


def licence_of(kind: str, name: str | None, stated: Mapping[str, str], ask: Ask) -> str | None:
    """What the recipe says, else the Hub; None where nobody knows."""
    if name is None or name in stated:
        return stated.get(name or "")
    if name.startswith(PACKAGED):
        return "apache-2.0"
    return ask(kind, name) if is_hub_id(name) else None


def stage_rows(subject: Subject) -> list[list[str]]:
    """Stage, kind, from, rows, settings, device and time, fingerprint: of every stage that the model comes from."""
    names = _ancestors(subject)
    return [_stage_row(made.manifest) for made in subject.stages if made.name in names]


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
