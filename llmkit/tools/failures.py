"""Calls that failed, for people: one short line each in the log, few at a time, and counts of each tool."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import NamedTuple

from llmkit.secrets import redacted
from llmkit.visible import visible

MOST = 10
"""Lines within `SECONDS`; what is beyond is counted."""
SECONDS = 60.0
_SHOWN = 200
_LOG = logging.getLogger("llmkit.tools")


class Counts(NamedTuple):
    """Calls by a tool's name, and those of them that failed."""

    made: Counter[str]
    failed: Counter[str]


class Failures:
    """Of one toolbox; any thread may note one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts(Counter(), Counter())
        self._since = -SECONDS
        self._num_said = self._num_unsaid = 0

    def note(self, name: str, error: str | None) -> None:
        """A call. Args: error: what the model is told; None: it has not failed."""
        with self._lock:
            self._counts.made[name] += 1
            if error is not None:
                self._counts.failed[name] += 1
                self._say(name, error)

    def taken(self) -> Counts:
        """Since the last time that this was asked."""
        with self._lock:
            taken, self._counts = self._counts, Counts(Counter(), Counter())
            return taken

    def _say(self, name: str, error: str) -> None:
        now = time.monotonic()
        if now - self._since > SECONDS:
            if self._num_unsaid:
                _LOG.warning("%d more calls of tools failed", self._num_unsaid)
            self._since, self._num_said, self._num_unsaid = now, 0, 0
        if self._num_said == MOST:
            self._num_unsaid += 1
            return
        self._num_said += 1
        # of a program the last line is the error, and what stands before it is what it printed
        last = visible(redacted((error.strip().splitlines() or [""])[-1]))
        _LOG.warning("tool %s failed: %s", name, last if len(last) <= _SHOWN else f"{last[:_SHOWN]}...")
