"""Workers of single-process steps as forks of one process: what it answers, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from llmkit.launch.worker import Workers
from llmkit.plan.command import Command
from llmkit.stages import forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker is started by itself")


def leave_a_process_behind() -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)


def turn(device: str) -> None:
    print("on", device, sys.argv, os.getpid())


KINDS: dict[str, Callable[[], Any]] = {
    "prints": lambda: turn("cpu"),
    "refuses": lambda: os._exit(2),
    "exits": lambda: sys.exit(3),
    "raises": lambda: 1 / 0,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "leaves": leave_a_process_behind,
}


class Desk:
    """The launcher's end."""

    def __init__(self, folder: Path, end: socket.socket, pid: int) -> None:
        self.log, self.socket, self.pid = folder / "log.txt", end, pid

    def ask(self, kind: str) -> int:
        self.socket.sendall(json.dumps({"kind": kind, "file": "stage.json", "log": str(self.log)}).encode() + b"\n")
        return int(json.loads(self.socket.recv(4096))["code"])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        for kind, run in KINDS.items():
            sys.modules[f"llmkit.stages.{kind}"] = SimpleNamespace(__name__=kind, run=run)  # type: ignore[assignment]
        forks.work = lambda _kind, run: run()  # type: ignore[assignment]
        code = 0
        try:
            forks.main([str(theirs.detach())])
        except SystemExit as ended:
            code = int(ended.code or 0)
        except ZeroDivisionError:
            code = 1
        sys.stdout.flush()
        os._exit(code)
    theirs.close()
    with ours:
        yield Desk(tmp_path, ours, pid)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("kind", "code"), [("prints", 0), ("refuses", 2), ("exits", 3), ("raises", 1), ("killed", 137), ("leaves", 0)]
)
def test_how_a_worker_ended_is_told_and_the_next_one_starts(desk: Desk, kind: str, code: int) -> None:
    assert desk.ask(kind) == code
    assert desk.ask("prints") == 0


def test_each_worker_is_a_process_of_its_own_and_prints_to_its_log(desk: Desk) -> None:
    desk.ask("prints")
    desk.log = desk.log.with_name("second.txt")
    desk.ask("prints")
    first, second = (desk.log.with_name(name).read_text().split() for name in ("log.txt", "second.txt"))
    assert first[:-1] == second[:-1] == ["on", "cpu", "['prints',", "'stage.json']"]
    assert len({first[-1], second[-1], str(desk.pid)}) == 3


def test_what_a_worker_leaves_behind_is_ended(desk: Desk) -> None:
    desk.ask("leaves")
    assert not psutil.Process(desk.pid).children(recursive=True)


def test_nothing_is_forked_where_there_is_an_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    monkeypatch.setattr(forks, "adopt", lambda: None)  # orphans of other tests are not this process's
    monkeypatch.setattr(forks, "print_to", lambda log: None)
    monkeypatch.setattr(forks, "work", lambda kind, run: done.append(kind))
    monkeypatch.setitem(sys.modules, "llmkit.stages.fake", SimpleNamespace(__name__="fake", run=None))
    monkeypatch.setattr(sys, "argv", sys.argv)
    done: list[str] = []
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b'{"kind": "fake", "file": "stage.json", "log": "log"}\n' * 2)
        forks.main([str(theirs.detach())])
    assert done == ["fake"]


def test_two_processes_are_kept_each_for_steps_of_one_environment(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"

    def begin(env: dict[str, str]) -> int:
        command = Command((sys.executable, "-m", "llmkit.stages.nothing", "stage.json"), env, "nothing")
        with log.open("ab") as output, workers._started(command, log, output) as job:
            return job.process.pid

    with Workers() as workers:
        pids = [begin(env) for env in ({}, {"A": "1"}, {}, {"A": "1"})]
        assert pids[0] == pids[2] != pids[1] == pids[3]
        pids.append(begin({"A": "2"}))
        assert not any(psutil.pid_exists(pid) for pid in pids[:4])
        os.kill(pids[-1], signal.SIGTERM)
        while workers._waiting[0][0].process.poll() is None:
            time.sleep(0.05)
        assert begin({"A": "2"}) != pids[-1]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_process_that_cannot_start_ends_the_step(tmp_path: Path) -> None:
    command = Command((sys.executable, "-m", "llmkit.stages.nothing", "stage.json"), {}, "nothing")
    log = tmp_path / "log.txt"
    with Workers() as workers, log.open("ab") as output, workers._started(command, log, output) as job:
        while (code := job.poll()) is None:
            time.sleep(0.05)
    assert code == 1
    assert "No module named 'llmkit.stages.nothing'" in log.read_text()
