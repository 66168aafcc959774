"""One helper process for work that may hang, swallow memory or crash.

The helper imports a function once and forks; the fork answers one request at a time, each a line of JSON. Its own
timers (default action of their signals, which no Python code and no long C call can hold up) end it when a request
takes too long, and the helper forks again: that costs milliseconds, where a new interpreter that imports sympy costs
seconds. The limit is on CPU time, so that a busy machine makes no answer wrong, and `BUSY` times that on the clock. The
helper is a process of its own and not a fork of the caller, whose threads and CUDA context do not survive that. It ends
by itself when the caller does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from io import BufferedReader, RawIOBase
from typing import Any

from llmkit.errors import UserError

GIGABYTE = 2**30
START_SECONDS = 300.0
GRACE_SECONDS = 30.0
"""How much longer than the time limit is waited for word of the helper, whose machine may be busy."""
BUSY = 4.0
"""Seconds on the clock per second of CPU time that a call may take."""
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from llmkit.sandbox.child import _main; _main()"


class ChildFailed(Exception):
    """A request has no answer. `reason` is `time`, `memory`, `error` (the function raised) or `died`."""

    def __init__(self, reason: str, text: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}: {text}" if text else reason)


class Child:
    """Calls one function in a helper process.

    Args:
        target: `package.module:function`; its arguments and its result are JSON.
        timeout: seconds of CPU time that one call may take.
        memory: bytes of address space that the helper may have.
        warm: arguments of calls that are made before any limit counts, for what first calls import and build.
    """

    def __init__(
        self, target: str, *, timeout: float, memory: int = 2 * GIGABYTE, warm: Sequence[Sequence[Any]] = ()
    ) -> None:
        self._job = {"target": target, "timeout": timeout, "memory": memory, "warm": warm}
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._lines = b""
        self._lock = threading.Lock()
        self._owner = 0

    def start(self) -> None:
        """Starts the helper unless it runs. Raises UserError if it cannot be started or the import fails."""
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return
        self.close()
        argv = [sys.executable, "-c", _START, json.dumps(sys.path), json.dumps(self._job)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(argv, **pipes, bufsize=0, start_new_session=True)
        self._owner, self._lines = os.getpid(), b""
        self._finalizer = weakref.finalize(self, _end, self._process, self._owner)
        try:
            found = self._read(START_SECONDS)
        except ChildFailed as failed:
            found = {"failed": failed.reason, "text": "no word of it"}
        if "ready" not in found:
            self.close()
            what = f"the helper process did not start ({found.get('failed')}: {found.get('text')})"
            raise UserError(str(self._job["target"]), what, "see whether this module imports in a new interpreter")

    def call(self, *args: Any) -> Any:
        """The function's result. Raises ChildFailed where there is none, UserError where no helper can be started."""
        with self._lock:
            self.start()
            assert self._process is not None and self._process.stdin is not None
            try:
                _write_all(self._process.stdin.fileno(), json.dumps(args).encode() + b"\n")
                found = self._read(BUSY * self._timeout + GRACE_SECONDS)
            except (ChildFailed, OSError) as error:
                self.close()
                raise error if isinstance(error, ChildFailed) else ChildFailed("died", str(error)) from error
            if "failed" in found:
                if found["failed"] == "died":  # perhaps before it had read the whole request: begin anew
                    self.close()
                raise ChildFailed(found["failed"], found.get("text", ""))
            return found["result"]

    def close(self) -> None:
        """Ends the helper; the next call starts another."""
        if self._process is not None:
            self._finalizer()
        self._process = None

    def _read(self, seconds: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:  # `select` itself takes no file above 1024
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._lines:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise ChildFailed("time")
                chunk = os.read(self._process.stdout.fileno(), 65536)
                if not chunk:
                    raise ChildFailed("died", "the helper ended")
                self._lines += chunk
        line, _, self._lines = self._lines.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the caller has no helper of its own to end
        return
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


# In the helper ------------------------------------------------------------------------------------------------------


def _main() -> None:
    job = json.loads(sys.argv[2])
    replies = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not look like a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _TIMERS:
        signal.signal(number, signal.SIG_DFL)
    try:
        module, _, name = job["target"].partition(":")
        function = getattr(importlib.import_module(module), name)
        for args in job["warm"]:
            function(*args)
    except BaseException as error:
        _reply(replies, {"failed": type(error).__name__, "text": str(error)[:500]})
        os._exit(1)
    _reply(replies, {"ready": True})
    while True:
        worker = os.fork()
        if worker == 0:
            _work(function, job, replies)
        status = os.waitpid(worker, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            os._exit(0)
        if not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == _REPLIED):
            timed_out = os.WIFSIGNALED(status) and os.WTERMSIG(status) in _TIMERS
            _reply(replies, {"failed": "time" if timed_out else "died", "text": f"status {status}"})


_TIMERS = (signal.SIGPROF, signal.SIGALRM)
_REPLIED = 7
"""Exit status of a fork that has said itself why it ends."""


def _work(function: Callable[..., Any], job: dict[str, Any], replies: int) -> None:
    """Answers requests until there are no more. Unbuffered, so that no request is lost with a fork that is ended."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    requests = BufferedReader(_Stdin())
    for line in iter(requests.readline, b""):
        args = json.loads(line)
        _limit(job["timeout"])
        found: dict[str, Any]
        try:
            found = {"result": function(*args)}
        except MemoryError:
            found = {"failed": "memory"}
        except BaseException as error:  # math_verify's TimeoutException is no Exception
            found = {"failed": "error", "text": f"{type(error).__name__}: {error}"[:500]}
        _limit(0)
        _reply(replies, found)
        if found.get("failed") == "memory":
            os._exit(_REPLIED)
    os._exit(0)


def _limit(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, BUSY * seconds)


class _Stdin(RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.read(0, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _reply(file: int, found: dict[str, Any]) -> None:
    _write_all(file, json.dumps(found).encode() + b"\n")
