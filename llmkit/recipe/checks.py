"""What no single field can know: names, order of stages, mixtures, trainer options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmkit.recipe.schema import DataSource, PretrainStage, Recipe, StageBase, TrainStage
from llmkit.recipe.source import Loc
from llmkit.recipe.trainer_keys import CONFIG_CLASSES, check_trainer

Found = tuple[Loc, str, str]
BASE = "base"


def check(recipe: Recipe) -> list[Found]:
    """All problems across fields, as (location, what, cure)."""
    trainers = check_trainers(recipe.model_dump(by_alias=True))
    return [*_names(recipe), *_links(recipe), *_adapters(recipe), *_model(recipe), *_mixtures(recipe), *trainers]


def _names(recipe: Recipe) -> Iterator[Found]:
    seen: dict[str, int] = {}
    for index, stage in enumerate(recipe.stages):
        if stage.name == BASE:
            yield ("stages", index, "name"), f"'{BASE}' is the recipe's model", "choose another name"
        if stage.name in seen:
            what = f"two stages are called '{stage.name}' (the first is stages.{seen[stage.name]})"
            yield ("stages", index), what, "give each its own 'name'"
        seen.setdefault(stage.name, index)


def _links(recipe: Recipe) -> Iterator[Found]:
    for index, stage in enumerate(recipe.stages):
        earlier = [BASE, *(s.name for s in recipe.stages[:index])]
        later = [s.name for s in recipe.stages[index:]]
        for loc, name in _references(stage):
            if name in earlier:
                continue
            what = f"'{name}' is not an earlier stage" if name in later else f"no stage is called '{name}'"
            yield ("stages", index, *loc), what, f"earlier: {', '.join(earlier)}"


def _adapters(recipe: Recipe) -> Iterator[Found]:
    """Training starts from whole weights; an adapter alone can only be evaluated, chatted with and published."""
    alone = {s.name for s in recipe.stages if isinstance(s, TrainStage) and s.peft and not s.peft.merge}
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, TrainStage) and stage.from_ in alone:
            what = f"'{stage.from_}' leaves an adapter alone, which cannot be trained further"
            yield ("stages", index, "from"), what, f"set 'peft.merge: true' in '{stage.from_}'"


def _references(stage: StageBase) -> Iterator[tuple[Loc, str]]:
    if not (isinstance(stage, PretrainStage) and stage.init == "scratch"):
        yield ("from",), stage.from_
    if isinstance(stage, TrainStage):
        for loc, source in _sources(stage):
            if source.from_ is not None:
                yield (*loc, "from"), source.from_


def _sources(stage: TrainStage) -> Iterator[tuple[Loc, DataSource]]:
    yield from ((("data", index), source) for index, source in enumerate(stage.data))
    for name, sources in stage.heldout.items():
        yield from ((("heldout", name, index), source) for index, source in enumerate(sources))


def _model(recipe: Recipe) -> Iterator[Found]:
    scratch = {s.name for s in recipe.stages if isinstance(s, PretrainStage) and s.init == "scratch"}
    if recipe.model.name_or_path is not None:
        return
    for index, stage in enumerate(recipe.stages):
        if stage.from_ == BASE and stage.name not in scratch:
            yield (
                ("stages", index),
                "starts from the recipe's model, but there is no 'model.name_or_path'",
                "add 'model' or 'init: scratch'",
            )


def _mixtures(recipe: Recipe) -> Iterator[Found]:
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, TrainStage):
            continue
        total = sum(source.fraction or 0 for source in stage.data)
        rest = [source for source in stage.data if source.fraction is None]
        if total > 1 + 1e-9 or (total >= 1 - 1e-9 and rest):
            yield ("stages", index, "data"), f"the fractions sum to {total:g} and leave nothing for the others", ""
        if not rest and abs(total - 1) > 1e-6:
            yield ("stages", index, "data"), f"the fractions sum to {total:g}, not 1", ""


def check_trainers(data: Any) -> Iterator[Found]:
    """Trainer options of a recipe's plain data, which may be wrong elsewhere."""
    stages = data.get("stages") if isinstance(data, dict) else None
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        if isinstance(stage, dict) and stage.get("kind") in CONFIG_CLASSES and isinstance(stage.get("trainer"), dict):
            for key, what, cure in check_trainer(stage["kind"], stage["trainer"]):
                yield ("stages", index, "trainer", key), what, cure
