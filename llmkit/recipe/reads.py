"""What a stage reads besides its model: data sources, and other stages' rows and probes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmkit.recipe.knowledge import HonestySpec, JudgeSpec, TemplateSpec, WriterSpec
from llmkit.recipe.parts import DataSource
from llmkit.recipe.practice import ProblemsSpec, RewardSpec
from llmkit.recipe.preference import LabellerSpec, PreferenceSpec, RankJudgeSpec
from llmkit.recipe.schema import Evals, EvaluateStage
from llmkit.recipe.source import Loc
from llmkit.recipe.stages import (
    BestOfNStage,
    GrpoStage,
    PracticeStage,
    SampledStage,
    StageBase,
    TrainSource,
    TrainStage,
    TunedStage,
)
from llmkit.recipe.stages_knowledge import InterrogateStage, RefusalsStage, SearchIndexStage
from llmkit.recipe.stages_preference import RankStage, RlhfStage, RolloutStage
from llmkit.recipe.tools import SearchSpec, ToolSpec, ToolsSpec
from llmkit.recipe.trials import JailbreakSpec, ReversalSpec


def name_of(source: DataSource) -> str:
    """How a source is called in messages and manifests."""
    if source.from_ is not None:
        return f"from: {source.from_}{f' {source.name}' if source.name else ''}"
    parts = [source.path or "", source.name or "", source.split if source.split != "train" else ""]
    return " ".join(part for part in parts if part)


def sources(stage: StageBase) -> Iterator[tuple[Loc, DataSource]]:
    """Every data source of a stage, and where it stands."""
    if isinstance(stage, (TrainStage, BestOfNStage, RolloutStage)):
        yield from ((("data", index), source) for index, source in enumerate(stage.data))
    if isinstance(stage, TrainStage):
        for name, held in stage.heldout.items():
            yield from ((("heldout", name, index), source) for index, source in enumerate(held))
    if isinstance(stage, InterrogateStage):
        yield from ((("questions", index), source) for index, source in enumerate(stage.questions))
        yield from ((("documents", index), source) for index, source in enumerate(stage.documents))
    if isinstance(stage, SearchIndexStage):
        yield from ((("documents", index), source) for index, source in enumerate(stage.documents))
    if isinstance(stage, EvaluateStage):
        yield from eval_sources(stage.evals)


def eval_sources(evals: Evals) -> Iterator[tuple[Loc, DataSource]]:
    """Of the evaluations among `evals` that llmkit runs itself."""
    for place, spec in enumerate(evals):
        if isinstance(spec, (HonestySpec, ToolsSpec, ReversalSpec)):
            yield from ((("evals", place, "questions", index), source) for index, source in enumerate(spec.questions))
        if isinstance(spec, JailbreakSpec):
            for field, listed in (("unsafe", spec.unsafe), ("safe", spec.safe)):
                yield from ((("evals", place, field, index), source) for index, source in enumerate(listed))
        if isinstance(spec, ProblemsSpec):
            yield from ((("evals", place, "problems", index), source) for index, source in enumerate(spec.problems))
        if isinstance(spec, PreferenceSpec):
            yield from ((("evals", place, "prompts", index), source) for index, source in enumerate(spec.prompts))


def rewards(stage: StageBase) -> Iterator[tuple[Loc, RewardSpec]]:
    """Every reward of a stage, and where it stands."""
    if isinstance(stage, (PracticeStage, BestOfNStage)):
        yield from ((("rewards", index), spec) for index, spec in enumerate(stage.rewards))
    if isinstance(stage, EvaluateStage):
        yield from eval_rewards(stage.evals)


def eval_rewards(evals: Evals) -> Iterator[tuple[Loc, RewardSpec]]:
    for place, spec in enumerate(evals):
        if isinstance(spec, ProblemsSpec):
            yield from ((("evals", place, "rewards", index), reward) for index, reward in enumerate(spec.rewards))


def stages(stage: StageBase) -> Iterator[tuple[Loc, str]]:
    """Names of stages whose rows, probes or models a stage reads beside its input model."""
    for loc, source in sources(stage):
        if source.from_ is not None:
            yield (*loc, "from"), source.from_
        if isinstance(source, TrainSource) and source.require_known is not None:
            yield (*loc, "require_known"), source.require_known.probe
    if isinstance(stage, RefusalsStage):
        yield from ((("probes", index), name) for index, name in enumerate(stage.probes))
    if isinstance(stage, RolloutStage):
        yield from ((("models", index), name) for index, name in enumerate(stage.models))
    if isinstance(stage, RankStage):
        yield ("rollouts",), stage.rollouts
    yield from reward_models(stage)
    for loc, spec in tools(stage):
        if isinstance(spec, SearchSpec) and spec.from_ is not None:
            yield (*loc, "from"), spec.from_
    if isinstance(stage, TunedStage) and stage.early_stopping is not None:
        yield ("early_stopping", "from"), stage.early_stopping.from_


def reward_models(stage: StageBase) -> Iterator[tuple[Loc, str]]:
    """Names of stages that must be reward models."""
    spec = stage.reward_model if isinstance(stage, (RlhfStage, BestOfNStage)) else None
    if spec is not None:
        yield from ((("reward_model", "from", index), name) for index, name in enumerate(spec.from_))
    if isinstance(stage, RlhfStage) and stage.guard != "off" and stage.guard.gold is not None:
        yield ("guard", "gold"), stage.guard.gold
    if isinstance(stage, EvaluateStage):
        yield from eval_reward_models(stage.evals)


def eval_reward_models(evals: Evals) -> Iterator[tuple[Loc, str]]:
    for place, spec in enumerate(evals):
        if isinstance(spec, PreferenceSpec):
            yield from ((("evals", place), name) for name in spec.stages)


def needed(spec: Any) -> set[str]:
    """Stages that an evaluation reads."""
    return {source.from_ for _, source in eval_sources([spec]) if source.from_ is not None} | {
        name for _, name in (*eval_reward_models([spec]), *eval_indexes([spec]))
    }


def tools(stage: StageBase) -> Iterator[tuple[Loc, ToolSpec]]:
    """Tools that are at hand in a stage."""
    if isinstance(stage, RefusalsStage) and stage.lookup is not None:
        yield from ((("lookup", "tools", index), spec) for index, spec in enumerate(stage.lookup.tools))
    if isinstance(stage, (GrpoStage, SampledStage)):
        yield from ((("tools", index), spec) for index, spec in enumerate(stage.tools))
    if isinstance(stage, EvaluateStage):
        yield from eval_tools(stage.evals)


def eval_tools(evals: Evals) -> Iterator[tuple[Loc, ToolSpec]]:
    for place, spec in enumerate(evals):
        if isinstance(spec, ToolsSpec):
            yield from ((("evals", place, "tools", index), tool) for index, tool in enumerate(spec.tools))


def eval_indexes(evals: Evals) -> Iterator[tuple[Loc, str]]:
    """Names of stages that must be indexes."""
    for loc, spec in eval_tools(evals):
        if isinstance(spec, SearchSpec) and spec.from_ is not None:
            yield loc, spec.from_


def labellers(stage: StageBase) -> Iterator[LabellerSpec]:
    """Functions that say how good an answer is."""
    if isinstance(stage, RankStage) and stage.labeller is not None:
        yield stage.labeller
    if isinstance(stage, EvaluateStage):
        specs = (spec for spec in stage.evals if isinstance(spec, PreferenceSpec))
        yield from (spec.labeller for spec in specs if spec.labeller is not None)
    if isinstance(stage, RlhfStage):
        guard = stage.guard.labeller if stage.guard != "off" else None
        yield from (labeller for labeller in (guard, stage.measured_by) if labeller is not None)


def probes(stage: StageBase) -> Iterator[tuple[Loc, str]]:
    """Names of stages that must be probes."""
    yield from ((loc, name) for loc, name in stages(stage) if loc[-1] == "require_known" or loc[0] == "probes")


def templates(stage: StageBase) -> Iterator[tuple[Loc, TemplateSpec]]:
    """Question templates, and where they stand."""
    for loc, source in sources(stage):
        yield from (((*loc, "templates", i), template) for i, template in enumerate(getattr(source, "templates", ())))
    if isinstance(stage, InterrogateStage):
        yield from ((("writer", "templates", i), template) for i, template in enumerate(stage.writer.templates))


def engines(stage: StageBase) -> Iterator[WriterSpec | JudgeSpec | RankJudgeSpec]:
    """Models beside the stage's own."""
    yield from (spec for _, spec in roles(stage))


def roles(stage: StageBase) -> Iterator[tuple[str, WriterSpec | JudgeSpec | RankJudgeSpec]]:
    """What models beside the stage's own do for it, in words, and which they are."""
    if isinstance(stage, InterrogateStage):
        yield "judges answers", stage.judge
        if stage.documents:
            yield "writes questions", stage.writer
    if isinstance(stage, RankStage) and stage.judge is not None:
        yield "ranks answers", stage.judge
    if isinstance(stage, RlhfStage) and stage.guard != "off" and stage.guard.judge is not None:
        yield "judges answers", stage.guard.judge
    if isinstance(stage, EvaluateStage):
        for spec in stage.evals:
            if isinstance(spec, (HonestySpec, PreferenceSpec)) and spec.judge is not None:
                yield "judges answers", spec.judge
