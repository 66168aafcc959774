"""Packages and data of nltk that a task's functions need: missing ones are found before the first answer."""

from __future__ import annotations

import os
import sys

from llmkit.errors import DataError
from llmkit.recipe.task_files import needs


def refuse_missing(task: str) -> None:
    """Of a task that lm-eval ships. Data of nltk is fetched where there is a network.

    Raises:
        DataError: a package is not installed, or data cannot be had.
    """
    wanted, where = needs(task), f"task {task}"
    if wanted.missing:
        names = " ".join(wanted.missing)
        raise DataError(where, f"it needs packages that are not installed: {names}", f"pip install {names}")
    for resource in sorted(wanted.nltk_data):
        if not _have(resource):
            name = resource.rpartition("/")[2]
            what = f"it needs nltk's data '{name}', which is not on this machine and cannot be had from here"
            cure = f"where there is a network: python -m nltk.downloader {name}; its folder ~/nltk_data can be copied"
            raise DataError(where, what, f"{cure}, or named by NLTK_DATA")


def _have(resource: str) -> bool:
    import nltk  # a second, which other tasks save

    if not _is_here(resource) and os.environ.get("HF_HUB_OFFLINE") != "1":
        nltk.download(resource.rpartition("/")[2], quiet=True)
    return _is_here(resource)


def _is_here(resource: str) -> bool:
    import nltk

    try:
        nltk.data.find(resource)
    except LookupError:
        return False
    return True


def seed_detection(seed: int) -> None:
    """langdetect, with which ifeval tells languages, draws random numbers of its own: else two runs differ."""
    if "langdetect" in sys.modules:
        sys.modules["langdetect"].DetectorFactory.seed = seed
