"""Right where a pattern is found in the completion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from llmkit.errors import UserError
from llmkit.recipe.reward_values import check_values
from llmkit.rewards.rows import Completion, LogMetric, Reward, ignore, share, text_of
from llmkit.sandbox.child import Child, ChildFailed

COLUMNS: tuple[str, ...] = ()
CORRECTNESS: bool = False


def make_regex(*, pattern: str, where: Literal["search", "fullmatch"] = "search", timeout: float = 1.0) -> Reward:
    """1 where a regular expression matches, else 0.

    It runs in a helper process: some patterns take longer than the universe is old on the wrong text.

    Args:
        pattern: in the syntax of Python's `re`; `(?i)` at its start ignores case, `(?s)` lets a dot match a line's end.
        where: `search` anywhere in the completion, `fullmatch` all of it.
        timeout: seconds of CPU time for one completion; one that takes longer scores 0.

    Returns:
        regex(completions, **columns) -> one 0 or 1 per completion. Logs `regex/timed_out`, the share that took too
        long.

    Raises:
        UserError: the pattern is no regular expression, or an option is out of range.
    """
    if where not in ("search", "fullmatch"):
        raise UserError("regex: where", f"is {where!r}", "give search or fullmatch")
    check_values("regex", pattern=pattern, timeout=timeout)
    child = Child(f"{__name__}:matches", timeout=timeout)

    def found(text: str) -> bool | None:
        try:
            return bool(child.call(pattern, where, text))
        except ChildFailed:
            return None

    def regex(completions: Sequence[Completion], log_metric: LogMetric | None = None, **_: Any) -> list[float]:
        results = [found(text_of(completion)) for completion in completions]
        (log_metric or ignore)("regex/timed_out", share([result is None for result in results]))
        return [float(bool(result)) for result in results]

    return regex


def matches(pattern: str, where: str, text: str) -> bool:
    """Whether the pattern matches; called in the helper."""
    compiled = _compiled(pattern)
    return (compiled.search(text) if where == "search" else compiled.fullmatch(text)) is not None


@lru_cache(maxsize=8)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
