"""Two machines, tried as two `llmkit run` on one: each starts one CPU process, and they meet over loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_parallel import losses, recipe, run

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TWO = {"num_processes": 2, "num_machines": 2}


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def start(path: Path, rank: int, port: str) -> subprocess.Popen[str]:
    env = {**os.environ, "MACHINE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    argv = [sys.executable, "-m", "llmkit.cli.main", "run", str(path)]
    return subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def both(path: Path) -> list[tuple[int, str]]:
    """Exit code and words of both machines. The second is there first."""
    port = free_port()
    machines = [start(path, rank, port) for rank in (1, 0)]
    said = [machine.communicate(timeout=3000)[0] for machine in machines]
    return [(machine.returncode, words) for machine, words in zip(machines, said, strict=True)]


@pytest.mark.parametrize("way", ["cpu/ddp", "cpu/zero3"])
def test_two_machines_train_as_one_does(way: str, tmp_path: Path, model_dir: Path, chats: Path) -> None:
    one = run(recipe(tmp_path, "one", model_dir, chats, trainer={"per_device_train_batch_size": 8}))
    path = recipe(tmp_path, "two", model_dir, chats, launch={"accelerate": way, **TWO})
    said = both(path)
    assert [code for code, _ in said] == [0, 0], said
    stage = path.with_suffix("") / "01-s"
    assert losses(stage) == pytest.approx(losses(one), rel=1e-3)
    assert "s: takes part" in said[0][1] and "step 12/12" not in (stage / "log-1.txt").read_text()
    told: dict[str, Any] = json.loads((stage / "manifest.json").read_text())
    assert told["world_size"] == 2
    again = both(path)
    assert [code for code, _ in again] == [0, 0], "what is finished is skipped on both"


def test_a_failure_on_the_main_machine_ends_the_other(tmp_path: Path, model_dir: Path, chats: Path) -> None:
    path = recipe(tmp_path, "bad", model_dir, chats, launch={"accelerate": "cpu/ddp", **TWO})
    chats.write_text("this is not JSON\n" * 30)
    said = both(path)
    assert all(code != 0 for code, _ in said), said
    assert not (path.with_suffix("") / "01-s" / "manifest.json").exists()
