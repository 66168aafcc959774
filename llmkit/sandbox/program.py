"""Runs one Python program that nobody has read in a process of its own that can do little (`llmkit.sandbox.box`).

What this is not: a security boundary like a virtual machine. It stops what models write by accident or to get a reward:
endless loops, fork bombs, floods of output, memory, files, signals to other processes, sockets, a look at the caller's
memory and environment. `isolation` says what of that the system allows: where it does not name `network` and
`processes` (for users other than root, Linux older than 5.13 without namespaces; other systems), a program that tries
can read and write the memory of every process of its user. It can read every file that its user can; without
namespaces it can also change times and modes of files, and without Landlock write them. From root it becomes nobody,
unless nobody can read Python itself. It holds nothing against an exploit of the kernel. Run code that someone means
harm with inside a virtual machine without a network. A program can start no threads or processes, and has Python's
standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile, mkdtemp
from typing import Any

from llmkit.errors import UserError

MAX_OUTPUT = 2**20
MAX_FILES, MAX_ENTRIES = 2**26, 2_000
"""Bytes and number of what a program may have in its folder."""
_LOOK_SECONDS = 0.25
BUSY = 4.0
"""Seconds on the clock per second of CPU time that a program may take."""
# Statuses of a program that went over its CPU time, as the box passes them on.
_LIMITS = (256 - signal.SIGXCPU, 256 - signal.SIGKILL)
_BOX = Path(__file__).with_name("box.py")


@dataclass(frozen=True)
class Ran:
    """A program that ended or was ended.

    Attributes:
        status: None: it had to be ended.
        cut: what it was cut off from.
        flooded: it was ended for what it printed or left in files, not for its time.
    """

    output: str
    status: int | None
    cut: tuple[str, ...]
    flooded: bool = False

    @property
    def timed_out(self) -> bool:
        return self.status is None


def isolation() -> tuple[str, ...]:
    """What a program is cut off from on this machine: some of `user`, `network`, `processes`, `files` (`box` says what
    each means). Found once, by running one."""
    return _isolation(sys.executable)


@lru_cache
def _isolation(python: str) -> tuple[str, ...]:
    return run({"code": ""}, "", timeout=5.0, memory=2**30).cut


def run(job: dict[str, Any], stdin: str, *, timeout: float, memory: int) -> Ran:
    """One program in a box. Whatever it does, it is over after `BUSY` times the time limit.

    Raises UserError where no box can be made: a program is not wrong for that.
    """
    limits = {"seconds": timeout, "clock": BUSY * timeout, "memory": memory}
    line = json.dumps({**job, **limits}).encode() + b"\n"
    with TemporaryFile() as file, TemporaryFile() as errors, _folder() as folder:
        file.write(line + stdin.encode("utf-8", "replace"))
        file.seek(0)
        argv = [sys.executable, "-I", "-S", "-X", "utf8", str(_BOX), folder]
        pipes: dict[str, Any] = {"stdin": file, "stdout": subprocess.PIPE, "stderr": errors}
        process = subprocess.Popen(argv, **pipes, env=_environment(), cwd=folder, start_new_session=True)
        data, ended, filled = _read(process, BUSY * timeout, folder)
        head, _, output = data.partition(b"\n")
        about = _about(head)
        status = _end(process, about.get("pid"), ended)
        if ended and not about:
            errors.seek(0)
            last = errors.read()[-300:].decode("utf-8", "replace").strip().splitlines()[-1:]
            raise UserError("sandbox", f"programs cannot be run here ({''.join(last)})", "leave out what runs them")
    return Ran(output.decode("utf-8", "replace"), status, tuple(about.get("cut", ())), filled or len(data) > MAX_OUTPUT)


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder that goes again. A program may leave folders in folders, deeper than any path may be long: such are
    removed level by level from within, and nothing that it leaves stops the caller."""
    folder = mkdtemp(prefix="llmkit-")
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError, RecursionError):
            _flatten(folder)
        with contextlib.suppress(OSError, RecursionError):
            shutil.rmtree(folder, ignore_errors=True)


def _flatten(folder: str) -> None:
    """Puts every folder within beside the others, so that none is deep."""
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        todo = [entry.name for entry in os.scandir(top) if entry.is_dir(follow_symlinks=False)]
        unused, number = token_hex(8), 0
        while todo:
            name = todo.pop()
            with contextlib.suppress(OSError):
                os.chmod(name, 0o700, dir_fd=top)
            own = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                for entry in os.scandir(own):
                    if entry.is_dir(follow_symlinks=False):
                        number += 1
                        os.rename(entry.name, f"{unused}-{number}", src_dir_fd=own, dst_dir_fd=top)
                        todo.append(f"{unused}-{number}")
            finally:
                os.close(own)
    finally:
        os.close(top)


def _environment() -> dict[str, str]:
    """Nothing but where the libraries of Python itself lie."""
    names = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {name: os.environ[name] for name in names if name in os.environ}


def _read(process: subprocess.Popen[bytes], seconds: float, folder: str) -> tuple[bytes, bool, bool]:
    """What the box writes, at most 1 MiB; whether it came to an end within the time; whether it filled its folder."""
    assert process.stdout is not None
    end, data, looked = time.monotonic() + seconds, b"", time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(data) <= MAX_OUTPUT and (left := end - time.monotonic()) > 0:  # also where there is always more
            if selector.select(min(left, _LOOK_SECONDS)):
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    return data, True, False
                data += chunk
            if time.monotonic() - looked > _LOOK_SECONDS:
                if _is_filled(folder):
                    return data, False, True
                looked = time.monotonic()
    return data, False, False


def _is_filled(folder: str) -> bool:
    """Whether there is more in it than a program may leave: no limit of the system counts files. Where the program has
    a file system of its own it is empty."""
    num, size, todo = 0, 0, [folder]
    while todo:
        with contextlib.suppress(OSError):
            for entry in os.scandir(todo.pop()):
                num, size = num + 1, size + entry.stat(follow_symlinks=False).st_size
                if num > MAX_ENTRIES or size > MAX_FILES:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
    return False


def _end(process: subprocess.Popen[bytes], program: int | None, ended: bool) -> int | None:
    """Ends what is left of a run. Its status; None where it had to be ended."""
    assert process.stdout is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0 if ended else 0.0)
    alive = process.poll() is None
    if alive and program is not None:  # before its parent, which could not tell us any more that it lives
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(program, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if alive:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return None if alive or process.returncode in _LIMITS or process.returncode < 0 else process.returncode


def _about(line: bytes) -> dict[str, Any]:
    """The box's first line, written before the program starts; empty where the box itself did not get so far."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
