"""The shipped Accelerate configs start as many processes as were asked for, with this stack, on the CPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from llmkit.plan.command import AccelerateConfig, accelerate_config, build
from llmkit.recipe.parts import LaunchSpec

SCRIPT = """\
import os
from pathlib import Path
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from transformers import Trainer, TrainingArguments

args = TrainingArguments(output_dir="out", use_cpu=True, gradient_accumulation_steps=2)
if args.world_size > 1 and os.environ.get("ACCELERATE_USE_FSDP") == "true":
    # accelerate 1.15 turns FSDP on for MULTI_GPU alone, and otherwise runs plain DDP without a word
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
accelerator = Trainer(model=torch.nn.Linear(2, 2), args=args).accelerator
backend = torch.distributed.get_backend() if torch.distributed.is_initialized() else "none"
words = f"{accelerator.num_processes} {accelerator.distributed_type.value} {backend}"
Path(f"world-{accelerator.process_index}").write_text(words)
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cpu/single", "1 NO none"),
        ("cpu/ddp", "2 MULTI_CPU gloo"),
        pytest.param("cpu/fsdp2", "2 FSDP gloo", marks=pytest.mark.slow),
        # the first start of DeepSpeed compiles an operator, about 35 s
        pytest.param("cpu/zero2", "2 DEEPSPEED gloo", marks=pytest.mark.slow),
        pytest.param("cpu/zero3", "2 DEEPSPEED gloo", marks=pytest.mark.slow),
    ],
)
def test_processes_start(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "world.py").write_text(SCRIPT)
    num_processes = int(expected[0])
    spec = LaunchSpec(accelerate=name, num_processes=num_processes)
    config = accelerate_config(spec)
    assert isinstance(config, AccelerateConfig), config
    command = build("sft", spec, config, tmp_path / "stage.json")
    module = len(command.argv) - 3
    assert command.argv[module] == "-m"
    argv = [*command.argv[:module], "world.py"]
    env = {**os.environ, **command.env}
    result = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=280)
    assert result.returncode == 0, result.stderr[-2000:]
    found = [path.read_text() for path in sorted(tmp_path.glob("world-*"))]
    assert found == [expected] * num_processes
