"""From a run's folder to packages, and from packages to the Hub. Everything is checked before anything is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, get_token

from llmkit.artifacts.manifest import Published
from llmkit.errors import RunError
from llmkit.hub import remote
from llmkit.hub.adapter import model_folder
from llmkit.hub.bars import check_bars
from llmkit.hub.card import Facts, model_card
from llmkit.hub.data_card import data_card
from llmkit.hub.files import (
    Item,
    check_paths,
    check_secrets,
    data_files,
    manifest_files,
    model_files,
    recipe_file,
)
from llmkit.hub.lineage import Ask, data_stages, helpers, licence_of, sources
from llmkit.hub.paths import Paths
from llmkit.hub.remote import Package
from llmkit.hub.subject import Subject
from llmkit.hub.trouble import known_secrets
from llmkit.recipe.hub import Bars, HubSpec

_PLACEHOLDER = "TAG"
CARD = "README.md"


@dataclass(frozen=True)
class Ready:
    """All that a push would send."""

    packages: Sequence[Package]
    """In the order in which they are sent: the model's, which names the others, comes last."""
    missed: Sequence[str]
    """Bars that were not reached."""
    conflicts: Sequence[str]
    left_out: Sequence[str]
    """Files of the model's folder that are not published."""


def prepare(
    subject: Subject,
    spec: HubSpec,
    bars: Bars,
    scratch: Path,
    *,
    despite_bars: bool = False,
    report: Sequence[Item] = (),
    ask: Ask | None = None,
) -> Ready:
    """Reads the run and writes cards; sends nothing.

    Args:
        scratch: a folder (`scratch_in`), made here for a model that must be merged.
        report: its files.
        ask: what the Hub says of a licence (default: `hub_licence`).

    Raises:
        UserError: the model is below a bar, or a file holds a secret. ModelError: it has no whole safetensors.
    """
    missed = check_bars(subject, bars, despite_bars)
    paths, ask = Paths([subject.run.path]), ask or hub_licence
    folder = model_folder(subject.model, spec.merged, scratch)
    weights, left_out = model_files(folder)
    facts = Facts(
        subject=subject,
        spec=spec,
        folder=folder,
        sources=sources(subject, spec.licenses, ask),
        helpers=helpers(subject, spec.licenses, ask),
        base_licence=licence_of("model", subject.base, spec.licenses, ask),
        data=data_files(data_stages(subject, spec.datasets)),
        missed=missed,
        paths=paths,
    )
    shown = [Item(item.path, paths.hide(_text(item)).encode()) for item in report] if spec.report else []
    own = [recipe_file(subject, paths), *manifest_files(subject, paths), *shown]
    packages = [_model_package(facts, [*weights, *own])]
    if facts.data:
        packages.insert(0, _data_package(facts))
    for package in packages:
        check_secrets(package.items, known_secrets())
        check_paths((item for item in package.items if not item.path.startswith("data/")), paths)
    return Ready(packages, missed, facts.conflicts(), left_out)


def _text(item: Item) -> str:
    return "".join(item.texts())


def _model_package(facts: Facts, items: Sequence[Item]) -> Package:
    """The tag is part of the card, so it stands for the rest and for a card without it."""
    without = Item(CARD, model_card(facts, _PLACEHOLDER).encode())
    tag = _tag(facts, [*items, without])
    return _package(facts, facts.spec.repo_id, "model", [Item(CARD, model_card(facts, tag).encode()), *items], tag)


def _data_package(facts: Facts) -> Package:
    items = [Item(CARD, data_card(facts).encode()), *(one.item for one in facts.data)]
    return _package(facts, facts.data_repo, "dataset", items, _tag(facts, items))


def _tag(facts: Facts, items: Sequence[Item]) -> str:
    if facts.spec.tag is not None:
        return facts.spec.tag
    listing = "\n".join(f"{item.path} {item.sha256}" for item in sorted(items, key=lambda item: item.path))
    return f"{_run(facts)}-{hashlib.sha256(listing.encode()).hexdigest()[:8]}"


def _run(facts: Facts) -> str:
    return str((facts.subject.recipe.get("run") or {}).get("name") or "run")


def _package(facts: Facts, repo_id: str, repo_type: remote.RepoType, items: Sequence[Item], tag: str) -> Package:
    stage = facts.subject.model.name
    marked = [*items, remote.marker(items, _run(facts), stage)]
    return Package(repo_id, repo_type, marked, tag, f"llmkit: {_run(facts)}, stage {stage}")


def send(
    packages: Sequence[Package],
    spec: HubSpec,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> list[Published]:
    """One commit and one tag in each repository. All are looked at before the first is written to."""
    if get_token() is None:
        raise RunError(spec.repo_id, "nobody is logged in to the Hub", "run `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    for package in packages:
        found = remote.look(api, package, spec.revision)
        if found is not None:
            remote.check(api, package, found, spec, overwrite)
    return [remote.publish(api, package, spec, overwrite=overwrite, say=say) for package in packages]


def hub_licence(kind: str, name: str) -> str | None:
    """What the card of a model or data set says; None where the Hub has none or cannot be reached."""
    api = HfApi()
    try:
        ask = api.model_info if kind == "model" else api.dataset_info
        data = ask(name, timeout=5.0).card_data
    except Exception:  # a licence that nobody tells is unknown: the card says so
        return None
    found = data.get("license") if data is not None else None
    return str(found[0] if isinstance(found, list) and found else found) if found else None
