"""A checked recipe to a plan: what each stage will read, write and run. Pure: nothing is loaded or written.

    make(load(["recipe.yaml"])) -> Plan(run_dir, steps)

Steps are the recipe's stages in order, with an automatic `evaluate` step for the base model and after every
training stage when the recipe has `evals` or `prompts`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmkit.artifacts.rundir import RunDir
from llmkit.artifacts.stagefile import Batch
from llmkit.errors import RecipeError
from llmkit.plan.batch import derive
from llmkit.plan.command import AccelerateConfig, accelerate_config, build, machines
from llmkit.plan.decide import decide
from llmkit.plan.files import problems_of_data, resolve_model
from llmkit.plan.fingerprint import Upstream, fingerprint_of, inputs_of
from llmkit.plan.memory import Memory, estimate, num_trained
from llmkit.plan.rows import count
from llmkit.plan.shape import Shape, read_config, shape_of
from llmkit.plan.step import Plan, Step
from llmkit.recipe.checks import BASE
from llmkit.recipe.load import Loaded, problem_at
from llmkit.recipe.schema import EvaluateStage, LaunchSpec, PretrainStage, Recipe, StageBase, TrainStage
from llmkit.recipe.source import Loc
from llmkit.recipe.trainer_keys import resolved_trainer

Found = tuple[Loc, str, str]


def make(loaded: Loaded, world_size: int | None = None) -> Plan:
    """Plan a recipe. Raises RecipeError with all problems.

    `world_size`: number of processes that were already started by hand.
    """
    recipe = loaded.recipe
    run = RunDir(Path(recipe.run.output_dir).expanduser().absolute() / recipe.run.name)
    stages = [_with_world_size(stage, world_size) for stage in chain(recipe)]
    found = [item for stage in stages for item in _problems(recipe, stage)]
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


def chain(recipe: Recipe) -> list[Any]:
    """The recipe's stages, resolved, with the automatic evaluations between them."""
    stages: list[Any] = []
    measured = bool(recipe.evals or recipe.prompts)
    uses_base = any(s.from_ == BASE and not _from_scratch(s) for s in recipe.stages)
    if measured and uses_base:
        stages.append(_automatic(recipe, BASE, recipe.stages[0].launch))
    for stage in recipe.stages:
        stages.append(_resolved(recipe, stage))
        if measured and isinstance(stage, TrainStage):
            stages.append(_automatic(recipe, stage.name, stage.launch))
    return stages


def _from_scratch(stage: StageBase) -> bool:
    return isinstance(stage, PretrainStage) and stage.init == "scratch"


def _automatic(recipe: Recipe, of: str, launch: LaunchSpec) -> Any:
    """One process on the same kind of device as the stage it measures."""
    single = LaunchSpec(accelerate="cpu/single" if launch.accelerate.startswith("cpu/") else "single", env=launch.env)
    stage = EvaluateStage.model_validate({"kind": "evaluate", "name": f"eval-{of}", "from": of})
    return _resolved(recipe, stage.model_copy(update={"launch": single}))


def _resolved(recipe: Recipe, stage: Any) -> Any:
    kind = stage.kind
    changes: dict[str, Any] = {"seed": recipe.run.seed if stage.seed is None else stage.seed}
    if isinstance(stage, TrainStage):
        changes["trainer"] = resolved_trainer(kind, stage.trainer)
    if isinstance(stage, EvaluateStage):
        changes |= {"evals": stage.evals or recipe.evals, "prompts": stage.prompts or recipe.prompts}
    return stage.model_copy(update=changes)


def _with_world_size(stage: Any, world_size: int | None) -> Any:
    if world_size is None:
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
    if stage.name == f"eval-{BASE}" or stage.name in {f"eval-{s.name}" for s in recipe.stages}:
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
        here += problems_of_data(stage)
    if isinstance(stage, EvaluateStage) and not (stage.evals or stage.prompts):
        here.append(((), "has nothing to measure", "give 'evals' or 'prompts', here or for the whole recipe"))
    return [(("stages", index, *loc), what, cure) for loc, what, cure in here]


def _step(recipe: Recipe, run: RunDir, index: int, stage: Any, automatic: bool, before: dict[str, Step]) -> Step:
    stage_dir = run.stage(index, stage.name)
    scratch = _from_scratch(stage)
    parent = None if scratch else _model_step(stage.from_, before)
    config = accelerate_config(stage.launch)
    assert isinstance(config, AccelerateConfig)  # _problems has refused the rest
    batch = derive(stage, stage.launch.num_processes) if isinstance(stage, TrainStage) else None
    data_steps = {name: before[name] for name in _data_stages(stage)}
    model = resolve_model(recipe.model.name_or_path) if recipe.model.name_or_path and not scratch else None
    compare = _compared(stage, before) if isinstance(stage, EvaluateStage) else None
    upstream = Upstream(
        parent=parent.fingerprint if parent else None,
        data={name: step.fingerprint for name, step in data_steps.items()},
        compare_with=compare.fingerprint if compare else None,
    )
    shape = _shape(stage, parent, model, recipe)
    inputs = inputs_of(stage, recipe.model, model if parent is None else None, upstream)
    input_model = None if scratch else (_model_dir(parent) if parent else model)
    return Step(
        index=index,
        name=stage.name,
        kind=stage.kind,
        automatic=automatic,
        run=recipe.run,
        model=recipe.model,
        stage=stage,
        stage_dir=stage_dir,
        parent=parent.name if parent else None,
        parent_dir=str(parent.stage_dir.path) if parent else None,
        input_model=input_model,
        data_stages={name: str(step.stage_dir.path) for name, step in data_steps.items()},
        compare_with=str(compare.stage_dir.path) if compare else None,
        batch=batch if isinstance(batch, Batch) else None,
        rows=count(stage) if isinstance(stage, TrainStage) else None,
        tokens=None,
        shape=shape,
        memory=_memory(recipe, stage, shape, config, batch),
        command=build(stage.kind, stage.launch, config, stage_dir.stage_file),
        inputs=inputs,
        fingerprint=fingerprint_of(inputs),
    )


def _data_stages(stage: Any) -> list[str]:
    """Stages whose `data/` a stage reads."""
    if not isinstance(stage, TrainStage):
        return []
    sources = [source for part in (stage.data, *stage.heldout.values()) for source in part]
    return list(dict.fromkeys(source.from_ for source in sources if source.from_ is not None))


def _model_step(name: str, before: dict[str, Step]) -> Step | None:
    """The step whose model `name` stands for: evaluations pass the model they measured on. None: the recipe's model."""
    while name != BASE and isinstance(before[name].stage, EvaluateStage):
        name = before[name].stage.from_
    return None if name == BASE else before[name]


def _shape(stage: Any, parent: Step | None, model: str | None, recipe: Recipe) -> Shape | None:
    """Shape of the model that a stage works on; None where its config is not on this machine or not known."""
    if isinstance(stage, PretrainStage) and stage.architecture is not None and stage.tokenizer is not None:
        return shape_of({**stage.architecture, "vocab_size": stage.tokenizer.vocab_size})
    if parent is not None:
        return parent.shape
    config = read_config(model, recipe.model.revision) if model else None
    return shape_of(config) if config else None


def _memory(recipe: Recipe, stage: Any, shape: Shape | None, config: AccelerateConfig, batch: Any) -> Memory | None:
    if shape is None or not isinstance(stage, TrainStage):
        return None
    trained = num_trained(stage, shape)
    return None if trained is None else estimate(stage, recipe.model, shape, config, batch, trained)


def _model_dir(step: Step) -> str:
    peft = step.stage.peft if isinstance(step.stage, TrainStage) else None
    return str(step.stage_dir.adapter if peft and not peft.merge else step.stage_dir.model)


def _compared(stage: EvaluateStage, before: dict[str, Step]) -> Step | None:
    """The evaluation of the model that the measured stage started from."""
    measured = _model_step(stage.from_, before)
    if measured is None or _from_scratch(measured.stage):
        return None
    origin = measured.parent or BASE
    return before.get(f"eval-{origin}")
