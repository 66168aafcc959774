"""The rows that a stage leaves for others, by name, and which of them a stage can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from llmkit.recipe import reads
from llmkit.recipe.identity import IdentityStage
from llmkit.recipe.knowledge import QuestionSource
from llmkit.recipe.parts import DataSource
from llmkit.recipe.schema import Evals, EvaluateStage, Recipe
from llmkit.recipe.source import Loc
from llmkit.recipe.stages import (
    BestOfNStage,
    DpoStage,
    GrpoStage,
    PracticeStage,
    PretrainStage,
    RlooStage,
    SftStage,
    StageBase,
    TrainSource,
    TrainStage,
)
from llmkit.recipe.stages_knowledge import InterrogateStage, RefusalsStage
from llmkit.recipe.stages_preference import RankStage, RewardStage, RlhfStage, RolloutStage

Found = tuple[Loc, str, str]

HELDOUT = "heldout"
PROBED = {"probe": "questions", HELDOUT: "questions"}
ASKED = "questions"
REFUSALS = {
    "train": "conversations",
    "tool_calls": "conversations",
    "pairs": "pairs",
    "pairs_all": "pairs",
    ASKED: "questions",
}
RANKED = {"train": "rankings", "rankings": "decisions", "pairs": "pairs"}
COMPLETED = {"rollouts": "rollouts"}
SELF = {"train": "conversations"}
SOLVED = {"train": "conversations", "attempts": "rollouts"}
ROLLOUTS = {"rollouts": "rollouts"}
WATCHED = {"watched": "questions"}
GATED = {"pretrain": "documents"}
"""Name of rows -> what they are. The first is what `from` alone means."""
_ASIDE = {HELDOUT, *WATCHED}
_READERS: dict[type[StageBase], tuple[str, tuple[str, ...]]] = {
    PretrainStage: ("a 'pretrain' stage", ("documents",)),
    SftStage: ("an 'sft' stage", ("conversations", "documents")),
    DpoStage: ("a 'dpo' stage", ("pairs",)),
    GrpoStage: ("a 'grpo' stage", ("questions", "conversations")),
    RlooStage: ("an 'rloo' stage", ("questions", "conversations")),
    BestOfNStage: ("a 'best_of_n' stage", ("questions", "conversations")),
    RolloutStage: ("a 'rollout' stage", ("questions", "conversations")),
    RlhfStage: ("an 'rlhf' stage", ("questions", "conversations")),
    RewardStage: ("a 'reward' stage", ("rankings", "pairs")),
}


def left_by(stage: StageBase) -> dict[str, str]:
    """Name -> what the rows are; empty for a stage that leaves none."""
    if isinstance(stage, InterrogateStage):
        return PROBED
    if isinstance(stage, RefusalsStage):
        return REFUSALS | WATCHED if stage.watched else REFUSALS
    if isinstance(stage, IdentityStage):
        return SELF
    if isinstance(stage, BestOfNStage):
        return SOLVED
    if isinstance(stage, RolloutStage):
        return COMPLETED
    if isinstance(stage, RankStage):
        return RANKED
    if isinstance(stage, PracticeStage):
        return ROLLOUTS
    sources = stage.data if isinstance(stage, TrainStage) else []
    gates = [source.require_known for source in sources if isinstance(source, TrainSource)]
    return GATED if any(gate is not None and gate.unknown == "pretrain" for gate in gates) else {}


def unfit_rows(recipe: Recipe) -> Iterator[Found]:
    """Sources that name rows which are not there, or which their reader cannot use."""
    by_name: dict[str, StageBase] = {stage.name: stage for stage in recipe.stages}
    yield from _evaluated(recipe.evals, by_name)
    for index, stage in enumerate(recipe.stages):
        found = _evaluated(stage.evals, by_name) if isinstance(stage, EvaluateStage) else _read(stage, by_name)
        yield from ((("stages", index, *loc), what, cure) for loc, what, cure in found)


def _read(stage: StageBase, by_name: Mapping[str, StageBase]) -> Iterator[Found]:
    """Of a stage that trains or interrogates."""
    for loc, source in reads.sources(stage):
        made = by_name.get(source.from_ or "")
        reader, takes = _READERS.get(type(stage), ("an 'interrogate' stage", (str(loc[0]),)))
        if made is None:
            continue
        found = list(_unfit(loc, source, made, left_by(made), reader, takes))
        yield from found
        if not found and loc[0] == "data" and source.name in _ASIDE:
            what = f"'{source.name}' of '{made.name}' is kept from training, for evaluation"
            yield (*loc, "name"), what, "leave it out, or name it in 'heldout'"


def _evaluated(evals: Evals, by_name: Mapping[str, StageBase]) -> Iterator[Found]:
    """Of evaluations of honesty and tools: they ask what no training row does, of a probe what it holds out."""
    for loc, source in reads.eval_sources(evals):
        made = by_name.get(source.from_ or "")
        if made is None:
            continue
        have = left_by(made)
        if isinstance(made, RefusalsStage) and source.name == ASKED:
            what = f"an honesty evaluation asks what no training row does, and the rows of '{made.name}' ask these"
            yield (*loc, "name"), what, f"set 'watched: 0.05' in '{made.name}', and 'name: watched' here"
            continue
        untrained = {name: shape for name, shape in have.items() if name != ASKED}
        found = list(_unfit(loc, source, made, untrained, "an honesty evaluation", ("questions",)))
        yield from found
        if not found and isinstance(made, InterrogateStage) and source.name not in (None, HELDOUT):
            what = f"an honesty evaluation asks what no training row does, and of '{made.name}' that is its '{HELDOUT}'"
            yield (*loc, "name"), what, f"set 'name: {HELDOUT}', or leave it out"


def _unfit(
    loc: Loc, source: DataSource, made: StageBase, have: Mapping[str, str], reader: str, takes: tuple[str, ...]
) -> Iterator[Found]:
    if not have:
        cure = (
            "name an 'interrogate', 'refusals', 'best_of_n' or 'rank' stage, or one whose 'require_known' has "
            "'unknown: pretrain'"
        )
        yield (*loc, "from"), f"'{made.name}' leaves no rows", cure
    elif source.name is not None and source.name not in have:
        near = get_close_matches(source.name, have, n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"have: {', '.join(have)}"
        yield (*loc, "name"), f"'{made.name}' leaves no rows called '{source.name}'", cure
    elif (shape := have[source.name or next(iter(have))]) not in takes and not _of_any_shape(source):
        key = "name" if source.name else "from"
        yield (*loc, key), f"{reader} reads {takes[0]}, not {shape}", _other(made, have, takes)


def _of_any_shape(source: DataSource) -> bool:
    """Templates make questions of any rows."""
    return isinstance(source, QuestionSource) and bool(source.templates)


def _other(made: StageBase, have: Mapping[str, str], takes: tuple[str, ...]) -> str:
    """What to read instead."""
    fits = [name for name, shape in have.items() if shape in takes]
    if fits:
        return "leave it out" if fits[0] == next(iter(have)) else f"set 'name: {fits[0]}'"
    if isinstance(made, InterrogateStage) and {"conversations", "pairs"} & set(takes):
        return f"put a 'refusals' stage with 'probes: [{made.name}]' between, and read its rows"
    return f"'{made.name}' leaves {', '.join(f'{name} ({shape})' for name, shape in have.items())}"
