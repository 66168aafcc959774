"""Batch arithmetic: global_batch_size = per_device_train_batch_size x gradient_accumulation_steps x world size."""

from __future__ import annotations

from llmkit.artifacts.stagefile import Batch
from llmkit.recipe.source import Loc
from llmkit.recipe.stages import PracticeStage, TrainStage
from llmkit.recipe.trainer_keys import trainer_options

KEY = "per_device_train_batch_size"
LARGEST = 8
Found = tuple[Loc, str, str]


def derive(stage: TrainStage, world_size: int) -> Batch | Found:
    """The batch of a stage, or the problem with it as (location in the stage, what, cure).

    `per_device_train_batch_size` is the recipe's `trainer` value where it is given. Else it is the largest divisor
    of global / world_size up to 8: few accumulation steps, yet small enough for most memories; the result of
    training does not depend on it.
    """
    total = stage.global_batch_size
    if total % world_size:
        what = f"{total} rows cannot be shared by {world_size} processes"
        return ("global_batch_size",), what, _nearest(total, world_size)
    if isinstance(stage, PracticeStage) and (problem := _groups(stage, world_size)) is not None:
        return problem
    rows = total // world_size
    given = stage.trainer.get(KEY)
    if given is None:
        given = max(d for d in range(1, min(LARGEST, rows) + 1) if rows % d == 0)
    elif not isinstance(given, int) or isinstance(given, bool) or given < 1:
        return ("trainer", KEY), f"must be a whole number above 0, got {given!r}", ""
    elif rows % given:
        share = f" ({total} / {world_size} processes)" if world_size > 1 else ""
        what = f"{given} does not divide the {rows} rows of a process{share}"
        divisors = [d for d in range(1, rows + 1) if rows % d == 0]
        low, high = [d for d in divisors if d < given][-1:], [d for d in divisors if d > given][:1]
        fits = " or ".join(str(d) for d in [*low, *high])
        return ("trainer", KEY), what, f"use {fits}, or {_nearest(total, given * world_size, 'global_batch_size')}"
    return Batch(
        global_batch_size=total,
        per_device_train_batch_size=given,
        gradient_accumulation_steps=rows // given,
        world_size=world_size,
    )


def _groups(stage: PracticeStage, world_size: int) -> Found | None:
    """The answers to a prompt are compared with one another, so a process samples whole groups of them."""
    options = trainer_options(stage.trainer_kind, stage.trainer)
    size, total, generated = options["num_generations"], stage.global_batch_size, options["generation_batch_size"]
    unit = size * world_size
    shared = f" on {world_size} processes" if world_size > 1 else ""
    if total % unit:
        what = f"{total} answers are no whole number of groups of {size} (num_generations){shared}"
        return ("global_batch_size",), what, _nearest(total, unit)
    if generated is not None and (generated % unit or (generated % total and total % generated)):
        what = f"{generated} must hold whole groups of {size}{shared}, and be a multiple or a part of {total}"
        return ("trainer", "generation_batch_size"), what, f"use {total} or {2 * total}"
    return None


def _nearest(total: int, unit: int, name: str = "") -> str:
    """The multiples of `unit` on both sides of `total`."""
    low, high = total // unit * unit, (total // unit + 1) * unit
    values = " or ".join(str(v) for v in (low, high) if v)
    return f"{name} {values}" if name else f"use {values}"
