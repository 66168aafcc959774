"""The steps of a recipe: its stages, resolved, with the automatic evaluations between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmkit.recipe import reads
from llmkit.recipe.checks import BASE, model_of
from llmkit.recipe.curves import filled
from llmkit.recipe.hub import PushStage
from llmkit.recipe.identity import IdentityEval, IdentityStage
from llmkit.recipe.knowledge import HonestySpec, JudgeSpec
from llmkit.recipe.parts import LaunchSpec
from llmkit.recipe.practice import ProblemsSpec, RewardSpec
from llmkit.recipe.reward_keys import options
from llmkit.recipe.rows import HELDOUT
from llmkit.recipe.schema import EvaluateStage, Recipe
from llmkit.recipe.stages import BestOfNStage, PracticeStage, PretrainStage, StageBase, TrainStage
from llmkit.recipe.stages_knowledge import InterrogateStage, RefusalsStage
from llmkit.recipe.tools import ToolsSpec
from llmkit.recipe.trainer_keys import resolved_trainer

REFUSALS = "refusals"
"""Option of rewards that tell refusals from answers."""


def chain(recipe: Recipe) -> list[Any]:
    """Evaluations follow the base model (when a stage starts from it) and every training stage.

    An evaluation that reads what a stage leaves (questions that a probe has set aside, a reward model) can only follow
    that stage: then the model that the stage worked on is measured right after it, before any other one is made.
    """
    stages: list[Any] = []
    measured = bool(recipe.evals or recipe.prompts)
    uses_base = any(s.from_ == BASE and not from_scratch(s) for s in recipe.stages)
    if measured and uses_base:
        first = next((stage for stage in recipe.stages if stage.makes_model), recipe.stages[0])
        stages += _automatic(recipe, BASE, BASE, first.launch, [])
    for stage in recipe.stages:
        done = [s.name for s in stages if not isinstance(s, EvaluateStage)]
        stages.append(_resolved(recipe, stage))
        if not stage.makes_model:
            stages += _after(recipe, stage, [*done, stage.name])
        elif measured:
            stages += _automatic(recipe, stage.name, stage.name, stage.launch, [*done, stage.name])
    return stages


def from_scratch(stage: StageBase) -> bool:
    return isinstance(stage, PretrainStage) and stage.init == "scratch"


def automatic_names(recipe: Recipe) -> set[str]:
    """Names that automatic evaluations may have."""
    needed = {name for spec in recipe.evals for name in reads.needed(spec)}
    measured = (s.name for s in recipe.stages if s.makes_model or s.name in needed)
    return {f"eval-{BASE}", *(f"eval-{name}" for name in measured)}


def _automatic(recipe: Recipe, name: str, of: str, launch: LaunchSpec, done: Sequence[str]) -> list[Any]:
    """One process on the same kind of device as the stage it measures (the base: as the first that trains), for all
    evaluations whose questions exist."""
    evals = [spec for spec in recipe.evals if reads.needed(spec) <= {*done}]
    return [_evaluation(recipe, name, of, launch, evals, recipe.prompts)] if evals or recipe.prompts else []


def _after(recipe: Recipe, stage: Any, done: Sequence[str]) -> list[Any]:
    """Evaluations for which this stage was the last that was missing."""
    evals = [spec for spec in recipe.evals if stage.name in reads.needed(spec) <= {*done}]
    of = model_of(recipe, stage.from_)
    made_by = next((each for each in recipe.stages if each.name == of), stage)
    own = stage if "launch" in stage.model_fields_set else made_by  # what only reads files need not say where it runs
    return [_evaluation(recipe, stage.name, of, own.launch, evals, [])] if evals else []


def _evaluation(recipe: Recipe, name: str, of: str, launch: LaunchSpec, evals: list[Any], prompts: list[str]) -> Any:
    alone = "cpu/single" if launch.accelerate.startswith("cpu/") else "single"
    single = LaunchSpec(accelerate=alone, env=launch.env, memory=launch.memory)
    stage = EvaluateStage.model_validate({"kind": "evaluate", "name": f"eval-{name}", "from": of})
    changes = {"launch": single, "evals": _frozen(recipe, evals), "prompts": prompts, "seed": recipe.run.seed}
    return stage.model_copy(update=changes)


def _resolved(recipe: Recipe, stage: Any) -> Any:
    changes: dict[str, Any] = {"seed": recipe.run.seed if stage.seed is None else stage.seed}
    if isinstance(stage, TrainStage):
        changes["trainer"] = resolved_trainer(stage.trainer_kind, stage.trainer)
    if isinstance(stage, PracticeStage):
        changes["monitors"] = filled(stage.monitors)
    if isinstance(stage, (PracticeStage, BestOfNStage)):
        changes["rewards"] = _rewards(recipe, stage.rewards)
    if isinstance(stage, EvaluateStage):
        changes |= {"evals": _frozen(recipe, stage.evals or recipe.evals), "prompts": stage.prompts or recipe.prompts}
    if isinstance(stage, InterrogateStage):
        changes["judge"] = _judge(recipe, stage.judge)
    if isinstance(stage, PushStage):
        changes |= {"hub": stage.hub or recipe.hub, "ship": stage.ship or recipe.ship}
    if isinstance(stage, IdentityStage):
        changes["identity"] = stage.identity or recipe.identity
    if not stage.asks_model:
        changes["launch"] = stage.launch.model_copy(update={"accelerate": "cpu/single", "num_processes": 1})
    return stage.model_copy(update=changes)


def _frozen(recipe: Recipe, evals: Sequence[Any]) -> list[Any]:
    return [_resolved_eval(recipe, spec) for spec in evals]


def _resolved_eval(recipe: Recipe, spec: Any) -> Any:
    if isinstance(spec, ProblemsSpec):
        return spec.model_copy(update={"rewards": _rewards(recipe, spec.rewards)})
    if isinstance(spec, IdentityEval):
        return spec.model_copy(update={"identity": spec.identity or recipe.identity})
    return _honesty(recipe, spec) if isinstance(spec, (HonestySpec, ToolsSpec)) else spec


def _honesty(recipe: Recipe, spec: HonestySpec | ToolsSpec) -> HonestySpec | ToolsSpec:
    """Of a probe's questions it asks those that no training row does."""
    probes = {stage.name for stage in recipe.stages if isinstance(stage, InterrogateStage)}
    questions = [
        source.model_copy(update={"name": HELDOUT}) if source.from_ in probes else source for source in spec.questions
    ]
    return spec.model_copy(update={"judge": _judge(recipe, spec.judge), "questions": questions})


def _judge(recipe: Recipe, judge: JudgeSpec) -> JudgeSpec:
    """A refusal in the recipe's own words is one for its judges, too."""
    return judge.model_copy(update={"refusals": judge.refusals or _own_refusals(recipe)})


def _rewards(recipe: Recipe, rewards: Sequence[RewardSpec]) -> list[RewardSpec]:
    """And for its rewards: else practice would unlearn the words that the stage before it has taught."""
    own = _own_refusals(recipe)
    return [
        reward.model_copy(update={"args": {REFUSALS: own, **reward.args}})
        if own and reward.name is not None and REFUSALS in options(reward.name)
        else reward
        for reward in rewards
    ]


def _own_refusals(recipe: Recipe) -> list[str]:
    made = [stage for stage in recipe.stages if isinstance(stage, RefusalsStage)]
    own = [text for stage in made for text in stage.refusals.wordings]
    looked_up = [text for stage in made if stage.lookup is not None for text in stage.lookup.not_found]
    # without the name; a short part would be found inside of other words
    parts = (max(text.split("{entity}"), key=len).strip() for text in looked_up)
    return list(dict.fromkeys([*own, *parts]))
