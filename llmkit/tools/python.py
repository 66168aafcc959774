"""Python as a tool: a program that nobody has read runs in an interpreter of its own and gives back what it printed.

`monty` (pydantic-monty): an interpreter in Rust, in worker processes. It has no way to files, environment, network or
processes: there is nothing in it that could ask the system for them. A worker that crashes is replaced.

`subprocess`: Python itself in a process that is cut off by the system (`llmkit.sandbox.program` says from what).

Every call begins anew: no names, files or modules are left from the call before. As in an interactive interpreter, the
value of a last line that is an expression is printed.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import threading
import weakref
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pydantic_monty

from llmkit.chat.schemas import python_schema
from llmkit.errors import UserError
from llmkit.recipe.tools import PythonSpec
from llmkit.sandbox.program import isolation
from llmkit.sandbox.program import run as run_program
from llmkit.tools.shown import shown
from llmkit.tools.tool import NUM_THREADS, CallFailed, Tool, shortened, waiting

MAX_CODE = 2**16
MAX_RECURSION = 400
GRACE = 0.1
"""Seconds behind its time limit after which a worker of monty's that has not stopped is ended: one long operation, such
as a power of large numbers, is not interrupted from within."""
# a number by which the error of this limit and that of the memory can be told apart
_MAX_OUTPUT = 2**18 + 13
# of its heap, or of one allocation that its heap knows nothing of
_TOO_LARGE = ("MemoryError: memory limit", "MemoryError: the worker exceeded its memory limit")
_FLOODED = "the program printed or wrote too much"
_ERROR = 500
_NOTHING = "(no output: print what you want to see)"


def python_tool(spec: PythonSpec) -> Tool:
    """The tool `python(code)`. Raises UserError where a process is wanted and the system cannot cut it off."""
    pool = _Pool()
    if spec.interpreter == "subprocess":
        _refuse_open_processes(spec)

    def call(arguments: dict[str, Any]) -> str:
        code = arguments["code"]
        if len(code) > MAX_CODE:
            raise CallFailed(f"the program is longer than {MAX_CODE} characters")
        code = code.encode("utf-8", "replace").decode("utf-8")
        return _in_monty(pool, code, spec) if spec.interpreter == "monty" else _in_process(code, spec)

    return Tool("python", python_schema(), call, spec.max_chars + 2 * _ERROR, pool.close)


def _refuse_open_processes(spec: PythonSpec) -> None:
    missing = [name for name in ("network", "processes") if name not in isolation()]
    if missing and not spec.unconfined:
        what = f"this system cannot cut a process off from {' and '.join(missing)}"
        cure = "set interpreter: monty, or unconfined: true where the model's programs may do what you may"
        raise UserError("tools: python", what, cure)


# pydantic-monty -------------------------------------------------------------------------------------------------------


class _Pool:
    """The worker processes of one tool, started when they are first needed. A fork cannot have any once its parent
    has: the library's threads do not survive it, and a call would wait for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: pydantic_monty.Monty | None = None
        self._owner = 0
        self._is_closed = False

    def get(self) -> pydantic_monty.Monty:
        self._owner = self._owner or os.getpid()
        if self._owner != os.getpid():  # before the lock, which a thread of the parent may have held
            raise CallFailed("python was used before this process was forked, and cannot be used in the fork")
        with self._lock:
            if self._is_closed:
                raise CallFailed("python has ended")
            if self._pool is None:
                folder = Path(mkdtemp(prefix="llmkit-"))
                pool = pydantic_monty.Monty(
                    binary_path=_quiet(folder),
                    max_processes=min(NUM_THREADS, _num_cores()),
                    feed_duration_limit_grace=GRACE,
                )
                self._end = weakref.finalize(self, _end, pool, self._owner, folder)
                self._pool, self._folder = pool.__enter__(), folder
            if not self._folder.is_dir():  # somebody has tidied up, and workers are started from it
                self._folder.mkdir(mode=0o700)
                _quiet(self._folder)
            return self._pool

    def close(self) -> None:
        if self._owner in (0, os.getpid()):
            with self._lock:
                self._is_closed = True
                if self._pool is not None:
                    self._end()


def _end(pool: pydantic_monty.Monty, owner: int, folder: Path) -> None:
    if os.getpid() == owner:
        pool.__exit__(None, None, None)
        shutil.rmtree(folder, ignore_errors=True)


def _quiet(folder: Path) -> Path | None:
    """The worker's program without its stderr, where it says a second time what it has told us; None where no script
    of ours can be run, or this release of monty does not say where its program is."""
    try:
        from pydantic_monty._binary import find_monty_binary  # private: another release may have moved it
    except ImportError:
        return None
    script = folder / "monty"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(find_monty_binary())} "$@" 2>/dev/null\n')
    script.chmod(0o700)
    return script if os.name == "posix" and os.access(script, os.X_OK) else None


def _num_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_monty(pool: _Pool, code: str, spec: PythonSpec) -> str:
    limits: pydantic_monty.ResourceLimits = {
        "max_feed_duration_secs": spec.timeout,
        "max_memory": spec.memory_mb * 2**20,
        "max_recursion_depth": MAX_RECURSION,
    }
    # sleeping passes no time, and what is drawn is the same in every run
    policy: pydantic_monty.OSPolicy = {"sleep": "zero", "random_start": {"seed": 0}}
    printed = pydantic_monty.CollectString(max_bytes=_MAX_OUTPUT)
    error = ""
    try:
        with ExitStack() as stack:
            with waiting():
                session = stack.enter_context(pool.get().checkout(limits=limits, os_policy=policy))
            session.feed_run(shown(code), print_callback=printed)
    except pydantic_monty.MontyCrashedError as failed:
        error = _late(spec) if failed.timed_out else "the interpreter ended: the program asked too much of it"
    except (pydantic_monty.MontyRuntimeError, pydantic_monty.MontySyntaxError) as failed:
        error = _said(failed, spec)
    return _answer(printed.output, error, spec)


def _late(spec: PythonSpec) -> str:
    return f"TimeoutError: the program ran longer than {spec.timeout:g} seconds"


def _said(failed: pydantic_monty.MontyRuntimeError | pydantic_monty.MontySyntaxError, spec: PythonSpec) -> str:
    """Kind, text and line of an error; of limits the same words in every run."""
    text, frames = failed.display("type-msg"), failed.traceback()
    if text.startswith("TimeoutError: feed time limit"):
        return _late(spec)
    if text.startswith(_TOO_LARGE) and f"> {_MAX_OUTPUT} bytes" in text:
        return _FLOODED
    if text.startswith(_TOO_LARGE):
        text = f"MemoryError: the program needs more than {spec.memory_mb} MiB"
    own = [frame.line for frame in frames if frame.line]
    return f"{text} (line {own[-1]})" if own else text


def _answer(output: str, error: str, spec: PythonSpec) -> str:
    """What was printed, and the error behind it, which is never what is cut off."""
    text = shortened(output.rstrip("\n"), spec.max_chars)
    if error:
        error = shortened(error, _ERROR)
        raise CallFailed(f"{text}\n{error}" if text else error)
    return text or _NOTHING


# A process ------------------------------------------------------------------------------------------------------------

_DRIVER = """
import json, os, sys, traceback
def run():
    try:
        exec(compile({source!r}, "<program>", "exec"), {{"__name__": "__main__"}})
    except SystemExit as left:
        told = left.code if isinstance(left.code, str) else f"the program ended with status {{left.code}}"
        return told if left.code else ""
    except BaseException as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<program>"]
        if isinstance(error, SyntaxError) and error.filename == "<program>":
            lines, error = [error.lineno], type(error)(error.msg)
        where = f" (line {{lines[-1]}})" if lines else ""
        return "".join(traceback.format_exception_only(error)).strip() + where
    return ""
out = sys.stdout
out.reconfigure(line_buffering=True)
said = run()
out.flush()
os.write(1, ({mark!r} + json.dumps(said[:10000])).encode())
"""


def _in_process(code: str, spec: PythonSpec) -> str:
    mark = secrets.token_hex(16)
    driver = _DRIVER.format(source=shown(code), mark=mark)
    ran = run_program({"code": driver}, "", timeout=spec.timeout, memory=spec.memory_mb * 2**20)
    output, ended, said = ran.output.rpartition(mark)
    if ended:
        return _answer(output, _told(said), spec)
    error = _FLOODED if ran.flooded else _late(spec)
    return _answer(ran.output, error if ran.timed_out else f"the program ended with status {ran.status}", spec)


def _told(said: str) -> str:
    """The error that the driver wrote; a program can only spoil its own."""
    try:
        return str(json.loads(said))
    except ValueError:
        return "the program's error cannot be read"
