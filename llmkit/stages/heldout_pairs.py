"""How far a model prefers the chosen answers of held-out pairs, the same way before and after training."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from trl import DPOTrainer

from llmkit.data.build import Built
from llmkit.intervals import means_of
from llmkit.stages.heldout import is_sharded


class Measured:
    """Numbers of each held-out set, at every call. Made before training, while the model is its own reference.

    `loss`: -log sigmoid of the margin, in nats, whichever `loss_type` trains (Rafailov et al. 2023, eq. 7).
    `margin`: beta * ((log p - log p_ref)(chosen) - (log p - log p_ref)(rejected)), nats times beta.
    `accuracy`: share of pairs with a margin above 0; a margin of exactly 0, as before training, counts half.
    `ranking_accuracy`: share of pairs with log p(chosen) > log p(rejected) (Chen et al. 2024, arXiv 2405.19534, eq. 2).
    Each with `_low` and `_high`, its 95 % interval over pairs, and `num_pairs` beside them.

    Weights that are sharded over processes (ZeRO-3, FSDP) are measured by the trainer itself: `loss` as it is trained,
    and after training `accuracy` and `margin`, without intervals.
    """

    def __init__(self, trainer: DPOTrainer, heldout: dict[str, Built]) -> None:
        self.trainer, self.heldout = trainer, heldout
        self.is_sharded = is_sharded(trainer)
        built = {} if self.is_sharded else heldout
        self.reference_N2 = {name: log_probs(trainer, pairs) for name, pairs in built.items()}

    def __call__(self) -> dict[str, dict[str, float]]:
        if self.is_sharded:
            return {name: self._by_trainer(name) for name in self.heldout}
        return {
            name: compare(log_probs(self.trainer, built), self.reference_N2[name], self.trainer.beta)
            for name, built in self.heldout.items()
        }

    def _by_trainer(self, name: str) -> dict[str, float]:
        found = self.trainer.evaluate(name)
        numbers = {"loss": float(found["eval_loss"]), "num_pairs": float(len(self.heldout[name].dataset))}
        if self.trainer.state.global_step:  # before, TRL counts rewards that are equal as wrong
            numbers["accuracy"] = float(found["eval_rewards/accuracies"])
            numbers["margin"] = float(found["eval_rewards/margins"])
        return numbers


def compare(model_N2: np.ndarray, reference_N2: np.ndarray, beta: float) -> dict[str, float]:
    """Log-probabilities of N chosen and rejected answers under model and reference -> the numbers of `Measured`."""
    ratio_N2 = model_N2 - reference_N2
    margin_N = beta * (ratio_N2[:, 0] - ratio_N2[:, 1])
    values_N = {
        "loss": np.logaddexp(0, -margin_N),
        "margin": margin_N,
        "accuracy": (np.sign(margin_N) + 1) / 2,
        "ranking_accuracy": (model_N2[:, 0] > model_N2[:, 1]).astype(float),
    }
    return {"num_pairs": float(len(margin_N))} | means_of({name: each.tolist() for name, each in values_N.items()})


@torch.no_grad()
def log_probs(trainer: DPOTrainer, built: Built) -> np.ndarray:
    """(N, 2) sums of token log-probabilities, in nats, of the chosen and rejected answers of all pairs."""
    model, args = trainer.model, trainer.args
    was_training = model.training
    model.eval()
    mine = built.dataset.select(range(args.process_index, len(built.dataset), args.world_size))
    found: list[tuple[float, float]] = []
    for batch in DataLoader(mine, batch_size=args.per_device_eval_batch_size, collate_fn=trainer.data_collator):
        inputs = {key: value.to(model.device) for key, value in batch.items()}
        labels_BL = inputs["input_ids"].masked_fill(inputs.pop("completion_mask") == 0, -100)
        with trainer.accelerator.autocast():
            logps_BL = model(**inputs, labels=labels_BL, use_cache=False, fused_lm_head=True).log_probs
        chosen, rejected = logps_BL.double().sum(1).chunk(2)
        found += zip(chosen.tolist(), rejected.tolist(), strict=True)
    model.train(was_training)
    whole_N2 = np.empty((len(built.dataset), 2))
    parts: list[list[tuple[float, float]]] = [found]
    if args.world_size > 1:
        parts = [[] for _ in range(args.world_size)]
        dist.all_gather_object(parts, found)
    for rank, part in enumerate(parts):
        if part:
            whole_N2[rank :: args.world_size] = part
    return whole_N2
