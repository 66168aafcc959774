"""A checked recipe to a plan: what each stage will read, write and run. Pure: nothing is loaded or written.

    make(load(["recipe.yaml"])) -> Plan(run_dir, steps)

Steps are the recipe's stages in order, with an automatic `evaluate` step for the base model and after every
training stage when the recipe has `evals` or `prompts`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmkit.artifacts.rundir import RANKINGS, RunDir
from llmkit.artifacts.stagefile import Batch
from llmkit.errors import RecipeError
from llmkit.plan import inference
from llmkit.plan.batch import derive
from llmkit.plan.benchmarks import problems_of_tasks
from llmkit.plan.chain import automatic_names, chain, from_scratch
from llmkit.plan.command import AccelerateConfig, accelerate_config, build, machines
from llmkit.plan.decide import decide
from llmkit.plan.files import problems_of_sources, resolve_model
from llmkit.plan.fingerprint import Upstream, fingerprint_of, inputs_of
from llmkit.plan.fit import fit
from llmkit.plan.memory import Memory, estimate, num_trained, reading, with_scorers
from llmkit.plan.rows import count, questions
from llmkit.plan.shape import Shape, read_config, shape_of
from llmkit.plan.shipping import shipping
from llmkit.plan.step import Plan, Step
from llmkit.plan.tools import problems_of_tools
from llmkit.recipe import reads
from llmkit.recipe.checks import BASE
from llmkit.recipe.hub import PushStage
from llmkit.recipe.knowledge import HonestySpec
from llmkit.recipe.load import Loaded, problem_at
from llmkit.recipe.parts import ModelSpec
from llmkit.recipe.preference import PreferenceSpec
from llmkit.recipe.schema import EvaluateStage, Recipe
from llmkit.recipe.source import Loc
from llmkit.recipe.stages import BestOfNStage, GrpoStage, PracticeStage, PretrainStage, TrainStage, TunedStage
from llmkit.recipe.stages_knowledge import InterrogateStage
from llmkit.recipe.stages_preference import RankStage, RewardStage, RlhfStage, RolloutStage
from llmkit.recipe.trainer_keys import trainer_options

Found = tuple[Loc, str, str]
_COMPARED = (HonestySpec, PreferenceSpec)
"""Evaluations that read another model's answers."""


def make(loaded: Loaded, world_size: int | None = None) -> Plan:
    """Plan a recipe. Raises RecipeError with all problems.

    `world_size`: number of processes that were already started by hand.
    """
    recipe = loaded.recipe
    run = RunDir(Path(recipe.run.output_dir).expanduser().absolute() / recipe.run.name)
    stages = [_with_world_size(stage, world_size) for stage in chain(recipe)]
    found = [item for stage in stages for item in _problems(recipe, stage)] + list(shipping(recipe))
    found += problems_of_sources(reads.eval_sources(recipe.evals))
    found += _unknown_jobs(recipe, [stage.name for stage in stages])
    found += [*problems_of_tasks(recipe), *problems_of_tools(recipe)]
    if found:
        raise RecipeError([problem_at(loaded.source, loc, what, cure) for loc, what, cure in found])
    folders = run.stages()
    existing = {stage_dir.name: stage_dir for stage_dir in folders}
    steps: dict[str, Step] = {}
    for index, stage in enumerate(stages, start=1):
        automatic = stage.name not in {s.name for s in recipe.stages}
        step = _step(recipe, run, index, stage, automatic, steps)
        steps[stage.name] = decide(step, existing.get(stage.name), steps)
    kept = {step.found for step in steps.values()}
    return Plan(run, list(steps.values()), stale=[folder.path for folder in folders if folder.path not in kept])


def _unknown_jobs(recipe: Recipe, names: list[str]) -> list[Found]:
    cure = f"have: {', '.join(names)}"
    return [(("slurm", "stages", name), "no such step", cure) for name in recipe.slurm.stages if name not in names]


def _with_world_size(stage: Any, world_size: int | None) -> Any:
    if world_size is None or not stage.loads_model or isinstance(stage, RankStage):
        return stage
    changes: dict[str, Any] = {"num_processes": world_size}
    if isinstance(accelerate_config(stage.launch.model_copy(update=changes)), tuple):
        # the processes run already, so the recipe's own config was not used
        changes["accelerate"] = "single" if world_size == 1 else "ddp"
    return stage.model_copy(update={"launch": stage.launch.model_copy(update=changes)})


def _problems(recipe: Recipe, stage: Any) -> list[Found]:
    """All that is wrong with a stage, placed in the recipe."""
    index = next((i for i, s in enumerate(recipe.stages) if s.name == stage.name), None)
    if index is None:
        return []
    here: list[Found] = []
    if stage.name in automatic_names(recipe):
        here.append((("name",), f"'{stage.name}' is the name of an automatic evaluation", "choose another name"))
    config = accelerate_config(stage.launch)
    bad_machines = machines(stage.launch)
    if isinstance(config, tuple):
        here.append(config)
    if bad_machines:
        here.append(bad_machines)
    if isinstance(stage, TrainStage):
        batch = derive(stage, stage.launch.num_processes)
        here += [batch] if isinstance(batch, tuple) else []
    here += problems_of_sources(reads.sources(stage))
    if _shards_weights(config):
        what = "cannot ask a model whose weights are sharded"
        here += [(loc, what, "use zero2 or ddp, or leave it out") for loc in _asks_while_training(stage)]
    if isinstance(stage, PracticeStage) and stage.sampling.resample and _shares_vllm(stage):
        what = "replaces groups of single processes, which cannot ask a vLLM that they share one by one"
        cure = "set 'vllm_mode: colocate' without tensor parallelism, or leave it out"
        here.append((("sampling", "resample"), what, cure))
    if isinstance(stage, PracticeStage) and (screen := stage.sampling.screen) and screen >= _num_generations(stage):
        what = f"is {screen}, and a group has {_num_generations(stage)} answers: nothing is left to save"
        here.append((("sampling", "screen"), what, "give less, or leave it out"))
    if isinstance(stage, EvaluateStage) and not (stage.evals or stage.prompts):
        here.append(((), "has nothing to measure", "give 'evals' or 'prompts', here or for the whole recipe"))
    return [(("stages", index, *loc), what, cure) for loc, what, cure in here]


def _asks_while_training(stage: Any) -> list[Loc]:
    """Settings that need llmkit's own decoding in a training stage."""
    if isinstance(stage, TunedStage):
        return [("early_stopping",)] if stage.early_stopping else []
    if isinstance(stage, PracticeStage):
        own: list[Loc] = [("tools",)] if isinstance(stage, GrpoStage) and stage.tools else []
        return own + [("sampling", name) for name in ("resample", "filter") if getattr(stage.sampling, name)]
    return []


def _num_generations(stage: Any) -> int:
    return int(trainer_options(stage.trainer_kind, stage.trainer)["num_generations"])


def _shares_vllm(stage: Any) -> bool:
    """Whether several processes generate together, so that all must take part whenever one does."""
    options = trainer_options(stage.trainer_kind, stage.trainer)
    shared = options["vllm_mode"] == "server" or options["vllm_tensor_parallel_size"] > 1
    return stage.launch.num_processes > 1 and bool(options["use_vllm"]) and shared


def _shards_weights(config: AccelerateConfig | Found) -> bool:
    return isinstance(config, AccelerateConfig) and config.shards_weights


def _step(recipe: Recipe, run: RunDir, index: int, stage: Any, automatic: bool, before: dict[str, Step]) -> Step:
    stage_dir = run.stage(index, stage.name)
    scratch = from_scratch(stage)
    spec = _model_spec(stage, recipe)
    parent = None if scratch or spec is not recipe.model else _model_step(stage.from_, before)
    config = accelerate_config(stage.launch)
    assert isinstance(config, AccelerateConfig)  # _problems has refused the rest
    trains = isinstance(stage, TrainStage) and not _is_finished(stage)
    batch = derive(stage, stage.launch.num_processes) if trains else None
    data_steps = dict(before) if isinstance(stage, PushStage) else {name: before[name] for name in _data_stages(stage)}
    model = resolve_model(spec.name_or_path) if spec.name_or_path and not scratch else None
    compare, baselines = None, dict[str, Step]()
    if isinstance(stage, EvaluateStage):
        compare = _compared(stage, before)
        stage = _with_baselines(stage, parent)
        baselines = _baselines(stage, before)
    upstream = Upstream(
        parent=parent.fingerprint if parent else None,
        data={name: step.fingerprint for name, step in data_steps.items()},
        baselines={name: step.fingerprint for name, step in baselines.items()},
        compare_with=compare.fingerprint if compare else None,
        rankings=run.rankings(stage.name) / RANKINGS,
    )
    read = [step for step in (parent, *data_steps.values(), *baselines.values(), compare) if step is not None]
    shape = _shape(stage, parent, model, spec)
    inputs = inputs_of(stage, spec, model if parent is None else None, upstream)
    input_model = None if scratch else (_model_dir(parent) if parent else model)
    return Step(
        index=index,
        name=stage.name,
        kind=stage.kind,
        automatic=automatic,
        run=recipe.run,
        model=spec,
        stage=stage,
        stage_dir=stage_dir,
        parent=parent.name if parent else None,
        parent_dir=str(parent.stage_dir.path) if parent else None,
        input_model=input_model,
        data_stages={name: str(step.stage_dir.path) for name, step in data_steps.items()},
        baselines={name: str(step.stage_dir.path) for name, step in baselines.items()},
        compare_with=str(compare.stage_dir.path) if compare else None,
        needs=tuple(dict.fromkeys(step.name for step in read)),
        batch=batch if isinstance(batch, Batch) else None,
        rows=_rows(stage, before),
        tokens=None,
        shape=shape,
        memory=_memory(recipe, stage, shape, config, batch, data_steps),
        fit=fit(stage, lambda changed: _need(recipe, changed, shape, data_steps), not automatic),
        command=build(stage.kind, stage.launch, config, stage_dir.stage_file),
        inputs=inputs,
        fingerprint=fingerprint_of(inputs),
    )


def _is_finished(stage: Any) -> bool:
    """A reward model that is measured and not trained."""
    return isinstance(stage, RewardStage) and not stage.train


def _model_spec(stage: Any, recipe: Recipe) -> ModelSpec:
    """A reward model may begin with a model of its own."""
    return stage.model if isinstance(stage, RewardStage) and stage.model is not None else recipe.model


def _rows(stage: Any, before: dict[str, Step]) -> int | None:
    """Training rows, or questions."""
    if isinstance(stage, (TrainStage, BestOfNStage, RolloutStage)):
        return count(stage)
    if not isinstance(stage, (InterrogateStage, EvaluateStage)):
        return None
    probes = (step for step in before.values() if isinstance(step.stage, InterrogateStage))
    return questions(stage, {step.name: (step.rows, step.stage.heldout) for step in probes})


def _data_stages(stage: Any) -> list[str]:
    """Stages whose rows or probes a stage reads."""
    return list(dict.fromkeys(name for _, name in reads.stages(stage)))


def _model_step(name: str, before: dict[str, Step]) -> Step | None:
    """The step whose model `name` stands for: stages that make none pass theirs on. None: the recipe's model."""
    while name != BASE and not before[name].stage.makes_model:
        name = before[name].stage.from_
    return None if name == BASE else before[name]


def _shape(stage: Any, parent: Step | None, model: str | None, spec: ModelSpec) -> Shape | None:
    """Shape of the model that a stage works on; None where its config is not on this machine or not known."""
    if isinstance(stage, PretrainStage) and stage.architecture is not None and stage.tokenizer is not None:
        return shape_of({**stage.architecture, "vocab_size": stage.tokenizer.vocab_size})
    if parent is not None:
        return parent.shape
    config = read_config(model, spec.revision) if model else None
    return shape_of(config) if config else None


def _memory(
    recipe: Recipe, stage: Any, shape: Shape | None, config: AccelerateConfig, batch: Any, read: dict[str, Step]
) -> Memory | None:
    """Args: read: the steps whose rows or models it reads."""
    if shape is None or not stage.loads_model or isinstance(stage, RankStage):
        return None
    spec = _model_spec(stage, recipe)
    if isinstance(stage, (InterrogateStage, EvaluateStage, BestOfNStage, RolloutStage)):
        alone = inference.estimate(stage, spec, shape, config)
    elif _is_finished(stage):
        alone = reading(spec, shape)
    elif (trained := num_trained(stage, shape)) is not None:
        alone = estimate(stage, spec, shape, config, batch, trained)
        alone = inference.with_judge(alone, stage, config) if isinstance(stage, RlhfStage) else alone
    else:
        return None
    return with_scorers(alone, [(step.stage, step.shape) for step in read.values() if step.kind == "reward"])


def _need(recipe: Recipe, stage: Any, shape: Shape | None, read: dict[str, Step]) -> int | None:
    """Bytes that a stage takes; None where it would be refused, or that is not known."""
    config = accelerate_config(stage.launch)
    if not isinstance(config, AccelerateConfig) or _problems(recipe, stage):
        return None
    batch = derive(stage, stage.launch.num_processes) if isinstance(stage, TrainStage) else None
    memory = _memory(recipe, stage, shape, config, batch, read)
    return memory.total if memory else None


def _model_dir(step: Step) -> str:
    peft = step.stage.peft if isinstance(step.stage, TrainStage) else None
    return str(step.stage_dir.adapter if peft and not peft.merge else step.stage_dir.model)


def _compared(stage: EvaluateStage, before: dict[str, Step]) -> Step | None:
    """The evaluation of the model that the measured stage started from."""
    measured = _model_step(stage.from_, before)
    if measured is None or from_scratch(measured.stage):
        return None
    origin = measured.parent or BASE
    return before.get(f"eval-{origin}")


def _with_baselines(stage: EvaluateStage, parent: Step | None) -> EvaluateStage:
    """An evaluation without a `baseline` is compared with the model that the measured one started from."""
    origin = parent.parent or BASE if parent and not from_scratch(parent.stage) else None
    evals = [
        spec.model_copy(update={"baseline": spec.baseline or origin}) if isinstance(spec, _COMPARED) else spec
        for spec in stage.evals
    ]
    return stage.model_copy(update={"evals": evals})


def _baselines(stage: EvaluateStage, before: dict[str, Step]) -> dict[str, Step]:
    """Of every baseline's model the latest evaluation that has the same one."""
    found = {}
    for spec in stage.evals:
        if not isinstance(spec, _COMPARED) or spec.baseline is None:
            continue
        for step in before.values():
            names = {s.name for s in getattr(step.stage, "evals", []) if isinstance(s, type(spec))}
            if isinstance(step.stage, EvaluateStage) and spec.name in names and (step.parent or BASE) == spec.baseline:
                found[spec.baseline] = step
    return found
