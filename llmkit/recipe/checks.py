"""What no single field can know: names, order of stages, mixtures, trainer options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from llmkit.recipe import reads, reward_keys, templates
from llmkit.recipe.identity import IdentityEval, IdentityStage
from llmkit.recipe.knowledge import LANGUAGES, HonestySpec
from llmkit.recipe.preference import PreferenceSpec
from llmkit.recipe.preferred import preferred
from llmkit.recipe.rows import unfit_rows
from llmkit.recipe.schema import Evals, EvalSpec, EvaluateStage, Recipe
from llmkit.recipe.source import Loc
from llmkit.recipe.splits import other_splits
from llmkit.recipe.stages import (
    BestOfNStage,
    DpoStage,
    PracticeStage,
    PretrainStage,
    StageBase,
    TrainSource,
    TrainStage,
    TunedStage,
)
from llmkit.recipe.stages_knowledge import InterrogateStage, RefusalsStage, SearchIndexStage
from llmkit.recipe.stages_preference import RewardStage, RlhfStage, RolloutStage
from llmkit.recipe.tools import SearchSpec, ToolsSpec
from llmkit.recipe.trainer_keys import CONFIG_CLASSES, check_trainer, trainer_options
from llmkit.recipe.trainer_values import check_values
from llmkit.recipe.unread import unread

Found = tuple[Loc, str, str]
BASE = "base"
OWN_HELDOUT = "heldout"
"""What a `reward` stage calls the prompts that it sets aside."""


def check(recipe: Recipe) -> list[Found]:
    """All problems across fields, as (location, what, cure)."""
    trainers = check_trainers(recipe.model_dump(by_alias=True))
    return [
        *_names(recipe),
        *_links(recipe),
        *_adapters(recipe),
        *_injections(recipe),
        *_model(recipe),
        *_mixtures(recipe),
        *_probes(recipe),
        *other_splits(recipe),
        *unfit_rows(recipe),
        *unread(recipe),
        *_languages(recipe),
        *_watched(recipe),
        *_evaluations(recipe),
        *_tools(recipe),
        *_identities(recipe),
        *_templates(recipe),
        *_rewards(recipe),
        *_paid(recipe),
        *preferred(recipe),
        *trainers,
    ]


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
        if isinstance(stage, DpoStage) and stage.peft and stage.trainer.get("sync_ref_model"):
            what = "TRL cannot move the reference model towards an adapter"
            yield ("stages", index, "trainer", "sync_ref_model"), what, "leave out 'sync_ref_model' or 'peft'"
        if isinstance(stage, RlhfStage) and stage.guard != "off" and stage.trainer.get("sync_ref_model"):
            what = "a guard goes back to checkpoints, in which TRL does not save the reference model"
            yield ("stages", index, "trainer", "sync_ref_model"), what, "leave it out, or set 'guard: off'"
        if isinstance(stage, RewardStage) and OWN_HELDOUT in stage.heldout:
            what = "is the name of what 'heldout_fraction' sets aside"
            yield ("stages", index, "heldout", OWN_HELDOUT), what, "give the set another name"


def _injections(recipe: Recipe) -> Iterator[Found]:
    """Instructions that are taught and asked with: the evaluation would measure what was learned by heart."""
    evals = [
        *recipe.evals,
        *(spec for stage in recipe.stages if isinstance(stage, EvaluateStage) for spec in stage.evals),
    ]
    lists = [spec.injections for spec in evals if isinstance(spec, ToolsSpec) and spec.injections != "shipped"]
    asked = {each.text for specs in lists for each in specs if not isinstance(each, str)}
    for index, stage in enumerate(recipe.stages):
        lookup = stage.lookup if isinstance(stage, RefusalsStage) else None
        for place, text in enumerate(lookup.injections if lookup else ()):
            if text in asked:
                what = "is what an evaluation plants, too"
                yield ("stages", index, "lookup", "injections", place), what, "teach with others"


def _references(stage: StageBase) -> Iterator[tuple[Loc, str]]:
    if not (isinstance(stage, PretrainStage) and stage.init == "scratch"):
        yield ("from",), stage.from_
    yield from reads.stages(stage)


def model_of(recipe: Recipe, name: str) -> str:
    """The training stage whose model `name` stands for: stages that make no model pass theirs on."""
    by_name = {stage.name: stage for stage in recipe.stages}
    while name in by_name and not by_name[name].makes_model:
        name = by_name[name].from_
    return name


def _probes(recipe: Recipe) -> Iterator[Found]:
    """A probe says what one model knows: rows made from it are for that model."""
    by_name = {stage.name: stage for stage in recipe.stages}
    for index, stage in enumerate(recipe.stages):
        for loc, name in reads.probes(stage):
            if name in by_name and not isinstance(by_name[name], InterrogateStage):
                yield ("stages", index, *loc), f"'{name}' is no 'interrogate' stage", "name one"
        for loc, asked, what in _asked(stage, by_name):
            models = {model_of(recipe, probe) for probe in asked if probe in by_name}
            if models and model_of(recipe, stage.from_) not in models:
                cure = f"set 'from: {sorted(models)[0]}', or interrogate '{stage.from_}'"
                said = f"{what} the model of {' and '.join(sorted(models))}, and this stage starts from '{stage.from_}'"
                yield ("stages", index, *loc), said, cure


def _asked(stage: StageBase, by_name: Mapping[str, StageBase]) -> Iterator[tuple[Loc, list[str], str]]:
    """(location, probes, what they are) for all that must fit the stage's input model."""
    if isinstance(stage, RefusalsStage):
        yield ("from",), stage.probes, "the probes asked"
    for loc, source in reads.sources(stage) if isinstance(stage, TrainStage) else ():
        made = by_name.get(source.from_ or "")
        # practice scores whatever this model answers; what the rows say of another one does not matter
        if isinstance(made, RefusalsStage) and not isinstance(stage, PracticeStage):
            yield (*loc, "from"), made.probes, "its rows were made from probes of"
        if isinstance(source, TrainSource) and source.require_known is not None:
            yield (*loc, "require_known"), [source.require_known.probe], "the probe asked"


def _languages(recipe: Recipe) -> Iterator[Found]:
    """Refusals, and what follows a partial answer, are shipped in some languages."""
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, RefusalsStage):
            continue
        loc, have, own = ("stages", index, "refusals", "language"), ", ".join(LANGUAGES), stage.refusals.own
        for language in dict.fromkeys((stage.refusals.language, *own)):
            if language in LANGUAGES:
                continue
            if not own.get(language):
                yield loc, f"no refusals are shipped for '{language}'", f"give 'texts' of your own, or one of {have}"
            elif stage.keep_partial:
                what = f"what follows a partial answer is not shipped for '{language}'"
                yield loc, what, f"set 'keep_partial: false', or one of {have}"


def _watched(recipe: Recipe) -> Iterator[Found]:
    """Questions to stop by are set aside by a `refusals` stage that is told to."""
    by_name = {stage.name: stage for stage in recipe.stages}
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, TunedStage) or stage.early_stopping is None:
            continue
        made = by_name.get(stage.early_stopping.from_)
        loc = ("stages", index, "early_stopping", "from")
        if made is not None and not isinstance(made, RefusalsStage):
            yield loc, f"'{made.name}' is no 'refusals' stage", "name one"
        if isinstance(made, RefusalsStage) and not made.watched:
            yield loc, f"'{made.name}' sets no questions aside", f"set 'watched: 0.05' in '{made.name}'"


def _evaluations(recipe: Recipe) -> Iterator[Found]:
    """Evaluations of a kind that would be measured under one name, and what honesty is compared with and asks."""
    made = {BASE, *(stage.name for stage in recipe.stages if stage.makes_model)}
    earlier = {stage.name: index for index, stage in enumerate(recipe.stages)}
    for loc, evals in _eval_lists(recipe):
        named = Counter(spec.name for spec in evals if not isinstance(spec, EvalSpec))
        for place, spec in enumerate(evals):
            if isinstance(spec, EvalSpec):
                continue
            if named[spec.name] > 1:
                what = f"two evaluations are called '{spec.name}'"
                yield (*loc, place), what, "give each its own 'name'"
            for (_, _, *where), source in reads.eval_sources([spec]):
                if source.from_ is not None and source.from_ not in earlier:
                    at = (*loc, place, *where, "from")
                    yield at, f"no stage is called '{source.from_}'", f"have: {', '.join(earlier)}"
            if not isinstance(spec, (HonestySpec, PreferenceSpec)):
                continue
            if spec.baseline is not None and spec.baseline not in made:
                yield (*loc, place, "baseline"), f"'{spec.baseline}' makes no model", f"have: {', '.join(sorted(made))}"


def _tools(recipe: Recipe) -> Iterator[Found]:
    """Indexes that a search names by their stage."""
    made = {stage.name: stage for stage in recipe.stages}
    found = [(("evals", *loc[1:]), spec) for loc, spec in reads.eval_tools(recipe.evals)]
    for index, stage in enumerate(recipe.stages):
        found += [(("stages", index, *loc), spec) for loc, spec in reads.tools(stage)]
    for loc, spec in found:
        name = spec.from_ if isinstance(spec, SearchSpec) else None
        if name is None:
            continue
        if name not in made:
            yield (*loc, "from"), f"no stage is called '{name}'", f"have: {', '.join(made)}"
        elif not isinstance(made[name], SearchIndexStage):
            yield (*loc, "from"), f"'{name}' is no 'search_index' stage", "name one"


def _identities(recipe: Recipe) -> Iterator[Found]:
    """Nobody can teach or ask who a model is without having been told, and what is told must be used."""
    used = [((*loc, place), spec) for loc, evals in _eval_lists(recipe) for place, spec in enumerate(evals)]
    used += [(("stages", index), stage) for index, stage in enumerate(recipe.stages)]  # type: ignore[misc]
    asking = [(loc, each) for loc, each in used if isinstance(each, (IdentityEval, IdentityStage))]
    for loc, each in asking:
        if each.identity is None and recipe.identity is None:
            what = "has no 'identity': nothing says who the model is"
            yield loc, what, "add 'identity: {name: ...}' to the recipe"
    if recipe.identity is not None and all(each.identity is not None for _, each in asking):
        what = "is read by no stage and no evaluation"
        yield ("identity",), what, "add a stage of 'kind: identity' or 'task: identity' to 'evals', or leave it out"


def _templates(recipe: Recipe) -> Iterator[Found]:
    for index, stage in enumerate(recipe.stages):
        for loc, template in reads.templates(stage):
            if template.match is None and loc[0] == "writer":
                yield ("stages", index, *loc), "a template for documents needs 'match'", "add a regular expression"
            yield from ((("stages", index, *loc, field), what, "") for field, what in templates.problems(template))


def _rewards(recipe: Recipe) -> Iterator[Found]:
    """Names and options of the shipped rewards."""
    rewards = list(reads.eval_rewards(recipe.evals))
    for index, stage in enumerate(recipe.stages):
        rewards += ((("stages", index, *loc), reward) for loc, reward in reads.rewards(stage))
    for loc, reward in rewards:
        yield from (((*loc, *key), what, cure) for key, what, cure in reward_keys.check(reward))


def _paid(recipe: Recipe) -> Iterator[Found]:
    """Practice that pays for nothing, and penalties on lengths that no answer reaches."""
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, PracticeStage):
            continue
        if not isinstance(stage, RlhfStage) and not any(reward.weight for reward in stage.rewards):
            yield ("stages", index, "rewards"), "every weight is 0: nothing is trained", "give one a weight"
        longest = trainer_options(stage.trainer_kind, stage.trainer)["max_completion_length"]
        for place, reward in enumerate(stage.rewards):
            free = reward_keys.costs_nothing(reward)
            if free is not None and isinstance(longest, int) and free >= longest:
                what = f"costs nothing up to {free} tokens, and no answer is longer than {longest}"
                cure = "let it begin below the trainer's 'max_completion_length'"
                yield ("stages", index, "rewards", place, "args"), what, cure


def _eval_lists(recipe: Recipe) -> Iterator[tuple[Loc, Evals]]:
    yield ("evals",), recipe.evals
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, EvaluateStage):
            yield ("stages", index, "evals"), stage.evals


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
        if not isinstance(stage, (TrainStage, BestOfNStage, RolloutStage)):
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
        if not (isinstance(stage, dict) and isinstance(stage.get("trainer"), dict)):
            continue
        kind = stage.get("kind")
        if kind == "rlhf":
            kind = f"rlhf_{stage.get('algorithm', 'grpo')}"
        if kind in CONFIG_CLASSES:
            found = (*check_trainer(kind, stage["trainer"]), *check_values(kind, stage["trainer"]))
            for key, what, cure in found:
                yield ("stages", index, "trainer", key), what, cure
