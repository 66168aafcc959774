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
    context and is not scored, before and after alike. Weights that are sharded over processes (ZeRO-3, FSDP) can be
    measured only once training has begun.
    """
    nll, tokens = _row_sums(trainer, built, collator)
    loss = float(nll.sum() / tokens.sum())
    draws = np.random.default_rng(0).integers(0, len(nll), (NUM_BOOTSTRAP, len(nll)))
    losses = nll[draws].sum(1) / tokens[draws].sum(1)
    low, high = (float(x) for x in np.quantile(losses, (0.025, 0.975)))
    return Measure(
        loss=loss,
        perplexity=math.exp(min(loss, 50.0)),
        bits_per_byte=float(nll.sum()) / math.log(2) / built.num_bytes if built.num_bytes else None,
        low=low,
        high=high,
        num_tokens=int(tokens.sum()),
        num_rows=len(nll),
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
    mine = list(range(args.process_index, len(built.dataset), args.world_size))
    # with sharded weights all processes go forward together, so every one has as many rows
    spare = [0] * (math.ceil(len(built.dataset) / args.world_size) - len(mine))
    rows = built.dataset.select([*mine, *spare])
    sums: list[float] = []
    counts: list[int] = []
    for batch in DataLoader(rows, batch_size=args.per_device_eval_batch_size, collate_fn=collator):
        inputs = {k: v.to(args.device) if torch.is_tensor(v) else v for k, v in batch.items()}
        labels_BL = inputs.pop("labels")
        with trainer.compute_loss_context_manager():
            logits_BLV = model(**inputs, use_cache=False).logits
        nll_BL = cross_entropy(logits_BLV[:, :-1].transpose(1, 2).float(), labels_BL[:, 1:], reduction="none")
        sums += nll_BL.sum(1).tolist()
        counts += (labels_BL[:, 1:] != -100).sum(1).tolist()
    model.train(was_training)
    sums, counts = sums[: len(mine)], counts[: len(mine)]
    if args.world_size > 1:
        gathered: list[Any] = [None] * args.world_size
        dist.all_gather_object(gathered, (sums, counts))
        sums = [x for part, _ in gathered for x in part]
        counts = [x for _, part in gathered for x in part]
    return np.array(sums), np.array(counts)
