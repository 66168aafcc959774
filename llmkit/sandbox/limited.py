"""A call that may take only so long, of a function that shares our memory, our models and the current CUDA device.

It runs in a daemon thread, which ends with the process if with nothing else. What such a thread cannot do: handle
signals, be ended (it is left behind), or be timed while it computes in C without letting other threads run.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

MAX_LEFT = 64
"""Threads that may be left behind at one time."""


class OutOfTime(Exception):
    """The call has not returned in time; its thread is left behind."""


class OutOfThreads(OutOfTime):
    """The call was not made: too many before it have never returned."""


class _Thread(threading.Thread):
    is_left = False


def in_time(call: Callable[[], Any], seconds: float, name: str) -> Any:
    """What a call returns. Raises OutOfTime, or what the call raises (RuntimeError for what is no Exception)."""
    if sum(getattr(thread, "is_left", False) for thread in threading.enumerate()) >= MAX_LEFT:
        raise OutOfThreads
    done: dict[str, Any] = {}
    device = _cuda_device()

    def work() -> None:
        try:
            _set_cuda_device(device)
            done["result"] = call()
        except BaseException as error:
            done["error"] = error

    thread = _Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        thread.is_left = True
        raise OutOfTime
    if "error" in done:
        error = done["error"]
        raise error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
    return done["result"]


def finished(result: Any) -> Any:
    """Of an asynchronous function, what it returns in the end."""
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result


def _cuda_device() -> int | None:
    """The current device, which each thread has of its own; torch only where somebody has loaded it."""
    torch = sys.modules.get("torch")
    return int(torch.cuda.current_device()) if torch is not None and torch.cuda.is_initialized() else None


def _set_cuda_device(device: int | None) -> None:
    if device is not None:
        sys.modules["torch"].cuda.set_device(device)
