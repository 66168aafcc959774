"""The command that starts workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from llmkit.artifacts.shipped import shipped
from llmkit.plan.command import AccelerateConfig, Command, accelerate_config, build
from llmkit.recipe.parts import LaunchSpec


def command(**launch: Any) -> Command:
    spec = LaunchSpec(**launch)
    config = accelerate_config(spec)
    assert isinstance(config, AccelerateConfig), config
    return build("sft", spec, config, Path("/runs/demo/01-sft/stage.json"))


def test_one_plain_process_starts_without_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = command(env={"NEW": "1"})
    assert made.argv == (sys.executable, "-m", "llmkit.stages.sft", "/runs/demo/01-sft/stage.json")
    assert made.env["HF_HUB_DISABLE_TELEMETRY"] == made.env["PYTHONUNBUFFERED"] == made.env["NEW"] == "1"
    assert made.env["ACCELERATE_USE_CPU"] == "false" and made.env["ACCELERATE_MIXED_PRECISION"] == "no"
    assert made.env["CUDA_VISIBLE_DEVICES"] == "0", "Trainer would spread its batch over all of them"
    assert command(accelerate="cpu/single").env["ACCELERATE_USE_CPU"] == "true"


@pytest.mark.parametrize(("outside", "inside"), [("3,4", "3"), ("", ""), ("GPU-8932f937", "GPU-8932f937")])
def test_one_process_takes_the_first_gpu(monkeypatch: pytest.MonkeyPatch, outside: str, inside: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", outside)
    assert command().env["CUDA_VISIBLE_DEVICES"] == inside
    assert command(accelerate="cpu/single").env["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in command(accelerate="ddp", num_processes=2).env


def test_what_the_launcher_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A plain process gets by hand what Accelerate's launcher would give it."""
    from accelerate.commands import launch

    config = shipped("recipes") / "accelerate" / "cpu" / "single.yaml"
    args = launch.launch_command_parser().parse_args(["--config_file", str(config), "-m", "llmkit.stages.sft"])
    monkeypatch.setattr(os, "environ", {})
    _, env = launch.prepare_simple_launcher_cmd_env(launch._validate_launch_command(args)[0])
    given = {name: value.lower() for name, value in env.items() if name.startswith("ACCELERATE_")}
    ours = command(accelerate="cpu/single").env
    same = [name for name in given if name in ours]
    assert len(same) == 3 and all(given[name] == ours[name] for name in same)
    rest = {name: value for name, value in given.items() if name not in ours}
    assert set(rest.values()) == {"default", "false"}, "and the rest says nothing"


def test_one_process_with_settings_takes_the_launcher(tmp_path: Path) -> None:
    config = tmp_path / "half.yaml"
    config.write_text("distributed_type: 'NO'\nmixed_precision: bf16\n")
    assert command(accelerate=str(config)).argv == (
        *(sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(config)),
        *("--num_processes", "1", "--num_machines", "1", "--machine_rank", "0", "--main_process_port", "0"),
        *("-m", "llmkit.stages.sft", "/runs/demo/01-sft/stage.json"),
    )


def test_cpu_configs_reach_every_process() -> None:
    made = command(accelerate="cpu/ddp", num_processes=2)
    assert made.env["CUDA_VISIBLE_DEVICES"] == ""
    assert "ACCELERATE_USE_CPU" not in made.env, "it would turn DeepSpeed and FSDP into plain DDP"
    assert made.env["TOKENIZERS_PARALLELISM"] == "false"


def test_threads_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert command().env["OMP_NUM_THREADS"] == "8"
    assert command(accelerate="cpu/ddp", num_processes=4).env["OMP_NUM_THREADS"] == "2"
    assert command(accelerate="cpu/ddp", num_processes=4, num_machines=2).env["OMP_NUM_THREADS"] == "4"
    assert command(accelerate="cpu/ddp", num_processes=16).env["OMP_NUM_THREADS"] == "1"


def test_the_recipe_has_the_last_word_on_the_environment() -> None:
    assert command(env={"OMP_NUM_THREADS": "3", "NEW": "1"}).env["OMP_NUM_THREADS"] == "3"


def test_several_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MACHINE_RANK", "1"), ("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "29400")):
        monkeypatch.setenv(name, value)
    text = str(command(accelerate="ddp", num_processes=4, num_machines=2))
    assert (
        "--num_processes 4 --num_machines 2 --machine_rank 1 --main_process_ip 10.0.0.1 --main_process_port 29400"
        in text
    )
    assert "--deepspeed_multinode_launcher" not in text
    zero3 = str(command(accelerate="zero3", num_processes=4, num_machines=2))
    assert "--deepspeed_multinode_launcher standard" in zero3, "without pdsh"


@pytest.mark.parametrize("name", ["single", "ddp", "zero2", "zero3", "fsdp2"])
def test_shipped_configs(name: str) -> None:
    for path, use_cpu in ((name, False), (f"cpu/{name}", True)):
        config = accelerate_config(LaunchSpec(accelerate=path, num_processes=1 if name == "single" else 2))
        assert isinstance(config, AccelerateConfig), config
        assert config.use_cpu is use_cpu
        assert config.shards_weights is (name in ("zero3", "fsdp2"))
        assert config.shards_optimizer is (name in ("zero2", "zero3", "fsdp2"))
