"""Checks of `hub`, `ship` and stages of kind `push`: names of evaluations and metrics, sources, stages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from llmkit.artifacts.shipped import shipped
from llmkit.errors import RecipeError
from llmkit.recipe import reads
from llmkit.recipe.hub import Bars, HubSpec, PushStage
from llmkit.recipe.identity import IdentityEval
from llmkit.recipe.knowledge import HonestySpec
from llmkit.recipe.preference import PreferenceSpec
from llmkit.recipe.schema import EvalSpec, EvaluateStage, Recipe
from llmkit.recipe.source import Loc, read_yaml
from llmkit.recipe.stages_preference import RankStage, RewardStage

Found = tuple[Loc, str, str]
_HONESTY = (
    "hallucination", "accuracy", "precision", "answer_rate", "refusal_rate", "empty_rate", "undecided_rate",
    "accuracy_known", "over_refusal_known", "hallucination_unknown", "refusal_unknown", "s_prudence", "s_over_consv",
    "abstention_precision", "score_t0", "score_t50", "score_t75", "score_t90", "auroc", "ece", "brier", "ap", "aurc",
    "coverage_at_90", "s_honesty", "s_honesty_known_unknown", "s_honesty_best", "ths", "refusal_diversity",
)  # fmt: skip
_IDENTITY = ("accuracy", "persona_accuracy", "claims_other")
_OF_GROUPS = ("accuracy", "hallucination", "refused")
_NAMED_GROUPS: dict[type, re.Pattern[str]] = {
    HonestySpec: re.compile(r"(accuracy|hallucination|refused)_\w+"),
    IdentityEval: re.compile(r"accuracy, (kind|language) .+"),
}
"""Metrics of groups that only the questions name."""


def shipping(recipe: Recipe) -> Iterator[Found]:
    """All problems, as (location, what, cure)."""
    yield from _bars(recipe, recipe.ship, ("ship",), recipe.evals)
    yield from _licenses(recipe, recipe.hub, ("hub",))
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, PushStage):
            yield from _stage(recipe, stage, ("stages", index))


def _stage(recipe: Recipe, stage: PushStage, loc: Loc) -> Iterator[Found]:
    if stage.hub is None and recipe.hub is None:
        yield loc, "does not say where to publish", "add 'hub: {repo_id: me/assistant}' here or to the recipe"
    yield from _bars(recipe, stage.ship, (*loc, "ship"), recipe.evals)
    yield from _licenses(recipe, stage.hub, (*loc, "hub"))
    by_name = {each.name: each for each in recipe.stages}
    name = stage.from_
    while name in by_name and not by_name[name].makes_model:
        name = by_name[name].from_
    if name == "base":
        yield (*loc, "from"), "would publish the base model", "name a training stage"
    if stage.launch.num_processes > 1:
        yield (*loc, "launch", "num_processes"), "one process publishes", "leave it out"


def _bars(recipe: Recipe, bars: Bars, loc: Loc, evals: Sequence[Any]) -> Iterator[Found]:
    every = [*evals, *(spec for stage in recipe.stages if isinstance(stage, EvaluateStage) for spec in stage.evals)]
    specs = {name_of(spec): spec for spec in every}
    for evaluation, metrics in bars.items():
        if evaluation not in specs:
            yield (*loc, evaluation), f"no evaluation is called '{evaluation}'", _nearest(evaluation, specs)
            continue
        known = metrics_of(specs[evaluation])
        for metric in metrics:
            if known and metric not in known and not _of_group(specs[evaluation], metric):
                what = f"'{evaluation}' has no metric '{metric}'"
                yield (*loc, evaluation, metric), what, _nearest(metric, known)


def name_of(spec: Any) -> str:
    """Under which name an evaluation is in manifests."""
    return str(spec.task if isinstance(spec, EvalSpec) else spec.name)


def metrics_of(spec: Any) -> list[str]:
    """What an evaluation measures; empty where only running it tells."""
    if isinstance(spec, HonestySpec):
        groups = dict.fromkeys([*spec.known_groups, *spec.unknown_groups])
        return [*_HONESTY, *(f"{prefix}_{group}" for group in groups for prefix in _OF_GROUPS)]
    if isinstance(spec, IdentityEval):
        return [*_IDENTITY]
    if not isinstance(spec, EvalSpec):
        return []
    folders = [shipped("evals"), *([Path(spec.include_path).expanduser()] if spec.include_path else [])]
    return _of_task(spec.task, tuple(folders))


@cache
def _of_task(task: str, folders: tuple[Path, ...]) -> list[str]:
    """The `metric_list` of a task file under `folders`; empty for what inherits it or lies elsewhere."""
    for path in (path for folder in folders for path in sorted(folder.rglob(f"{task}.y*ml"))):
        try:
            listed = read_yaml(path).data.get("metric_list") or []
        except RecipeError:  # lm-eval's own tags
            continue
        return [str(item["metric"]) for item in listed if isinstance(item, dict) and "metric" in item]
    return []


def _of_group(spec: Any, metric: str) -> bool:
    named = _NAMED_GROUPS.get(type(spec))
    return named is not None and named.fullmatch(metric) is not None


def _licenses(recipe: Recipe, hub: HubSpec | None, loc: Loc) -> Iterator[Found]:
    names = [source.path for stage in recipe.stages for _, source in reads.sources(stage) if source.path]
    names += [stage.path for stage in recipe.stages if isinstance(stage, RankStage) and stage.path]
    asked = [spec for stage in recipe.stages for _, spec in reads.roles(stage)]
    asked += [spec.judge for spec in recipe.evals if isinstance(spec, (HonestySpec, PreferenceSpec)) and spec.judge]
    begun = [stage.model for stage in recipe.stages if isinstance(stage, RewardStage) and stage.model]
    models = [recipe.model.name_or_path, *(spec.name_or_path for spec in (*begun, *asked))]
    known = dict.fromkeys([*(name for name in models if name), *names])
    for name in hub.licenses if hub else ():
        if name not in known:
            yield (*loc, "licenses", name), "is no source of this recipe", _nearest(name, known)


def _nearest(name: str, known: Any) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else f"have: {', '.join(list(known)[:12]) or 'none'}"
