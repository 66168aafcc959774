"""Runs one program that nobody has read, in a process that can do little: started as a script by
`llmkit.sandbox.program`, never imported by it, on the standard library alone.

    python -I -S box.py FOLDER < job       job: one line of JSON, then what the program reads as its input

The first line that it writes is JSON: `cut`, what the program is cut off from, and `pid`, the program's process. After
that comes what the program prints (a job without `steps`), or one line `token place value` per step that worked.
A step is evaluated here and compared elsewhere: the values that are expected never enter this process.

What is cut off, each where the system allows it; `walls.py` does it:
    user       from a root user: the program runs as nobody
    network    a network of its own with nothing in it, and no sockets
    processes  it starts and signals no other process, and reaches none's memory, environment or limits; where there is
               the filter below it also shares no memory, queues or keys, and makes no files in memory
    files      all is read-only but FOLDER, which is memory and goes with it
Namespaces do that on Linux, for users that may make them. Elsewhere on Linux (x86-64 and arm64) a filter of system
calls does `network` and `processes`, with the help of Landlock or of the other user: it sees no paths, and without
these a program could write the memory of every process of its user through /proc. Landlock also keeps it from writing
outside of FOLDER, but not from changing a file's times or mode, so that `files` is not said. On any system: address
space, CPU seconds, size of files, and for all users but root the number of processes are limited, and the
environment is empty.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
from walls import Walls, confine, isolate  # type: ignore[import-not-found]

del sys.path[0]
GRACE_SECONDS = 1.0


def main() -> None:
    folder = sys.argv[1]
    line = _first_line()
    os.lseek(0, len(line), os.SEEK_SET)
    job = json.loads(line)
    walls = isolate(folder, job.get("namespaces", True))
    gate, opener = os.pipe()
    ready, say = os.pipe()
    program = os.fork()
    if program == 0:
        os.close(opener)
        os.close(ready)
        _run(job, folder, walls, gate, say)
    os.close(say)
    if not os.read(ready, 1):  # it could not be confined: why stands in its last words
        os._exit(1)
    _end_in(job["clock"] + GRACE_SECONDS, program)
    os.write(1, json.dumps({"cut": walls.cut, "pid": program}).encode() + b"\n")
    os.write(opener, b"\n")
    status = os.waitpid(program, 0)[1]
    os._exit(os.waitstatus_to_exitcode(status) % 256)


def _end_in(seconds: float, program: int) -> None:
    """Ends the program if nobody else does: who started it may be gone."""

    def end(*_: Any) -> None:
        os.kill(program, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _first_line() -> bytes:
    data = b""
    while chunk := os.read(0, 1 << 16):
        data += chunk
        if b"\n" in chunk:
            break
    return data[: data.index(b"\n") + 1]


# The program ----------------------------------------------------------------------------------------------------------


def _run(job: dict[str, Any], folder: str, walls: Walls, gate: int, say: int) -> None:
    report, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    with contextlib.suppress(OSError):
        os.chdir(folder)
    confine(job, folder, walls)
    os.write(say, b"\n")
    os.close(say)
    os.read(gate, 1)
    os.close(gate)
    os.dup2(nowhere, 2)
    if job.get("steps") is not None:
        os.dup2(nowhere, 0)
        os.dup2(nowhere, 1)
    else:
        os.close(report)
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # what `site` would have given
    code = 1
    try:
        code = _program(job["code"]) if job.get("steps") is None else _steps(job, report)
    finally:
        os._exit(code)


def _program(source: str) -> int:
    """Runs it as a script; the status that it would leave with."""
    code = 1
    try:
        exec(compile(source, "<answer>", "exec"), {"__name__": "__main__", "__builtins__": builtins})
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        code = 1
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    return code % 256


def _steps(job: dict[str, Any], report: int) -> int:
    """Runs the code, then the steps: `[kind, source]`, kind `run` or `setup` (a statement), `value` or `truth`."""
    token, steps, write = job.pop("token"), job.pop("steps"), os.write
    names: dict[str, Any] = {"__name__": "answer", "__builtins__": builtins}
    exec(compile(job["code"], "<answer>", "exec"), names)
    for place, (kind, source) in enumerate(steps):
        try:
            if kind in ("run", "setup"):
                exec(compile(source, "<test>", "exec"), names)
                value = "True"
            else:
                found = eval(compile(source, "<test>", "eval"), names)
                value = ascii(_plain(bool(found) if kind == "truth" else found))
        except BaseException:
            continue
        if kind != "setup":
            write(report, f"{token} {place} {value}\n".encode())
    return 0


def _plain(value: Any) -> Any:
    """The value in Python's own types, whatever a class of the program says of itself. Raises TypeError for others."""
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    for kind, copy in _COPIES:
        if isinstance(value, kind):
            return copy(value)
    raise TypeError("no plain value")


_COPIES: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (bool, bool),
    (int, lambda value: int.__add__(value, 0)),
    (float, lambda value: float.__add__(value, 0.0)),
    (str, lambda value: str.__str__(value)),
    (list, lambda value: [_plain(each) for each in list.__iter__(value)]),
    (tuple, lambda value: tuple([_plain(each) for each in tuple.__iter__(value)])),
    (set, lambda value: {_plain(each) for each in set.__iter__(value)}),
    (frozenset, lambda value: {_plain(each) for each in frozenset.__iter__(value)}),
    (dict, lambda value: {_plain(key): _plain(each) for key, each in dict.items(value)}),
)


if __name__ == "__main__":
    main()
