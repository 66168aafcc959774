"""The Accelerate config that a foreign run was launched with -> the one of llmkit's that is like it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmkit.errors import Problem, RecipeError
from llmkit.importing.draft import Entry
from llmkit.importing.foreign import dotted, leaves, read_foreign

_KEPT = {"num_processes": "launch.num_processes", "num_machines": "launch.num_machines"}


@dataclass(frozen=True)
class Launch:
    """What is known of a launch. `shape` is a name under recipes/accelerate."""

    shape: str | None = None
    num_processes: int | None = None
    num_machines: int = 1
    entries: list[Entry] = field(default_factory=list)
    """The account of the config's keys, each with `accelerate: ` in front."""


def read_accelerate(path: Path) -> Launch:
    """Raises RecipeError for a file that is no Accelerate config, or for a strategy that llmkit does not have."""
    data = read_foreign(path).data
    if not {"distributed_type", "num_processes", "compute_environment"} & set(data):
        raise RecipeError(
            [Problem(str(path), "is no Accelerate config", "give the file of `accelerate launch --config_file`")]
        )
    shape = shape_of(data, str(path))
    entries = []
    for loc in leaves(data):
        key = str(loc[0])
        if key in _KEPT:
            entries.append(Entry(f"accelerate: {key}", "mapped", _KEPT[key]))
        elif key == "distributed_type" or loc[-1] == "zero_stage":
            entries.append(Entry(f"accelerate: {dotted(loc)}", "renamed", "launch.accelerate", shape))
        else:
            why = f"recipes/accelerate/{shape}.yaml says it; for other values give a config of your own"
            entries.append(Entry(f"accelerate: {dotted(loc)}", "listed", "", why))
    return Launch(shape, _whole(data.get("num_processes")), _whole(data.get("num_machines")) or 1, entries)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def shape_of(data: dict[str, Any], where: str) -> str:
    """The name under recipes/accelerate that is like a config."""
    kind = str(data.get("distributed_type") or "NO").upper()
    if kind == "DEEPSPEED":
        config = data.get("deepspeed_config")
        return deepspeed_shape(config.get("zero_stage") if isinstance(config, dict) else None, where)
    shapes = {"NO": "single", "FALSE": "single", "MULTI_GPU": "ddp", "FSDP": "fsdp2"}
    if kind not in shapes:
        raise RecipeError(
            [Problem(f"{where}: distributed_type", f"llmkit has no launch like {kind:.40}", "use another")]
        )
    return shapes[kind]


def deepspeed_shape(zero_stage: Any, where: str) -> str:
    """ZeRO-1 becomes ZeRO-2, which also shards gradients; ZeRO-0 is DDP."""
    shapes = {0: "ddp", 1: "zero2", 2: "zero2", 3: "zero3"}
    if not isinstance(zero_stage, int) or zero_stage not in shapes:
        raise RecipeError(
            [Problem(where, f"has no ZeRO stage that llmkit knows: {zero_stage!r:.40}", "give 0, 1, 2 or 3")]
        )
    return shapes[zero_stage]
