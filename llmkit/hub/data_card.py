"""The card of the data sets: whose rows they are, what each stage made of them, and how it was set."""

from __future__ import annotations

import json
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from llmkit.hub.card import TEMPLATES, Facts, clean, licence_data
from llmkit.hub.lineage import stage_of
from llmkit.hub.subject import Made
from llmkit.recipe.stages_knowledge import RefusalsStage
from llmkit.report.marks import cell, table
from llmkit.report.numbers import count

_MADE = {
    "refusals": "answers where the model knows, and refusals where it does not, made from a probe of it",
    "rollout": "several answers of the model to each prompt",
    "rank": "answers in order, best to worst",
    "best_of_n": "answers of the model that were right",
}
_SHUFFLED = "a control: which questions are answered and which refused was dealt at random, whatever the model knows"
_REFUSALS = "a control: refusals alone, of what the model does not know"
_TOLD = {"name", "kind", "from", "seed", "launch"}
"""Settings that say nothing of the rows, or that the table has."""


def data_card(facts: Facts) -> str:
    """The README.md of the repository of its data sets."""
    data = DatasetCardData(
        **licence_data(facts.spec.license),
        language=facts.spec.language or None,
        pretty_name=f"{facts.data_repo.partition('/')[2]}",
        tags=["llmkit", "text-generation"],
        configs=[
            {"config_name": one.config, "data_files": one.item.path, **({"default": True} if place == 0 else {})}
            for place, one in enumerate(facts.data)
        ],
    )
    rows = [
        [
            one.config,
            one.made.manifest.kind,
            ", ".join(facts.subject.writers(one.made)),
            count(one.num_rows),
            one.item.sha256[:12],
        ]
        for one in facts.data
    ]
    stages = {one.made.name: one.made for one in facts.data}
    card = DatasetCard.from_template(
        data,
        template_path=str(TEMPLATES / "dataset.md.jinja"),
        repo_id=facts.data_repo,
        model_repo=facts.spec.repo_id,
        configs=table(["configuration", "stage kind", "model", "rows", "sha256"], rows),
        stage=cell(facts.subject.model.name),
        stages=[(name, _made(made), [cell(words) for words in _settings(made)]) for name, made in stages.items()],
        first=facts.data[0].config,
        base=cell(facts.base),
        conflicts=[cell(words) for words in facts.conflicts()],
    )
    return clean(str(card), facts.paths)


def _made(made: Made) -> str:
    stage = stage_of(made)
    if isinstance(stage, RefusalsStage) and stage.relabel == "random":
        return _SHUFFLED
    if isinstance(stage, RefusalsStage) and not stage.known_ratio:
        return _REFUSALS
    return _MADE[made.manifest.kind]


def _settings(made: Made) -> list[str]:
    """Those that are not the defaults, as `name: value`."""
    settings = stage_of(made).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return [f"{name}: {_written(value)}" for name, value in settings.items() if name not in _TOLD]


def _written(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
