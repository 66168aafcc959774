"""Runs the workers of single-process steps, one after the other, each as a fork of this process, which has imported
what they need: that takes as long as many a step of a small model.

    python -m llmkit.stages.forks SOCKET

Reads a line {"kind", "file", "log"} per step from the socket, and answers {"code"} when its worker has ended. Where
there is an accelerator, whose driver would not survive a fork, the first step is done in this process, which ends.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch

from llmkit.launch.guard import adopt, end_all, exit_code
from llmkit.stages.common import main as work

GRACE = 2.0
"""Seconds that what a worker has left behind gets to end."""


def main(argv: list[str]) -> None:
    adopt()
    jobs = socket.socket(fileno=int(argv[0]))
    for line in jobs.makefile(encoding="utf-8"):
        job = json.loads(line)
        print_to(Path(job["log"]))
        module = import_module(f"llmkit.stages.{job['kind']}")
        gc.freeze()
        pid = 0 if torch.accelerator.is_available() else os.fork()
        if not pid:
            jobs.close()
            sys.argv = [module.__name__, job["file"]]
            return work(job["kind"], module.run)
        _, status = os.waitpid(pid, 0)
        end_all(GRACE)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        code = exit_code(os.waitstatus_to_exitcode(status))
        jobs.sendall(json.dumps({"code": code}).encode() + b"\n")
    return None


def print_to(log: Path) -> None:
    """What this process and its children print goes to the end of a file."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(file, stream)
    os.close(file)


if __name__ == "__main__":
    main(sys.argv[1:])
