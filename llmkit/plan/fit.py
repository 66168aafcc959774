"""Whether a step fits into the memory that `launch.memory` gives a process, and which changes of the recipe make it so.

Changes are tried, not guessed: each is laid on the stage, and the plan estimates the changed stage. Those that change
no result come first, then an optimizer in 8 bits, sharding, and training an adapter in place of all weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from llmkit.plan.batch import KEY as ROWS
from llmkit.plan.batch import LARGEST
from llmkit.recipe.parts import num_bytes
from llmkit.recipe.stages import PracticeStage, TrainStage

USABLE = 0.9
"""Share of a device that a step may take: the rest is the framework's, and for what the estimate leaves out."""
_SHOWN = 4
Change = dict[str, Any]
"""Setting of the stage, with dots -> value."""


@dataclass(frozen=True)
class Fit:
    given: int
    """Bytes of the device."""
    fits: bool
    changes: tuple[tuple[str, ...], ...] = ()
    """Of a step that does not fit: `key=value` words for the command line, each group of which makes it fit."""


def fit(stage: Any, need: Callable[[Any], int | None], changeable: bool) -> Fit | None:
    """Args:
    need: bytes that a stage takes; None where that is not known, or where the stage would be refused.
    changeable: False for steps that the recipe does not hold.
    """
    taken = need(stage)
    if stage.launch.memory is None or taken is None:
        return None
    given = num_bytes(stage.launch.memory)
    usable = given * USABLE
    if taken <= usable:
        return Fit(given, fits=True)
    found = [change for change in _tried(stage) if _fits(stage, change, need, usable)] if changeable else []
    return Fit(given, fits=False, changes=tuple(_words(stage, change) for change in _simplest(found)))


def _fits(stage: Any, change: Change, need: Callable[[Any], int | None], usable: float) -> bool:
    try:
        taken = need(changed(stage, change))
    except ValidationError:  # of a setting that the change does not go with
        return False
    return taken is not None and taken <= usable


def changed(stage: Any, change: Change) -> Any:
    """The stage with a change laid on it."""
    data = stage.model_dump(by_alias=True)
    for key, value in change.items():
        *path, last = key.split(".")
        place = data
        for name in path:
            place = place[name]
        place[last] = value
    return type(stage).model_validate(data)


def _simplest(found: list[Change]) -> list[Change]:
    """Without those that hold a change which is enough by itself; of those that differ in numbers alone the first."""
    kept: list[Change] = []
    for change in sorted(found, key=len):
        if not any(less.items() <= change.items() for less in kept):
            kept.append(change)
    gentlest: dict[str, Change] = {}
    for change in (each for each in found if each in kept):
        gentlest.setdefault(_kind(change), change)
    return list(gentlest.values())[:_SHOWN]


def _kind(change: Change) -> str:
    return str({key: None if type(value) is int else value for key, value in change.items()})


def _tried(stage: Any) -> Iterator[Change]:
    """Changes and their combinations, the gentlest first."""
    rows = [{}, *_smaller(stage)]
    if not isinstance(stage, TrainStage):
        yield from rows[1:]
        return
    checkpoint: list[Change] = [{}]
    if stage.trainer.get("gradient_checkpointing") is False:
        checkpoint.append({"trainer.gradient_checkpointing": True})
    for heavy in ({}, *_heavy(stage)):
        for fewer, again in product(rows, checkpoint):
            if change := {**heavy, **again, **fewer}:
                yield change


def _smaller(stage: Any) -> Iterator[Change]:
    """Fewer rows at a time; in practice also fewer answers."""
    if not isinstance(stage, TrainStage):
        yield from ({"batch_size": stage.batch_size >> n} for n in range(1, stage.batch_size.bit_length()))
        return
    largest = stage.global_batch_size // stage.launch.num_processes
    given = stage.trainer.get(ROWS)
    first = min(given if isinstance(given, int) else LARGEST, largest)
    for rows in (number for number in range(first - 1, 0, -1) if largest % number == 0):
        yield {f"trainer.{ROWS}": rows}
        if isinstance(stage, PracticeStage):
            yield {f"trainer.{ROWS}": rows, "batch_size": max(1, stage.batch_size * rows // first)}


def _heavy(stage: TrainStage) -> Iterator[Change]:
    """What changes results, or takes more machines."""
    launch = stage.launch
    on_gpu = not launch.accelerate.startswith("cpu/")
    whole = launch.accelerate.removeprefix("cpu/") in ("single", "ddp", "zero2")
    if on_gpu and stage.peft is None and "8bit" not in str(stage.trainer.get("optim")):
        yield {"trainer.optim": "adamw_8bit"}
    if whole and stage.peft is None:
        zero3 = "zero3" if on_gpu else "cpu/zero3"
        for number in (launch.num_processes, 2, 4, 8):
            if number == launch.num_processes > 1:
                yield {"launch.accelerate": zero3}
            elif number > launch.num_processes:
                yield {"launch.accelerate": zero3, "launch.num_processes": number}
    if stage.peft is None:
        yield {"peft": {"method": "lora"}}
        yield {"peft": {"quantization": "nf4"}}
    elif stage.peft.quantization is None:
        yield {"peft.quantization": "nf4"}


def _words(stage: Any, change: Change) -> tuple[str, ...]:
    """As they are laid on a recipe."""
    return tuple(f"stages.{stage.name}.{key}={_text(value)}" for key, value in change.items())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(each)}" for key, each in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)
