"""The exact command that starts a stage's workers, and the environment it adds."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from llmkit.artifacts.shipped import shipped
from llmkit.recipe.parts import LaunchSpec
from llmkit.recipe.source import Loc

Found = tuple[Loc, str, str]
MACHINE_VARIABLES = ("MACHINE_RANK", "MASTER_ADDR", "MASTER_PORT")
_PLAIN = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "NO", "mixed_precision": "no", "num_machines": 1}
_PLAIN |= {"machine_rank": 0, "num_processes": 1, "main_process_port": 0}


@dataclass(frozen=True)
class Command:
    argv: tuple[str, ...]
    env: dict[str, str]
    """Added to the environment of `llmkit run`."""
    kind: str | None = None
    """Of stage, where one process without a launcher is all of it."""

    def __str__(self) -> str:
        """As it can be pasted into a shell."""
        words = [f"{key}={shlex.quote(value)}" for key, value in self.env.items()]
        return " ".join([*words, shlex.join(self.argv)])


@dataclass(frozen=True)
class AccelerateConfig:
    path: Path
    distributed_type: str
    use_cpu: bool
    zero_stage: int | None
    offload_optimizer: bool
    plain: bool
    """One process, and nothing set that Accelerate's launcher would have to pass on."""

    @property
    def shards_weights(self) -> bool:
        return self.distributed_type == "FSDP" or self.zero_stage == 3

    @property
    def shards_gradients(self) -> bool:
        return self.shards_weights or self.zero_stage == 2

    @property
    def shards_optimizer(self) -> bool:
        return self.shards_gradients or self.zero_stage == 1


def config_path(name: str) -> Path:
    """A shipped config's file for its name (`cpu/ddp`), else `name` as a path."""
    inside = shipped("recipes") / "accelerate" / f"{name}.yaml"
    return inside if inside.is_file() else Path(name)


@cache
def _config(path: Path) -> AccelerateConfig:
    data: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
    deepspeed = data.get("deepspeed_config") or {}
    return AccelerateConfig(
        path=path.absolute(),
        distributed_type=str(data.get("distributed_type", "NO")),
        use_cpu=bool(data.get("use_cpu", False)),
        zero_stage=deepspeed.get("zero_stage"),
        offload_optimizer=deepspeed.get("offload_optimizer_device", "none") != "none",
        plain=all(key == "use_cpu" or _PLAIN.get(key) == value for key, value in data.items()),
    )


def accelerate_config(launch: LaunchSpec) -> AccelerateConfig | Found:
    """The Accelerate config of a stage, or what is wrong with it as (location in the stage, what, cure)."""
    path = config_path(launch.accelerate)
    if not path.is_file():
        known = sorted(str(p.relative_to(_folder()).with_suffix("")) for p in _folder().rglob("*.yaml"))
        return ("launch", "accelerate"), f"no Accelerate config '{launch.accelerate}'", f"have: {', '.join(known)}"
    try:
        config = _config(path)
    except (YAMLError, OSError, AttributeError) as error:
        return ("launch", "accelerate"), f"{path} is not an Accelerate config ({error})", ""
    kind = config.distributed_type
    if kind == "MULTI_CPU":
        what = f"{path}: 'distributed_type: MULTI_CPU' starts one process, whatever is asked for"
        return ("launch", "accelerate"), what, "use MULTI_GPU with 'use_cpu: true', as cpu/ddp does"
    if kind == "NO" and launch.num_processes > 1:
        what = f"'{launch.accelerate}' starts one process, but 'num_processes' is {launch.num_processes}"
        return ("launch", "num_processes"), what, "use ddp, zero2, zero3, fsdp2 or their cpu/ variants"
    return config


def machines(launch: LaunchSpec) -> Found | None:
    """What is wrong with the machines of a stage, if anything."""
    if launch.num_processes % launch.num_machines:
        what = f"{launch.num_processes} processes cannot be shared by {launch.num_machines} machines"
        return ("launch", "num_processes"), what, f"use a multiple of {launch.num_machines}"
    return None


def _folder() -> Path:
    return shipped("recipes") / "accelerate"


def build(kind: str, launch: LaunchSpec, config: AccelerateConfig, stage_file: Path) -> Command:
    """`python -m accelerate.commands.launch ... -m llmkit.stages.<kind> stage.json`; one plain process starts without
    the launcher, which would import torch only to start it: seconds. (On Linux it is forked: `llmkit.stages.forks`.)

    With several machines the rank and the main machine's address come from MACHINE_RANK, MASTER_ADDR, MASTER_PORT.
    Port 0 lets accelerate take a free one.
    """
    worker, env = ["-m", f"llmkit.stages.{kind}", str(stage_file)], {**environment(launch, config), **launch.env}
    if config.plain:
        return Command((sys.executable, *worker), env, kind)
    argv = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(config.path)]
    argv += ["--num_processes", str(launch.num_processes), "--num_machines", str(launch.num_machines)]
    if launch.num_machines > 1:
        rank, address, port = (os.environ.get(name) or f"${name}" for name in MACHINE_VARIABLES)
        argv += ["--machine_rank", rank, "--main_process_ip", address, "--main_process_port", port]
        if config.zero_stage is not None:
            # else accelerate logs in to the other machines by pdsh
            argv += ["--deepspeed_multinode_launcher", "standard"]
    else:
        argv += ["--machine_rank", "0", "--main_process_port", "0"]
    return Command((*argv, *worker), env)


def environment(launch: LaunchSpec, config: AccelerateConfig) -> dict[str, str]:
    """What workers get besides the environment of `llmkit run`."""
    local = max(1, launch.num_processes // launch.num_machines)
    env = {
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(max(1, _cores() // local)),
    }
    if config.use_cpu:
        # not ACCELERATE_USE_CPU, which would turn DeepSpeed and FSDP into plain DDP
        env["CUDA_VISIBLE_DEVICES"] = ""
    if config.plain:
        # what the launcher sets, whatever is set outside
        env |= {"ACCELERATE_USE_CPU": str(config.use_cpu).lower(), "ACCELERATE_MIXED_PRECISION": "no"}
        env["ACCELERATE_DYNAMO_BACKEND"] = "no"
        if not config.use_cpu:
            # with more, Trainer would spread a batch over them by DataParallel
            env["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return env


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
