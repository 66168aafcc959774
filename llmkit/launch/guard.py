"""Runs one command and owns every process that comes of it: when it ends, all end.

    python -I -S guard.py GRACE COMMAND...

`llmkit run` holds the other end of this process's stdin. If that end closes (even by SIGKILL of `llmkit run`), or on
SIGTERM or SIGINT, all descendants get SIGTERM, and after GRACE seconds SIGKILL. A process group would not do:
torchrun starts its workers in sessions of their own. Only the standard library, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def main(grace: float, command: list[str]) -> int:
    """Exit code of the command."""
    adopt()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    # what it may inherit (a socket that it is told jobs by) was chosen by who started this
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    while child.poll() is None:
        ready, _, _ = select.select([0, wake], [], [], 1.0)
        signals = os.read(wake, 64) if wake in ready else b""
        if 0 in ready or signal.SIGTERM in signals or signal.SIGINT in signals:
            break
    end_all(grace if child.poll() is None else min(grace, 2.0))
    return exit_code(child.wait())


def exit_code(code: int) -> int:
    """As a shell has it: 128 + n if signal n ended the process."""
    return code if code >= 0 else 128 - code


def adopt() -> None:
    """Orphans below this process become its children, so that `descendants` finds them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_all(grace: float) -> None:
    """SIGTERM to every descendant, SIGKILL to those that remain after `grace` seconds."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        told: set[int] = set()
        while (alive := descendants(os.getpid())) and time.monotonic() < deadline:
            for pid in alive:
                if pid not in told:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            told |= set(alive)
            time.sleep(0.02)


def descendants(root: int) -> list[int]:
    """Process ids of living descendants."""
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _processes() -> list[tuple[int, int]]:
    """(process, parent) of every process that is not a zombie."""
    if sys.platform != "linux":
        lines = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in lines.splitlines()]
        return [(int(pid), int(parent)) for pid, parent, state in rows if not state.startswith("Z")]
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            # it may end between the listing and the reading
            with contextlib.suppress(OSError):
                # the command name, in brackets, may hold anything
                stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
                state, parent = stat.rpartition(")")[2].split()[:2]
                if state != "Z":
                    found.append((int(folder.name), int(parent)))
    return found


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
