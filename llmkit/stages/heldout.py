"""Loss on held-out rows, the same way before and after training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import Trainer

from llmkit.artifacts.manifest import Measure
from llmkit.data.build import Built

NUM_BOOTSTRAP = 1000


def measure(trainer: Trainer, built: Built, collator: Any) -> Measure:
    """Negative log-likelihood per trained token, in nats, with a 95 % interval by bootstrap over rows (Efron 1979).

    Bits per byte divides the sum, in bits, by the UTF-8 bytes of the text; the first token of a document has no
    context and is not scored, before and after alike. Weights that are sharded over processes (ZeRO-3, FSDP) are
    measured by the trainer itself, which gives no interval.
    """
    if is_sharded(trainer):
        loss = float(trainer.evaluate(built.dataset)["eval_loss"])
        num_tokens = built.summary.num_trained_tokens
        return _measure(loss, None, None, num_tokens, len(built.dataset), built.num_bytes)
    nll, tokens = _row_sums(trainer, built, collator)
    loss = float(nll.sum() / tokens.sum())
    draws = np.random.default_rng(0).integers(0, len(nll), (NUM_BOOTSTRAP, len(nll)))
    losses = nll[draws].sum(1) / tokens[draws].sum(1)
    low, high = (float(x) for x in np.quantile(losses, (0.025, 0.975)))
    return _measure(loss, low, high, int(tokens.sum()), len(nll), built.num_bytes)


def _measure(loss: float, low: float | None, high: float | None, tokens: int, rows: int, num_bytes: int) -> Measure:
    return Measure(
        loss=loss,
        perplexity=math.exp(min(loss, 50.0)),
        bits_per_byte=loss * tokens / math.log(2) / num_bytes if num_bytes else None,
        low=low,
        high=high,
        num_tokens=tokens,
        num_rows=rows,
    )


def is_sharded(trainer: Trainer) -> bool:
    plugin = trainer.accelerator.state.deepspeed_plugin
    return trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3)


@torch.no_grad()
def _row_sums(trainer: Trainer, built: Built, collator: Any) -> tuple[np.ndarray, np.ndarray]:
    """(N,) sums of negative log-likelihood and (N,) counts of scored tokens, of all rows, on every rank."""
    model, args = trainer.model, trainer.args
    was_training = model.training
    model.eval()
    mine = built.dataset.select(range(args.process_index, len(built.dataset), args.world_size))
    sums: list[float] = []
    counts: list[int] = []
    for batch in DataLoader(mine, batch_size=args.per_device_eval_batch_size, collate_fn=collator):
        inputs = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
        labels_BL = inputs.pop("labels")
        with trainer.compute_loss_context_manager():
            logits_BLV = model(**inputs, use_cache=False).logits
        nll_BL = cross_entropy(logits_BLV[:, :-1].transpose(1, 2).float(), labels_BL[:, 1:], reduction="none")
        sums += nll_BL.sum(1).tolist()
        counts += (labels_BL[:, 1:] != -100).sum(1).tolist()
    model.train(was_training)
    if args.world_size > 1:
        gathered: list[Any] = [None] * args.world_size
        dist.all_gather_object(gathered, (sums, counts))
        sums = [x for part, _ in gathered for x in part]
        counts = [x for _, part in gathered for x in part]
    return np.array(sums), np.array(counts)
