"""Interrogations split entities by hash, seed and share: what is held out by one must not train after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmkit.recipe import reads
from llmkit.recipe.schema import EvaluateStage, Recipe
from llmkit.recipe.source import Loc
from llmkit.recipe.stages import StageBase
from llmkit.recipe.stages_knowledge import InterrogateStage

Found = tuple[Loc, str, str]
Split = tuple[int | None, float]
"""Seed and share of entities; without a seed where nothing is held out."""


def asked_again(stage: InterrogateStage, by_name: Mapping[str, StageBase]) -> list[str]:
    """Earlier interrogations whose questions it asks: these keep their side."""
    named = (source.from_ for source in stage.questions if source.from_ is not None)
    return [name for name in named if isinstance(by_name.get(name), InterrogateStage)]


def splits_itself(stage: InterrogateStage, by_name: Mapping[str, StageBase]) -> bool:
    """Whether some of its questions have no side yet."""
    return bool(stage.documents) or len(asked_again(stage, by_name)) < len(stage.questions)


def other_splits(recipe: Recipe) -> Iterator[Found]:
    """Interrogations that are trained or evaluated on, or gate rows, and hold out other entities than the first."""
    by_name: dict[str, StageBase] = {stage.name: stage for stage in recipe.stages}
    first: tuple[str, Split] | None = None
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, InterrogateStage) or stage.name not in _met(recipe, by_name):
            continue
        if not splits_itself(stage, by_name):
            continue
        split = _split(recipe, stage)
        first = first or (stage.name, split)
        if split != first[1]:
            what = (
                f"holds out other entities than '{first[0]}' ({_words(split)}; there {_words(first[1])}): what one "
                "keeps for evaluation, the other gives to training"
            )
            yield ("stages", index), what, "give both the same 'seed' and 'heldout'"


def _met(recipe: Recipe, by_name: Mapping[str, StageBase]) -> set[str]:
    """Interrogations whose rows are trained or evaluated on, that gate rows, and whose questions these ask again."""
    evals = [recipe.evals, *(stage.evals for stage in recipe.stages if isinstance(stage, EvaluateStage))]
    names = [source.from_ or "" for each in evals for _, source in reads.eval_sources(each)]
    names += [name for stage in recipe.stages for _, name in reads.probes(stage)]
    met: set[str] = set()
    while names:
        stage = by_name.get(names.pop())
        if isinstance(stage, InterrogateStage) and stage.name not in met:
            met.add(stage.name)
            names += asked_again(stage, by_name)
    return met


def _split(recipe: Recipe, stage: InterrogateStage) -> Split:
    seed = recipe.run.seed if stage.seed is None else stage.seed
    return (seed if stage.heldout else None), stage.heldout


def _words(split: Split) -> str:
    return f"seed {split[0]}, heldout {split[1]:g}" if split[1] else "heldout 0"
