"""Peak memory of one worker of a stage that asks a model, without reading what it asks. An estimate, as in `memory`.

B: answers that are written at a time (`batch_size`), T: tokens of a prompt and its answer; P, H, I, V, N, K as there.

- weights: P in the model's dtype; every process holds them whole.
- KV cache: 2 * B * T * N * K in that dtype: every answer has its own, also of the prompt that it shares.
- activations: one block, of the prompts that go through the model together.
- logits: of one token, with their log-softmax and the shares that sampling draws from, in float32: 12 * B * V. Tasks
  of lm-eval that take likelihoods need those of whole documents, which are not known here.

T is a guess from the settings: `PROMPT` and the like. vLLM takes what is left of the GPU for its cache, needed or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from llmkit.plan.command import AccelerateConfig
from llmkit.plan.files import resolve_model
from llmkit.plan.memory import BYTES, PROBLEM, Memory
from llmkit.plan.shape import Shape, read_config, shape_of
from llmkit.recipe.identity import IdentityEval
from llmkit.recipe.knowledge import EngineSpec, HonestySpec
from llmkit.recipe.parts import ModelSpec
from llmkit.recipe.practice import ProblemsSpec
from llmkit.recipe.preference import PreferenceSpec, RankJudgeSpec
from llmkit.recipe.schema import EvaluateStage
from llmkit.recipe.stages import BestOfNStage
from llmkit.recipe.stages_knowledge import InterrogateStage
from llmkit.recipe.stages_preference import RlhfStage, RolloutStage
from llmkit.recipe.tools import ToolsSpec
from llmkit.recipe.trainer_keys import trainer_options
from llmkit.recipe.trials import JailbreakSpec, ReversalSpec

PROMPT, EXAMPLE = 64, 48
"""Tokens of a question with what a chat template puts around it, and of an answered question in front of it."""
JUDGING, WRITING = 700, 500
"""Tokens of the shipped prompts of judges and writers with a question and its answers, without a snippet."""
TASK_ANSWER = 256
"""lm-eval's default of new tokens."""
CHARACTERS = 4
"""A token, in English."""
RESULT = 500
"""Tokens of what a call of a tool gives: the default limit of characters."""
SNIPPETS, JUDGED = 64, 256
"""How many snippets a writer, or pairs a guard's judge, and how many answers a judge in an evaluation, gets at a
time."""


@dataclass(frozen=True)
class Pass:
    """What a model does: so many answers at a time, so many tokens each."""

    rows: int
    prompt: int
    new: int
    per_prompt: int = 1
    """Answers to one prompt."""


def estimate(
    stage: InterrogateStage | EvaluateStage | BestOfNStage | RolloutStage,
    model: ModelSpec,
    shape: Shape,
    config: AccelerateConfig,
) -> Memory:
    """Of the stage's own model at its most demanding, with a judge beside it where one stays; others take its place."""
    each = BYTES[model.dtype]
    terms = {"weights": shape.num_parameters * each} | _largest([_terms(shape, each, one) for one in _passes(stage)])
    needs = {f"{role} {spec.name_or_path}": _of_engine(spec, one, config) for role, spec, one in _others(stage)}
    if isinstance(stage, EvaluateStage):
        largest = _largest([need for need in needs.values() if need is not None])
        terms |= {f"judge's {name}": number for name, number in largest.items()}
        needs = {name: need for name, need in needs.items() if need is None}
    where = "beside it" if isinstance(stage, EvaluateStage) else "in its place"
    others = {f"{name} {where}": None if need is None else sum(need.values()) for name, need in needs.items()}
    return Memory(terms, shape.num_parameters, 0, others)


def _largest(needs: list[dict[str, int]]) -> dict[str, int]:
    return max(needs, key=lambda need: sum(need.values()), default={})


def _terms(shape: Shape, each: int, one: Pass) -> dict[str, int]:
    """Bytes besides the weights. Args: each: bytes of a number."""
    prompts = ceil(one.rows / one.per_prompt)
    return {
        "KV cache": 2 * one.rows * (one.prompt + one.new) * shape.num_layers * shape.key_size * each,
        "activations": prompts * one.prompt * (2 * shape.hidden_size + 3 * shape.intermediate_size) * each,
        "logits": 12 * one.rows * shape.vocab_size,
    }


def _passes(stage: InterrogateStage | EvaluateStage | BestOfNStage | RolloutStage) -> Iterator[Pass]:
    """What the stage's own model does."""
    if isinstance(stage, (BestOfNStage, RolloutStage)):
        yield _sampling(stage)
        return
    if isinstance(stage, InterrogateStage):
        yield _asking(stage)
        if stage.documents and stage.writer.by == "self":
            yield _writing(stage)
        if stage.judge.by == "self":
            yield _judging(stage)
        return
    if stage.prompts:
        yield Pass(stage.batch_size, PROMPT, stage.max_new_tokens)
    for spec in stage.evals:
        if isinstance(spec, HonestySpec):
            system = len(spec.prompt_only or "") // CHARACTERS
            yield Pass(stage.batch_size, PROMPT + system, spec.max_new_tokens)
        elif isinstance(spec, ProblemsSpec):
            yield Pass(stage.batch_size, PROBLEM, spec.max_new_tokens, spec.num_samples + 1)
        elif isinstance(spec, (IdentityEval, ReversalSpec)):
            yield Pass(stage.batch_size, PROMPT, spec.max_new_tokens)
        elif isinstance(spec, JailbreakSpec):  # letters apart are several times as many tokens
            yield Pass(stage.batch_size, PROBLEM, spec.max_new_tokens)
        elif isinstance(spec, PreferenceSpec):
            yield Pass(stage.batch_size, PROBLEM, spec.max_new_tokens, spec.num_samples)
            if spec.self_pairs:
                yield Pass(stage.batch_size, JUDGING + 2 * spec.max_new_tokens, RankJudgeSpec().max_new_tokens)
        elif isinstance(spec, ToolsSpec):
            yield _talking(stage.batch_size, spec)
        else:
            yield Pass(stage.batch_size, PROMPT + (spec.num_fewshot or 0) * EXAMPLE, TASK_ANSWER)


def _others(
    stage: InterrogateStage | EvaluateStage | BestOfNStage | RolloutStage,
) -> Iterator[tuple[str, EngineSpec, Pass]]:
    """Judges and writers that are local models of their own."""
    if isinstance(stage, (BestOfNStage, RolloutStage)):
        return
    if isinstance(stage, InterrogateStage):
        if stage.documents and stage.writer.by == "model":
            yield "writer", stage.writer, _writing(stage)
        if stage.judge.by == "model":
            yield "judge", stage.judge, _judging(stage)
        return
    for spec in stage.evals:
        if isinstance(spec, HonestySpec) and spec.judge.by == "model":
            yield "judge", spec.judge, Pass(JUDGED, JUDGING + spec.max_new_tokens, spec.judge.max_new_tokens)
        if isinstance(spec, PreferenceSpec) and spec.judge is not None and spec.judge.by == "model":
            yield "judge", spec.judge, Pass(JUDGED, JUDGING + 2 * spec.max_new_tokens, spec.judge.max_new_tokens)


def _sampling(stage: BestOfNStage | RolloutStage) -> Pass:
    if stage.tools:
        return _talking(stage.batch_size, stage)
    num = stage.num_samples if isinstance(stage, BestOfNStage) else stage.num_completions
    return Pass(stage.batch_size, PROBLEM, stage.max_new_tokens, min(num, stage.batch_size))


def _talking(batch_size: int, spec: ToolsSpec | BestOfNStage | RolloutStage) -> Pass:
    """With tools: what a call finds stands in the prompt of the next turn, and every conversation has its own."""
    return Pass(batch_size, PROBLEM + spec.max_calls * (RESULT + spec.max_new_tokens), spec.max_new_tokens)


def _asking(stage: InterrogateStage) -> Pass:
    ask = stage.ask
    around = (len(ask.system or "") + max(map(len, ask.phrasings)) - len("{question}")) // CHARACTERS
    per_prompt = max(1, ask.answers_per_question // ask.prompts_per_question)
    return Pass(stage.batch_size, PROMPT + around + ask.num_fewshot * EXAMPLE, ask.max_new_tokens, per_prompt)


def _writing(stage: InterrogateStage) -> Pass:
    snippet = stage.snippet_chars // CHARACTERS
    return Pass(min(stage.batch_size, SNIPPETS), WRITING + snippet, stage.writer.max_new_tokens)


def _judging(stage: InterrogateStage) -> Pass:
    snippet = stage.snippet_chars // CHARACTERS if stage.documents else 0
    return Pass(stage.batch_size, JUDGING + snippet + stage.ask.max_new_tokens, stage.judge.max_new_tokens)


def with_judge(memory: Memory, stage: RlhfStage, config: AccelerateConfig) -> Memory:
    """The same with the model beside it that a guard asks."""
    spec = stage.guard.judge if stage.guard != "off" else None
    if spec is None or spec.by != "model":
        return memory
    answer = int(trainer_options(stage.trainer_kind, stage.trainer)["max_completion_length"])
    need = _of_engine(spec, Pass(SNIPPETS, JUDGING + 2 * answer, spec.max_new_tokens), config)
    if need is None:
        return replace(memory, others={**memory.others, f"judge {spec.name_or_path} beside it": None})
    return replace(memory, terms={**memory.terms, **{f"judge's {name}": number for name, number in need.items()}})


def _of_engine(spec: EngineSpec, one: Pass, config: AccelerateConfig) -> dict[str, int] | None:
    """None: its config.json is not on this machine, or of an unknown architecture."""
    found = read_config(resolve_model(str(spec.name_or_path)), spec.revision)
    shape = shape_of(found) if found else None
    if shape is None:
        return None
    each = BYTES["float32" if config.use_cpu else "bfloat16"]
    return {"weights": shape.num_parameters * each, **_terms(shape, each, one)}
