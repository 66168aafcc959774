"""Reinforcement learning against a reward model, with a guard that notices when it only learns to please.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.rlhf recipe.yaml --stage rlhf

Prompts, decoding, groups and checkpoints are those of `grpo` and `rloo` (`llmkit.stages.practice`); what differs is who
scores the answers, and who watches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from transformers import PreTrainedModel
from trl import GRPOConfig, RLOOConfig

from llmkit.artifacts.manifest import Manifest
from llmkit.data.problems import Problem
from llmkit.data.rankings import place_of
from llmkit.errors import UserError
from llmkit.modeling.load import load_spec
from llmkit.modeling.reward_model import PROMPTS
from llmkit.preference.watch import best_of, fit
from llmkit.recipe import reads
from llmkit.recipe.stages_preference import RlhfStage
from llmkit.stages.common import Worker, main
from llmkit.stages.grpo import GrpoTrainer
from llmkit.stages.guard_callback import GuardCallback
from llmkit.stages.guarding import Guard
from llmkit.stages.heldout import is_sharded
from llmkit.stages.monitors import BorderCallback
from llmkit.stages.practising import (
    Prepared,
    build_trainer,
    drop_rollouts,
    filtered,
    finish,
    practice_args,
    prepare,
    stream_of,
)
from llmkit.stages.preferring import Judge, PreferenceScorer, judged_by, labelled_by, open_folder, open_rewards
from llmkit.stages.rloo import RlooTrainer
from llmkit.stages.scoring import Scorer
from llmkit.stages.training import train_between

ALGORITHMS: dict[str, tuple[type[Any], type[Any]]] = {
    "grpo": (GRPOConfig, GrpoTrainer),
    "rloo": (RLOOConfig, RlooTrainer),
}
WATCHED_EVERY, WATCHED_PROMPTS = 0.05, 128
"""Of a stage whose guard is off: it is looked at, and nothing is decided."""


def run(worker: Worker) -> Manifest:
    stage = rlhf_stage(worker)
    config, kind = ALGORITHMS[stage.algorithm]
    args = practice_args(worker, config)
    if stage.guard == "off":
        worker.warn("the guard is off: nothing notices when the answers get worse while their scores rise")
    prepared = prepare(worker, args, scorer_of(worker))
    trainer = build_trainer(worker, args, prepared, kind)
    drop_rollouts(worker, trainer)
    if stage.sampling.filter is not None:
        allowed = filtered(worker, trainer, prepared, stage.sampling.filter)
        trainer.practice.stream = stream_of(stage, prepared.problems, allowed, prepared.scorer.is_checked)
    guard = guard_of(worker, trainer, prepared)
    spec = None if stage.guard == "off" else stage.guard
    callback = GuardCallback(worker, trainer, guard, spec, spec.every if spec else WATCHED_EVERY)
    monitor = trainer.practice.monitor
    for each in (callback, monitor, BorderCallback(trainer, monitor)):
        trainer.add_callback(each)
    _, _, metrics, seconds = train_between(worker, trainer, dict)
    for name in ("best_step", "best_balance"):
        metrics.pop(name, None)
    if spec is not None:
        check_restored(worker, trainer, guard)
    return finish(worker, trainer, prepared, metrics | told(guard, callback, spec is not None, seconds), seconds)


def rlhf_stage(worker: Worker) -> RlhfStage:
    stage = worker.file.stage
    assert isinstance(stage, RlhfStage), stage.kind
    return stage


def scorer_of(worker: Worker) -> PreferenceScorer:
    """The reward models, loaded, with the functions beside them."""
    stage = rlhf_stage(worker)
    folders = [Path(worker.file.data_stages[name]) for name in stage.reward_model.from_]
    where = f"stage '{stage.name}': reward_model"
    return PreferenceScorer(
        [open_rewards(folder, device=PartialState().device) for folder in folders],
        stage.reward_model,
        Scorer(stage.rewards, f"stage '{stage.name}': rewards") if stage.rewards else None,
        weight=stage.reward_weight,
        missing_eos_penalty=stage.missing_eos_penalty,
        when=stage.reward_when,
        where=where,
    )


def guard_of(worker: Worker, trainer: Any, prepared: Prepared) -> Guard:
    """Raises UserError where the prompts that it looks at are practised on, or where the model cannot be asked."""
    stage = rlhf_stage(worker)
    where = f"stage '{stage.name}': guard"
    if is_sharded(trainer):
        raise UserError(where, "asks a model whose weights are sharded", "use zero2 or ddp")
    spec = None if stage.guard == "off" else stage.guard
    num = spec.num_prompts if spec else WATCHED_PROMPTS
    scorer = prepared.scorer
    assert isinstance(scorer, PreferenceScorer)
    every = (problem for held in prepared.heldout.values() for problem in held if scorer.applies(problem))
    prompts: list[Problem] = list(islice(every, num))
    if not prompts:
        raise UserError(where, "has no prompts to look at", "name held-out prompts in 'heldout'")
    _warn_of_seen(worker, prompts)
    reference = None if stage.peft else _reference(worker, trainer)
    true = labelled_by(stage.measured_by) if stage.measured_by else None
    return Guard(worker, trainer, prompts, scorer, gold_of(worker), true, reference)


def _warn_of_seen(worker: Worker, prompts: Sequence[Problem]) -> None:
    """A reward model knows the prompts that it was trained on better than others."""
    places = [place_of(problem.prompt) for problem in prompts]
    for _, name in reads.reward_models(rlhf_stage(worker)):
        seen = np.load(open_folder(Path(worker.file.data_stages[name])) / PROMPTS)
        if num := int(np.isin(places, seen).sum()):
            worker.warn(f"'{name}' was trained on {num} of the {len(prompts)} prompts that the guard looks at")


def _reference(worker: Worker, trainer: Any) -> PreTrainedModel:
    """The stage's input model, frozen: the trainer's own, where it has one that stays where it is."""
    file = worker.file
    if trainer.ref_model is not None and not trainer.args.sync_ref_model:
        own: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.ref_model)
        return own
    assert file.input_model is not None
    model = load_spec(file.model, file.input_model, file.parent is None).to(PartialState().device).eval()
    return model.requires_grad_(False)


def gold_of(worker: Worker) -> Judge | None:
    """What the guard decides by: a reward model that training does not see, or a function."""
    stage = rlhf_stage(worker)
    if stage.guard == "off":
        return None
    if stage.guard.labeller is not None:
        return labelled_by(stage.guard.labeller)
    assert stage.guard.gold is not None
    return judged_by(Path(worker.file.data_stages[stage.guard.gold]))


def check_restored(worker: Worker, trainer: Any, guard: Guard) -> None:
    """The weights that the stage keeps are those of the best step: TRL only warns where it cannot load them."""
    best = guard.evaluations[best_of(guard.evaluations)]
    if best.step == 0:
        worker.warn("no step was better than the start: the stage's model is its input")
    if trainer.state.best_global_step != best.step:
        worker.warn(f"the best step was {best.step}, and {trainer.state.best_global_step} was kept")


def told(guard: Guard, callback: GuardCallback, is_on: bool, train_seconds: float) -> dict[str, float]:
    """For the manifest."""
    evaluations = guard.evaluations
    found = {"guard_evaluations": float(len(evaluations)), "kl": evaluations[-1].kl}
    found["guard_seconds"] = sum(each.seconds for each in evaluations)
    found["guard_share"] = found["guard_seconds"] / train_seconds if train_seconds else 0.0
    if is_on:
        best = evaluations[best_of(evaluations)]
        found |= {"guard_best_step": float(best.step), "guard_best_gold": float(np.mean(best.gold))}
        found |= {"guard_stopped": float(bool(callback.reason)), "kl": best.kl}
    curve = fit(evaluations) if is_on else None
    if curve is not None:
        found |= {"gao_alpha": curve.alpha, "gao_beta": curve.beta}
        found |= {"gao_peak": curve.peak} if curve.peak is not None else {}
    return found


if __name__ == "__main__":
    main("rlhf", run)
