"""Model cards: what it is, where it comes from, how good it is, how to use it and make it again.

Names, prompts and answers of others become cells of tables or fenced blocks, in which they are text and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from llmkit.artifacts.files import read_json
from llmkit.artifacts.manifest import Sample
from llmkit.hub.figures import figure_rows, honesty_rows, limits, results
from llmkit.hub.files import DataItem
from llmkit.hub.licences import KNOWN, UNKNOWN, conflicts
from llmkit.hub.lineage import Helper, Source, is_hub_id, stage_rows
from llmkit.hub.paths import Paths
from llmkit.hub.subject import Subject
from llmkit.recipe.hub import HubSpec
from llmkit.report.marks import cell, fence, table
from llmkit.report.numbers import count
from llmkit.visible import visible

TEMPLATES = Path(__file__).parent / "templates"
_LONGEST = 600
"""Characters of a sample answer."""


@dataclass(frozen=True)
class Facts:
    """All that cards are made of."""

    subject: Subject
    spec: HubSpec
    folder: Path
    """Of the model that is published."""
    sources: Sequence[Source]
    helpers: Sequence[Helper]
    base_licence: str | None
    data: Sequence[DataItem]
    missed: Sequence[str]
    """Bars that were not reached."""
    paths: Paths

    @property
    def is_adapter(self) -> bool:
        return (self.folder / "adapter_config.json").is_file()

    @property
    def data_repo(self) -> str:
        return f"{self.spec.repo_id}-data"

    @property
    def base(self) -> str:
        return "new weights" if self.subject.base is None else self.paths.hidden(self.subject.base)

    def conflicts(self) -> list[str]:
        """Of the model's licence with those of what it is made from."""
        licences = {self.base: self.base_licence} if self.subject.base else {}
        licences |= {s.name: s.licence for s in self.sources if not s.is_made_here}
        licences |= {one.name: one.licence for one in self.helpers if one.is_model or one.licence}
        return conflicts(self.spec.license, licences)


def model_card(facts: Facts, tag: str) -> str:
    """The README.md of the model's repository. `tag`: of the commit that it will be in."""
    made = facts.subject.model.manifest
    card = ModelCard.from_template(
        _model_data(facts),
        template_path=str(TEMPLATES / "model.md.jinja"),
        repo_id=facts.spec.repo_id,
        data_repo=facts.data_repo if facts.data else "",
        tag=tag,
        what=_what(facts),
        has_template=(facts.folder / "chat_template.jinja").is_file(),
        is_adapter=facts.is_adapter,
        stop_token=cell(made.stop_token or "the tokenizer's end-of-text token"),
        template_sha256=(made.chat_template_sha256 or "")[:12],
        lineage=table(["stage", "kind", "from", "rows", "settings", "fingerprint"], stage_rows(facts.subject)),
        data=_data_table(facts),
        helpers=_helper_table(facts),
        conflicts=[cell(words) for words in facts.conflicts()],
        results=_table(["evaluation", "metric", "this model", "base model", "samples"], figure_rows(facts.subject)),
        honesty=_table(["what", "value", "samples", "metric"], honesty_rows(facts.subject)),
        limits=[cell(words) for words in limits(facts.subject)],
        answers=list(_answers(facts.subject)),
        missed=[cell(words) for words in facts.missed],
        warnings=[cell(text) for made in facts.subject.chain for text in made.manifest.warnings],
        versions=", ".join(f"{name} {version}" for name, version in made.versions.items()),
        seed=made.settings.get("seed"),
        config=_shape(facts.folder),
    )
    return clean(str(card), facts.paths)


def _model_data(facts: Facts) -> ModelCardData:
    base = facts.subject.base
    public = [one.path for one in facts.sources if one.path is not None and is_hub_id(one.path)]
    found = results(facts.subject)
    return ModelCardData(
        **licence_data(facts.spec.license),
        language=facts.spec.language or None,
        base_model=base if is_hub_id(base) else None,
        base_model_relation=("adapter" if facts.is_adapter else "finetune") if is_hub_id(base) else None,
        datasets=list(dict.fromkeys([*public, *([facts.data_repo] if facts.data else [])])) or None,
        library_name="peft" if facts.is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["llmkit", *dict.fromkeys(made.manifest.kind for made in facts.subject.chain)],
        model_name=facts.spec.repo_id.partition("/")[2],
        eval_results=found or None,
    )


def licence_data(stated: str | None) -> dict[str, Any]:
    """The Hub takes ids of its own list, and `other` with a name."""
    if stated is None:
        return {}
    name = " ".join(visible(stated).split())
    return {"license": name.lower()} if name.lower() in KNOWN else {"license": "other", "license_name": name}


def _what(facts: Facts) -> str:
    kinds = ", ".join(f"`{made.name}` ({made.manifest.kind})" for made in facts.subject.chain)
    form = "An adapter" if facts.is_adapter else "A language model"
    origin = "from new weights" if facts.subject.base is None else f"on {cell(facts.base)}"
    if facts.subject.base_revision and facts.subject.base:
        origin += f" (revision `{cell(facts.subject.base_revision)}`)"
    return f"{form}, trained {origin} by llmkit in the stages {kinds}."


def _data_table(facts: Facts) -> str:
    rows = [
        [
            one.stage,
            one.name,
            one.revision,
            count(one.num_rows) if one.num_rows else "",
            one.sha256[:12],
            "made here" if one.is_made_here else one.licence or UNKNOWN,
        ]
        for one in facts.sources
    ]
    return _table(["stage", "source", "revision", "rows used", "sha256 of the rows", "licence"], rows)


def _helper_table(facts: Facts) -> str:
    rows = [
        [one.stage, one.does, one.name, one.revision, one.licence or (UNKNOWN if one.is_model else "")]
        for one in facts.helpers
    ]
    return _table(["stage", "what", "who", "revision", "licence"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(head, rows) if rows else ""


def _answers(subject: Subject) -> Iterator[tuple[str, str]]:
    """The recipe's prompts and what the model said, as fenced blocks."""
    found: list[Sample] = []
    for made in subject.readers(subject.model.name):
        if made.manifest.kind == "evaluate":
            found = made.manifest.samples or found
    for sample in found[:5]:
        yield fence(_cut(sample.prompt)), fence(_cut(sample.completion))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _shape(folder: Path) -> str:
    """Architecture in words, where the model is whole."""
    if not (folder / "config.json").is_file():
        return ""
    config = read_json(folder / "config.json")
    names = [str(name) for name in config.get("architectures") or []]
    return cell(f"{', '.join(names) or config.get('model_type')}, {config.get('num_hidden_layers', '?')} layers")


def clean(text: str, paths: Paths) -> str:
    return visible(paths.hide(text))
