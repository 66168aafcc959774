"""The helper process: it answers, it ends what hangs, crashes or swallows memory, and it ends with its caller."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmkit.errors import UserError
from llmkit.sandbox.child import Child, ChildFailed

MODULE = """
import os, sys, time, signal
calls = []
def work(what, value=None):
    calls.append(what)
    if what == "echo": return value
    if what == "calls": return len(calls)
    if what == "pid": return os.getpid()
    if what == "loop":
        while True: pass
    if what == "pow": return len(str(10 ** (10 ** 9)))
    if what == "sleep": time.sleep(1000)
    if what == "memory": return len(bytearray(value))
    if what == "crash": os.abort()
    if what == "leave": sys.exit(0)
    if what == "print":
        print("{}" * 1000, flush=True); os.write(1, b'{"result": 1}\\n'); return 2
    if what == "raise": raise BaseException("no Exception")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "in_helper.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "in_helper:work"


@pytest.fixture
def child(module: str) -> Iterator[Child]:
    child = Child(module, timeout=0.3, memory=2**29)
    yield child
    child.close()


def reason(child: Child, *args: Any) -> str:
    with pytest.raises(ChildFailed) as caught:
        child.call(*args)
    return caught.value.reason


def test_it_answers_what_json_can_say(child: Child) -> None:
    for value in (1, None, [1.5, "a\nb\x00\ud800"], {"a": True}, "x" * 10**6):
        assert child.call("echo", value) == value
    assert child.call("print") == 2, "what a library prints is no answer"


def test_it_goes_on_after_whatever_goes_wrong(child: Child) -> None:
    first = child.call("pid")
    assert reason(child, "loop") == "time"
    assert child.call("echo", 1) == 1 and child.call("pid") != first
    start = time.monotonic()
    assert reason(child, "sleep") == "time" and time.monotonic() - start < 20, "not only when the caller gives up"
    assert reason(child, "pow") == "time", "one long call in C"
    assert reason(child, "memory", 2**31) == "memory"
    assert reason(child, "raise") == "error"
    assert reason(child, "leave") == "error"
    assert child.call("calls") > 0
    assert reason(child, "crash") == "died"
    assert child.call("echo", 2) == 2


def test_calls_before_the_limit_warm_every_fork(module: str) -> None:
    child = Child(module, timeout=0.3, warm=[("echo", 1), ("echo", 2)])
    assert child.call("calls") == 3
    assert reason(child, "loop") == "time"
    assert child.call("calls") == 3, "the next fork starts from the warm helper"
    child.close()


def test_a_helper_that_cannot_start_says_why(module: str) -> None:
    with pytest.raises(UserError, match="ModuleNotFoundError: No module named 'no_such_module'"):
        Child("no_such_module:f", timeout=1).call()
    with pytest.raises(UserError, match="AttributeError"):
        Child("in_helper:absent", timeout=1).call()


def test_no_helper_outlives_its_caller(module: str, tmp_path: Path) -> None:
    """Also not when the caller is killed while the helper hangs."""
    script = (
        "import sys, threading, time, os\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from llmkit.sandbox.child import Child\n"
        f"child = Child({module!r}, timeout=0.5)\n"
        "print(child.call('pid'), flush=True)\n"
        "threading.Thread(target=child.call, args=('sleep',), daemon=True).start()\n"
        "time.sleep(1000)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    fork = psutil.Process(int(caller.stdout.readline()))
    helper = fork.parent()
    assert helper is not None
    time.sleep(0.2)
    caller.kill()
    caller.wait()
    _, alive = psutil.wait_procs([fork, helper], timeout=60)
    assert not alive, alive
    caller.stdout.close()


def test_a_helper_that_somebody_killed_leaves_nothing_open(child: Child) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    fork = psutil.Process(child.call("pid"))
    before = open_files()
    for _ in range(3):
        helper = fork.parent()
        assert helper is not None
        helper.kill()
        psutil.wait_procs([helper], timeout=30)
        fork = psutil.Process(child.call("pid"))
    assert open_files() == before


def test_it_ends_when_nobody_holds_it(module: str) -> None:
    child = Child(module, timeout=1)
    helper = psutil.Process(child.call("pid")).parent()
    assert helper is not None
    del child
    psutil.wait_procs([helper], timeout=30)
    assert not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE
