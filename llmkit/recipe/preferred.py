"""What no single field can know about stages that work with preferences: which stage is what, and what watches whom."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llmkit.recipe import reads
from llmkit.recipe.parts import DataSource
from llmkit.recipe.preference import PreferenceSpec, RewardModelSpec
from llmkit.recipe.schema import Evals, EvaluateStage, Recipe
from llmkit.recipe.source import Loc
from llmkit.recipe.stages import BestOfNStage, DpoStage, StageBase
from llmkit.recipe.stages_preference import RankStage, RewardStage, RlhfStage, RolloutStage

Found = tuple[Loc, str, str]
ByName = Mapping[str, StageBase]


def preferred(recipe: Recipe) -> Iterator[Found]:
    """All problems, as (location, what, cure)."""
    by_name: dict[str, StageBase] = {stage.name: stage for stage in recipe.stages}
    for index, stage in enumerate(recipe.stages):
        found: Iterator[Found] = iter(())
        if isinstance(stage, RolloutStage):
            found = _rollout(stage, by_name)
        elif isinstance(stage, RankStage):
            found = _rank(stage, by_name)
        elif isinstance(stage, RewardStage):
            found = _reward(stage)
        elif isinstance(stage, DpoStage):
            found = _dpo(stage, by_name)
        elif isinstance(stage, RlhfStage):
            found = _rlhf(stage, by_name, recipe.run.seed)
        elif isinstance(stage, BestOfNStage):
            found = _best_of_n(stage, by_name)
        yield from ((("stages", index, *loc), what, cure) for loc, what, cure in found)
        if not isinstance(stage, EvaluateStage):
            continue
        yield from _doubled_in(("stages", index, "evals"), stage.evals)
        for loc, name in reads.eval_reward_models(stage.evals):
            yield from _is_reward(("stages", index, *loc), name, by_name)
    yield from _doubled_in(("evals",), recipe.evals)
    for loc, name in reads.eval_reward_models(recipe.evals):
        yield from _is_reward(("evals", *loc[1:]), name, by_name)


def _is_reward(loc: Loc, name: str, by_name: ByName) -> Iterator[Found]:
    if name not in by_name:
        yield loc, f"no stage is called '{name}'", f"have: {', '.join(by_name)}"
    elif not isinstance(by_name[name], RewardStage):
        yield loc, f"'{name}' is no 'reward' stage", "name one"


def _rollout(stage: RolloutStage, by_name: ByName) -> Iterator[Found]:
    for place, name in enumerate(stage.models):
        if name in by_name and not by_name[name].makes_model:
            yield ("models", place), f"'{name}' makes no model", "name a stage that trains one"
        if name == stage.from_ or name in stage.models[:place]:
            yield ("models", place), f"'{name}' answers already", "leave it out"


def _rank(stage: RankStage, by_name: ByName) -> Iterator[Found]:
    made = by_name.get(stage.rollouts)
    if made is not None and not isinstance(made, RolloutStage):
        yield ("rollouts",), f"'{made.name}' is no 'rollout' stage", "name one"
    if stage.by not in ("human", "file") and "min_ranked" in stage.model_fields_set:
        yield ("min_ranked",), f"has no effect with 'by: {stage.by}', which ranks all prompts", "leave it out"
    if stage.by != "judge" and "batch_size" in stage.model_fields_set:
        yield ("batch_size",), f"has no effect with 'by: {stage.by}'", "leave it out"


def _dpo(stage: DpoStage, by_name: ByName) -> Iterator[Found]:
    """Its loss is over all tokens of an answer."""
    for loc, source in reads.sources(stage):
        ranks = by_name.get(source.from_ or "")
        made = by_name.get(ranks.rollouts) if isinstance(ranks, RankStage) else None
        if isinstance(made, RolloutStage) and made.tools:
            what = f"answers of '{made.name}' hold results of tools, which a 'dpo' stage would train"
            cure = f"train a 'reward' stage on '{source.from_}', or an 'sft' stage on what 'best_of_n' keeps"
            yield (*loc, "from"), what, cure


_OF_TRAINING = (
    "global_batch_size", "heldout_fraction", "learning_curve", "loss", "num_layers", "num_models", "peft", "seed",
)  # fmt: skip


def _reward(stage: RewardStage) -> Iterator[Found]:
    if stage.model is not None and stage.model.name_or_path is None:
        yield ("model", "name_or_path"), "is not there", "name a model, or leave 'model' out"
    if not stage.train:
        yield from _finished(stage)
    if stage.peft is not None and not stage.peft.merge:
        yield ("peft", "merge"), "a reward model is read whole by the stages that use it", "leave it out"
    if stage.learning_curve and not stage.heldout_fraction:
        yield ("learning_curve",), "has nothing to be measured on", "set 'heldout_fraction', or leave it out"
    if len(set(stage.learning_curve)) < len(stage.learning_curve):
        yield ("learning_curve",), "holds a share twice", "leave one out"


def _finished(stage: RewardStage) -> Iterator[Found]:
    """A reward model that is not trained."""
    if stage.model is None:
        yield ("train",), "is false, and no 'model' says which reward model is meant", "add 'model', or leave it out"
    options = [("trainer", name) for name in stage.trainer if name != "max_length"]
    for loc in [*((name,) for name in _OF_TRAINING if name in stage.model_fields_set), *options]:
        yield loc, "has no effect with 'train: false'", "leave it out"


def _rlhf(stage: RlhfStage, by_name: ByName, run_seed: int) -> Iterator[Found]:
    for loc, name in reads.reward_models(stage):
        if name in by_name:
            yield from _is_reward(loc, name, by_name)
    if not stage.heldout:
        cure = "name prompts that are not practised on: heldout: {prompts: [...]}"
        yield ("heldout",), "is empty, and the guard looks at held-out prompts", cure
    for name in ("resample", "screen", "filter", "curriculum"):
        if getattr(stage.sampling, name) and not stage.rewards:
            what = "asks whether problems are solved, which a reward model does not say"
            yield ("sampling", name), what, "leave it out, or add 'rewards' on correctness"
    if stage.reward_when and not stage.rewards:
        yield ("reward_when",), "leaves rows out that nothing else scores", "add 'rewards' for them, or leave it out"
    if "measure" in stage.model_fields_set:
        yield ("measure",), "has no effect in an 'rlhf' stage: its guard looks at held-out prompts", "set 'guard.every'"
    yield from _combined(stage.reward_model)
    yield from _gold(stage, by_name, run_seed)


def _best_of_n(stage: BestOfNStage, by_name: ByName) -> Iterator[Found]:
    for loc, name in reads.reward_models(stage):
        if name in by_name:
            yield from _is_reward(loc, name, by_name)
    if stage.reward_model is not None:
        yield from _combined(stage.reward_model)


def _combined(spec: RewardModelSpec) -> Iterator[Found]:
    yield from _doubled(("reward_model",), spec)
    if spec.combine != "variance" and "uncertainty" in spec.model_fields_set:
        yield ("reward_model", "uncertainty"), f"has no effect with 'combine: {spec.combine}'", "leave it out"


def _doubled(loc: Loc, spec: RewardModelSpec) -> Iterator[Found]:
    for place, name in enumerate(spec.from_):
        if name in spec.from_[:place]:
            yield (*loc, "from", place), f"'{name}' stands here twice, and would count twice", "leave one out"


def _doubled_in(loc: Loc, evals: Evals) -> Iterator[Found]:
    for place, spec in enumerate(evals):
        if isinstance(spec, PreferenceSpec) and spec.reward_model is not None:
            yield from _doubled((*loc, place, "reward_model"), spec.reward_model)


def _gold(stage: RlhfStage, by_name: ByName, run_seed: int) -> Iterator[Found]:
    """The guard's judge must see with other eyes than the reward that it guards. That the prompts are others is checked
    when they are there."""
    if stage.guard == "off" or stage.guard.gold is None:
        return
    loc, name = ("guard", "gold"), stage.guard.gold
    gold = by_name.get(name)
    if name in stage.reward_model.from_:
        yield loc, f"'{name}' is what the policy is trained on", "train another 'reward' stage on other prompts"
        return
    for proxy in (by_name.get(other) for other in stage.reward_model.from_):
        if not (isinstance(gold, RewardStage) and isinstance(proxy, RewardStage)):
            continue
        if not (gold.train and proxy.train):
            if gold.train == proxy.train and gold.model == proxy.model:
                yield loc, f"'{name}' is the same model as '{proxy.name}': it would be fooled with it", "name another"
            continue
        if any(_origin(one) == _origin(other) for one in gold.data for other in proxy.data):
            what = f"'{name}' is trained on the same rankings as '{proxy.name}': it would be fooled with it"
            yield loc, what, "rank answers to other prompts, and train it on these"
        elif shared := _seeds(gold, run_seed) & _seeds(proxy, run_seed):
            what = f"'{name}' has a seed of '{proxy.name}' ({min(shared)}): their scores begin alike"
            yield loc, what, f"give '{name}' another 'seed'"


def _origin(source: DataSource) -> tuple[Any, ...]:
    """Of two sources that are alike in this one holds rows of the other, however many are taken."""
    return source.path, source.from_, source.name, source.split, json.dumps(source.args, sort_keys=True)


def _seeds(stage: RewardStage, run_seed: int) -> set[int]:
    """Of its members."""
    first = run_seed if stage.seed is None else stage.seed
    return set(range(first, first + stage.num_models))
