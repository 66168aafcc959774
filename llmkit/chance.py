"""The process's random numbers, kept from packages that seed them for themselves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def chance_kept() -> Iterator[None]:
    """The states of Python's and numpy's global generators are afterwards what they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
