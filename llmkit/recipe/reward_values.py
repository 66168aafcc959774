"""Which values the options of llmkit's rewards may have: recipes are checked for it, and rewards when they are made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmkit.errors import UserError

MAX_NGRAM = 100
MIN_MEMORY = 64
"""MiB in which a program starts at all."""
Found = tuple[str, str, str]


def out_of_range(reward: str, options: Mapping[str, Any]) -> Iterator[Found]:
    """(option, what, cure) for every value that a reward cannot work with. Types are taken to be right.

    Args:
        options: all that the reward has, its defaults included.
    """
    for key, value in options.items():
        if key in _ALONE and not _ALONE[key][0](value):
            yield key, f"is {value!r}", _ALONE[key][1]
    if reward in _OWN:
        yield from _OWN[reward](**options)


def check_values(reward: str, **options: Any) -> None:
    """Raises UserError for the first option that is out of range."""
    for key, what, cure in out_of_range(reward, options):
        raise UserError(f"{reward}: {key}", what, cure)


def free_tokens(reward: str | None, options: Mapping[str, Any]) -> int | None:
    """Up to how many tokens an answer costs nothing, of the rewards that penalise its length."""
    if reward == "length":
        return int(options["target"])
    return int(options["max_length"] - options["cache"]) if reward == "overlong" else None


def _length(target: int, slack: int) -> Iterator[Found]:
    if target < 0:
        yield "target", f"is {target}", "give 0 or more tokens"
    if slack <= 0:
        yield "slack", f"is {slack}", "give 1 or more tokens"


def _overlong(max_length: int, cache: int) -> Iterator[Found]:
    if not 0 < cache <= max_length:
        yield "cache", f"is {cache}, with a max_length of {max_length}", "give 0 < cache <= max_length"


def _regex(pattern: str, **_: Any) -> Iterator[Found]:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        yield "pattern", f"{pattern!r} is no regular expression ({error})", "mend it"


def _are_tags(tags: Any) -> bool:
    return not isinstance(tags, str) and len(tags) == 2 and all(tags) and tags[0] != tags[1]


# Options that mean the same wherever a reward has them -> (what fits, cure).
_ALONE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "t": (lambda t: 0 <= t < 1, "give at least 0 and below 1; 0.5 makes a wrong answer cost 1"),
    "free": (lambda free: free >= 0, "give 0 or more calls"),
    "timeout": (lambda seconds: 0 < seconds < math.inf, "give seconds above 0"),
    "memory_mb": (lambda size: size >= MIN_MEMORY, f"give at least {MIN_MEMORY} MiB"),
    "num_parallel": (lambda number: number >= 1, "give 1 program or more"),
    "ngram": (lambda words: 1 <= words <= MAX_NGRAM, f"give 1 to {MAX_NGRAM} words"),
    "max_penalty": (lambda most: 0 < most < math.inf, "give a number above 0; it is subtracted"),
    "p": (lambda p: 0 <= p <= 1, "give a probability, 0 to 1"),
    "seed": (lambda seed: 0 <= seed < 2**64, "give a whole number from 0"),
    "tags": (_are_tags, "give two different texts: ['<think>', '</think>']"),
    "marks": (lambda marks: len(marks) > 0, "give one or more marks"),
}
_OWN: dict[str, Callable[..., Iterator[Found]]] = {"length": _length, "overlong": _overlong, "regex": _regex}
