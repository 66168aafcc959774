"""Settings that nothing reads, given what stands beside them: each is refused, with what would read it.

Only what a recipe itself names counts. So this is no validator: a worker's stage file names all settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llmkit.recipe.curves import unwatchable
from llmkit.recipe.knowledge import AskSpec, HonestySpec, JudgeSpec, WriterSpec
from llmkit.recipe.practice import ProblemsSpec
from llmkit.recipe.preference import LabellerSpec, PreferenceSpec, RankJudgeSpec
from llmkit.recipe.schema import Evals, EvaluateStage, Recipe
from llmkit.recipe.source import Loc
from llmkit.recipe.splits import splits_itself
from llmkit.recipe.stages import BestOfNStage, GrpoStage, PracticeStage, SampledStage, StageBase
from llmkit.recipe.stages_knowledge import InterrogateStage, RefusalsStage
from llmkit.recipe.stages_preference import RankStage, RlhfStage
from llmkit.recipe.tools import ToolsSpec
from llmkit.recipe.trials import ReversalSpec

Found = tuple[Loc, str, str]

_PROMPTED = ("prompt", "max_new_tokens", "num_questions", "max_failed", "max_undecided")
_ENDPOINT = ("name_or_path", "base_url", "api_key_env", "timeout", "max_retries", "concurrency")
_READ: dict[str, tuple[str, ...]] = {
    "rules": (),
    "templates": ("templates",),
    "self": _PROMPTED,
    "model": ("name_or_path", "revision", "engine", *_PROMPTED),
    "openai": (*_ENDPOINT, *_PROMPTED),
}
"""Who judges or writes -> the settings that it reads, besides those that all read."""
_SETTINGS = {name for names in _READ.values() for name in names}


def unread(recipe: Recipe) -> Iterator[Found]:
    """All of them, as (location, what, cure)."""
    yield from ((("evals", *loc), what, cure) for loc, what, cure in _of_evals(recipe.evals))
    by_name = {stage.name: stage for stage in recipe.stages}
    for index, stage in enumerate(recipe.stages):
        found: Iterator[Found] = iter(())
        if isinstance(stage, InterrogateStage):
            found = _of_interrogation(stage, by_name)
        elif isinstance(stage, RefusalsStage):
            found = _of_refusals(stage, by_name)
        elif isinstance(stage, PracticeStage):
            found = _of_practice(stage)
        elif isinstance(stage, SampledStage):
            found = _of_sampling(stage)
        elif isinstance(stage, RankStage) and stage.judge is not None:
            found = _of_engine("judge", stage.judge)
        elif isinstance(stage, EvaluateStage):
            found = ((("evals", *loc), what, cure) for loc, what, cure in _of_evals(stage.evals))
        yield from ((("stages", index, *loc), what, cure) for loc, what, cure in found)


def unread_by_engine(spec: WriterSpec | JudgeSpec | RankJudgeSpec) -> Iterator[tuple[str, str]]:
    """(setting, cure) of a writer or judge."""
    # a stage that ranks has no engine of its own: its judge says what runs its model
    also = {"engine"} if isinstance(spec, RankJudgeSpec) and spec.by == "self" else set()
    for name in sorted(spec.model_fields_set & _SETTINGS - set(_READ[spec.by]) - also):
        readers = [f"'by: {by}'" for by in ("templates", "model", "openai") if name in _READ[by]]
        yield name, f"leave it out, or set {' or '.join(readers)}"


def _of_engine(key: str, spec: WriterSpec | JudgeSpec | RankJudgeSpec) -> Iterator[Found]:
    for name, cure in unread_by_engine(spec):
        yield (key, name), f"has no effect with 'by: {spec.by}'", cure


def _of_evals(evals: Evals) -> Iterator[Found]:
    for place, spec in enumerate(evals):
        if isinstance(spec, (HonestySpec, ToolsSpec, ReversalSpec)):
            yield from (((place, *loc), what, cure) for loc, what, cure in _of_engine("judge", spec.judge))
        if isinstance(spec, PreferenceSpec) and spec.judge is not None:
            yield from (((place, *loc), what, cure) for loc, what, cure in _of_engine("judge", spec.judge))
        if isinstance(spec, ProblemsSpec):
            yield from (((place, *loc), what, cure) for loc, what, cure in _of_samples(spec))
        if isinstance(spec, PreferenceSpec):
            yield from _of_labeller((place, "labeller"), spec.labeller)


def _of_labeller(loc: Loc, spec: LabellerSpec | None) -> Iterator[Found]:
    """Of one that scores answers and puts none in order."""
    for name in sorted({"noise", "num_raters"} & spec.model_fields_set) if spec else ():
        yield (*loc, name), "has no effect here: only a 'rank' stage has raters who err", "leave it out"


def _of_interrogation(stage: InterrogateStage, by_name: Mapping[str, StageBase]) -> Iterator[Found]:
    yield from _of_engine("judge", stage.judge)
    if stage.documents:
        yield from _of_engine("writer", stage.writer)
    else:
        for name in sorted({"writer", "num_snippets", "snippet_chars"} & stage.model_fields_set):
            yield (name,), "has no effect without 'documents'", "leave it out"
    if "heldout" in stage.model_fields_set and not splits_itself(stage, by_name):
        yield ("heldout",), "has no effect: questions of an earlier probe stay on their side", "leave it out"
    yield from ((("ask", *loc), what, cure) for loc, what, cure in _of_samples(stage.ask))


def _of_samples(spec: AskSpec | ProblemsSpec) -> Iterator[Found]:
    if not spec.num_samples:
        for name in sorted({"temperature", "top_p"} & spec.model_fields_set):
            yield (name,), "has no effect with 'num_samples: 0': greedy answers are not sampled", "leave it out"


def _of_practice(stage: PracticeStage) -> Iterator[Found]:
    if "measure" in stage.model_fields_set and not stage.heldout:
        yield ("measure",), "has no effect without 'heldout': there is nothing to measure on", "leave it out"
    if isinstance(stage, GrpoStage):
        yield from _of_calls(stage)
        for name in ("use_vllm", "use_transformers_continuous_batching"):
            if stage.tools and stage.trainer.get(name):
                yield ("tools",), f"has no effect with 'trainer.{name}': calls are made by llmkit's own decoding", ""
    if isinstance(stage, RlhfStage):
        yield from _of_labeller(("measured_by",), stage.measured_by)
        if stage.guard != "off":
            yield from _of_labeller(("guard", "labeller"), stage.guard.labeller)
            found = _of_engine("judge", stage.guard.judge) if stage.guard.judge else ()
            yield from ((("guard", *loc), what, cure) for loc, what, cure in found)
    yield from unwatchable(stage)


def _of_calls(stage: GrpoStage | SampledStage) -> Iterator[Found]:
    if not stage.tools and "max_calls" in stage.model_fields_set:
        yield ("max_calls",), "has no effect without 'tools'", "leave it out"


def _of_sampling(stage: SampledStage) -> Iterator[Found]:
    yield from _of_calls(stage)
    if isinstance(stage, BestOfNStage) and stage.num_kept > stage.num_samples:
        what = f"is {stage.num_kept}, but there are {stage.num_samples} answers to a problem"
        yield ("num_kept",), what, "raise 'num_samples', or keep fewer"


def _of_refusals(stage: RefusalsStage, by_name: Mapping[str, StageBase]) -> Iterator[Found]:
    lookup = stage.lookup
    if lookup is not None and "injected" in lookup.model_fields_set and not lookup.injections:
        yield ("lookup", "injected"), "has no effect without 'injections'", "leave it out"
    spec = stage.refusals
    probes = [probe for name in stage.probes if isinstance(probe := by_name.get(name), InterrogateStage)]
    if "maybe_known" in stage.model_fields_set and probes and not any(map(_can_be_maybe_known, probes)):
        what = f"has no effect: no question of {_quoted(probes)} can be MaybeKnown, with so few greedy answers to each"
        yield ("maybe_known",), what, "set more 'ask.phrasings' or 'ask.num_variants' there, or leave it out"
    if "weakly_known" in stage.model_fields_set and probes and not any(probe.ask.num_samples for probe in probes):
        what = f"has no effect: no question of {_quoted(probes)} can be WeaklyKnown, without sampled answers"
        yield ("weakly_known",), what, "set 'ask.num_samples' there, or leave it out"
    if spec.texts and isinstance(spec.texts, list) and "tone" in spec.model_fields_set:
        yield ("refusals", "tone"), "has no effect with 'texts' of your own", "leave it out"
    if stage.lookup is not None and "search_tool" in stage.model_fields_set:
        yield ("search_tool",), "has no effect with 'lookup'", "set 'tool_name' of its search"


def _can_be_maybe_known(probe: InterrogateStage) -> bool:
    """SliCK's MaybeKnown: some greedy answers right, and fewer than HighlyKnown takes."""
    num_greedy = probe.ask.prompts_per_question
    return num_greedy > 1 and 1 / num_greedy < probe.thresholds.highly_known


def _quoted(probes: Sequence[InterrogateStage]) -> str:
    return " and ".join(f"'{probe.name}'" for probe in probes)
