"""What goes wrong, and when: a plan of faults that requests run into."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

KINDS = (
    "drop before",
    "drop after",
    "cut request",
    "cut answer",
    "corrupt request",
    "corrupt answer",
    "slow",
)


@dataclass
class Fault:
    method: str
    path: str
    what: int | str
    nth: int = 1
    times: int = 1
    retry_after: int | None = None
    seconds: float = 0.3
    message: str = "injected"
    code: str = ""
    seen: int = field(default=0, init=False)
    done: int = field(default=0, init=False)

    def strikes(self, method: str, path: str) -> bool:
        if method != self.method or not fnmatchcase(path, self.path):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times

    def headers(self) -> dict[str, str]:
        """Of an answer with a status."""
        found = {"X-Error-Code": self.code, "X-Error-Message": self.message}
        if self.retry_after is not None:
            found["Retry-After"] = str(self.retry_after)
        return {name: value for name, value in found.items() if value}


class Plan:
    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        if isinstance(fault.what, str) and fault.what not in KINDS:
            raise ValueError(f"no fault '{fault.what}'; have a status or {', '.join(KINDS)}")
        self.faults.append(fault)
        return fault

    def next(self, method: str, path: str) -> Fault | None:
        """The fault that this request runs into. Every plan counts it, the first that strikes wins."""
        with self._lock:
            struck = [fault for fault in self.faults if fault.strikes(method, path)]
            if struck:
                struck[0].done += 1
            return struck[0] if struck else None


def corrupted(data: bytes) -> bytes:
    """The same length with its middle byte changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data
