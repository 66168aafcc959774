"""Reinforcement learning against a reward model, with a guard that notices when it only learns to please.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.rlhf recipe.yaml --stage rlhf

Prompts, decoding, groups and checkpoints are those of `grpo` and `rloo` (`llmkit.stages.practice`); what differs is who
scores the answers, and who watches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import PreTrainedModel
from trl import GRPOConfig, RLOOConfig

from llmkit.artifacts.manifest import Manifest
from llmkit.data.problems import Problem
from llmkit.errors import RunError, UserError
from llmkit.modeling.load import load_spec
from llmkit.modeling.reward_model import load_reader
from llmkit.preference.watch import Evaluation, fit
from llmkit.recipe import reads
from llmkit.recipe.preference import FEWEST_LOOKED_AT
from llmkit.recipe.stages_preference import RlhfStage
from llmkit.stages.common import Worker, main
from llmkit.stages.grpo import GrpoTrainer
from llmkit.stages.guard_callback import GuardCallback
from llmkit.stages.guard_judge import check_guard_judge, guard_judge
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
from llmkit.stages.preferring import (
    Judge,
    PreferenceScorer,
    check_renders,
    judged_by,
    labelled_by,
    open_folder,
    open_rewards,
    trained_on,
    warn_of_seen,
)
from llmkit.stages.rloo import RlooTrainer
from llmkit.stages.scoring import Scorer
from llmkit.stages.training import train_between

ALGORITHMS: dict[str, tuple[type[Any], type[Any]]] = {
    "grpo": (GRPOConfig, GrpoTrainer),
    "rloo": (RLOOConfig, RlooTrainer),
}
WATCHED_EVERY, WATCHED_PROMPTS = 0.05, 128
"""Of a stage whose guard is off: it is looked at, and nothing is decided."""
SHARED = 0.1
"""Share of gold's prompts that the reward model may know as well: beyond it the two are not apart."""


def run(worker: Worker) -> Manifest:
    stage = rlhf_stage(worker)
    config, kind = ALGORITHMS[stage.algorithm]
    args = practice_args(worker, config)
    if stage.guard == "off":
        worker.warn("the guard is off: nothing notices when the answers get worse while their scores rise")
    elif stage.guard.judge is not None:
        check_guard_judge(stage.guard.judge)
    check_apart(worker)
    prepared = prepare(worker, args, scorer_of(worker))
    prompts = looked_at(worker, prepared)
    check_gold(worker, prompts)
    trainer = build_trainer(worker, args, prepared, kind)
    drop_rollouts(worker, trainer)
    if stage.sampling.filter is not None:
        allowed = filtered(worker, trainer, prepared, stage.sampling.filter)
        trainer.practice.stream = stream_of(stage, prepared.problems, allowed, prepared.scorer.is_checked)
    guard = guard_of(worker, trainer, prepared, prompts)
    spec = None if stage.guard == "off" else stage.guard
    callback = GuardCallback(worker, trainer, guard, spec, spec.every if spec else WATCHED_EVERY)
    monitor = trainer.practice.monitor
    for each in (callback, monitor, BorderCallback(trainer, monitor)):
        trainer.add_callback(each)
    _, _, metrics, seconds = train_between(worker, trainer, dict)
    for name in ("best_step", "best_balance"):
        metrics.pop(name, None)
    found = told(guard, seconds)
    if spec is not None:
        check_restored(worker, trainer, callback.best())
        found |= told_of_best(guard, callback)
    return finish(worker, trainer, prepared, metrics | found, seconds)


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


def looked_at(worker: Worker, prepared: Prepared) -> list[Problem]:
    """The prompts that the guard looks at: of all held-out sets in turn, of each from its beginning. Raises UserError
    where they are too few."""
    stage = rlhf_stage(worker)
    spec = None if stage.guard == "off" else stage.guard
    num = spec.num_prompts if spec else WATCHED_PROMPTS
    scorer = prepared.scorer
    assert isinstance(scorer, PreferenceScorer)
    sets = (filter(scorer.applies, held) for held in prepared.heldout.values())
    every = (problem for problem in chain.from_iterable(zip_longest(*sets)) if problem is not None)
    prompts = list(islice(every, num))
    fewest = FEWEST_LOOKED_AT if spec else 1
    if len(prompts) < fewest:
        what = f"has {len(prompts)} of the {fewest} prompts that it needs at least to tell a fall from chance"
        where = f"stage '{stage.name}': guard"
        raise UserError(where, what, "name more held-out prompts in 'heldout', which 'reward_when' fits")
    if spec and len(prompts) < num:
        worker.warn(f"the guard looks at {len(prompts)} prompts: there are no more, and {num} are wanted")
    _warn_of_seen(worker, prompts)
    return prompts


def guard_of(worker: Worker, trainer: Any, prepared: Prepared, prompts: Sequence[Problem]) -> Guard:
    """Raises UserError where the model cannot be asked."""
    stage, scorer = rlhf_stage(worker), prepared.scorer
    assert isinstance(scorer, PreferenceScorer)
    if is_sharded(trainer):
        raise UserError(f"stage '{stage.name}': guard", "asks a model whose weights are sharded", "use zero2 or ddp")
    reference = None if stage.peft else _reference(worker, trainer)
    true = labelled_by(stage.measured_by) if stage.measured_by else None
    return Guard(worker, trainer, prompts, scorer, gold_of(worker), true, reference)


def check_apart(worker: Worker) -> None:
    """A gold model that knows the prompts of the reward model is fooled with it. Raises UserError for many."""
    stage = rlhf_stage(worker)
    if stage.guard == "off" or stage.guard.gold is None:
        return
    gold = np.unique(trained_on(worker, stage.guard.gold))
    for name in stage.reward_model.from_:
        num = int(np.isin(gold, trained_on(worker, name)).sum())
        what = f"{num} of the {len(gold)} prompts of '{stage.guard.gold}' are also those of '{name}'"
        if num > SHARED * len(gold):
            cure = "rank answers to other prompts, and train it on these"
            raise UserError(f"stage '{stage.name}': guard.gold", f"{what}: it would be fooled with it", cure)
        if num:
            worker.warn(what)


def check_gold(worker: Worker, prompts: Sequence[Problem]) -> None:
    """Raises UserError where a gold model cannot read what the policy is asked."""
    stage = rlhf_stage(worker)
    if stage.guard != "off" and stage.guard.gold is not None:
        name = stage.guard.gold
        reader = load_reader(open_folder(Path(worker.file.data_stages[name])))
        check_renders(reader, prompts, f"stage '{stage.name}': guard.gold '{name}'")


def _warn_of_seen(worker: Worker, prompts: Sequence[Problem]) -> None:
    for _, name in reads.reward_models(rlhf_stage(worker)):
        warn_of_seen(worker, name, prompts, "that the guard looks at")


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
    """What the guard decides by: a reward model that training does not see, a function, or a model that is asked."""
    stage = rlhf_stage(worker)
    if stage.guard == "off":
        return None
    if stage.guard.labeller is not None:
        return labelled_by(stage.guard.labeller)
    if stage.guard.judge is not None:
        return guard_judge(worker, stage.guard.judge, f"stage '{stage.name}': guard.judge")
    assert stage.guard.gold is not None
    return judged_by(Path(worker.file.data_stages[stage.guard.gold]))


def check_restored(worker: Worker, trainer: Any, best: Evaluation) -> None:
    """The trainer's weights are those that the best step saved. Raises RunError where they are not: transformers only
    warns where it cannot load them."""
    folder = Path(str(trainer.state.best_model_checkpoint))
    if worker.is_main and not holds(trainer.accelerator.unwrap_model(trainer.model), folder):
        what = f"does not hold the weights that training ended with, and step {best.step} is the best"
        raise RunError(str(folder), what, "remove it: the stage goes on from the one before, or begins anew")
    if best.step == 0:
        worker.warn("no step was better than the start: the stage's model is its input")


def holds(model: PreTrainedModel | PeftModel, checkpoint: Path) -> bool:
    """Whether a checkpoint's weights are a model's (of an adapter the adapter's), as far as they go by one name."""
    own = get_peft_model_state_dict(model) if isinstance(model, PeftModel) else model.state_dict()
    found = False
    for path in checkpoint.glob("*.safetensors"):
        with safe_open(path, framework="pt") as saved:
            for name in set(saved.keys()) & set(own):
                found = True
                if not torch.equal(saved.get_tensor(name), own[name].cpu()):
                    return False
    return found


def told(guard: Guard, train_seconds: float) -> dict[str, float]:
    """Of all looks, for the manifest."""
    evaluations = guard.evaluations
    seconds = sum(each.seconds for each in evaluations)
    return {
        "guard_evaluations": float(len(evaluations)),
        "guard_seconds": seconds,
        "guard_share": seconds / train_seconds if train_seconds else 0.0,
        "kl": evaluations[-1].kl,
    }


def told_of_best(guard: Guard, callback: GuardCallback) -> dict[str, float]:
    """Of what a guard kept, for the manifest."""
    best, curve = callback.best(), fit(guard.evaluations)
    found = {"guard_best_step": float(best.step), "guard_best_gold": float(np.mean(best.gold))}
    found |= {"guard_stopped": float(bool(callback.reason)), "kl": best.kl}
    if curve is not None:
        found |= {"gao_alpha": curve.alpha, "gao_beta": curve.beta}
        found |= {"gao_peak": curve.peak} if curve.peak is not None else {}
    return found


if __name__ == "__main__":
    main("rlhf", run)
