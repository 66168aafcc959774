"""The door to every reward: what goes in is complete, what comes out are numbers, and each error names reward and row.

TRL takes a NaN that a function returns for "does not apply", lets infinities through, and shows a bare traceback where
one fails; nothing there ends a function that hangs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from llmkit.errors import DataError, LlmkitError, UserError
from llmkit.recipe.reward_keys import PASSED
from llmkit.rewards.registry import Named
from llmkit.rewards.rows import LogMetric, RowError, ignore, text_of
from llmkit.sandbox.limited import OutOfTime, finished, in_time


@dataclass(frozen=True)
class _Batch:
    """N rows that one reward scores, and what it is told besides."""

    prompts: list[Any]
    completions: list[Any]
    completion_ids: list[Sequence[int]]
    rows: list[Mapping[str, Any]]
    places: list[str]
    told: dict[str, Any]

    def only(self, chosen: Sequence[int]) -> _Batch:
        return _Batch(
            prompts=[self.prompts[i] for i in chosen],
            completions=[self.completions[i] for i in chosen],
            completion_ids=[self.completion_ids[i] for i in chosen],
            rows=[self.rows[i] for i in chosen],
            places=[self.places[i] for i in chosen],
            told=self.told,
        )

    def arguments(self) -> dict[str, Any]:
        """As TRL passes them: a column that only some rows have is None in the others."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        columns = {name: [row.get(name) for row in self.rows] for name in names}
        own = {"prompts": self.prompts, "completions": self.completions, "completion_ids": self.completion_ids}
        return {**own, **columns, **self.told}


def score(
    reward: Named,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    columns: Sequence[Mapping[str, Any]],
    places: Sequence[str],
    *,
    trainer_state: Any = None,
    log_metric: LogMetric | None = None,
    log_extra: Any = None,
) -> list[float | None]:
    """One reward's scores of N completions; None where it does not apply to the row.

    A function of the user's with a time limit runs in a thread of its own, which keeps its closures, its models and the
    current CUDA device. What such a thread cannot do: handle signals (math-verify's own time limit), be ended (it is
    left behind), or be timed while it computes in C without letting other threads run. Without a limit it runs in the
    calling thread. llmkit's own rewards limit themselves.

    Args:
        prompts, completions, completion_ids: N each, texts or messages, and token ids.
        columns: of each completion's row, by name. A column that is None is one that the row does not have.
        places: where each row stands, `file:line`.
        trainer_state, log_metric, log_extra: as TRL passes them.
    Raises:
        DataError: a row lacks a column or holds what the reward cannot use.
        UserError: the function fails, hangs, or returns anything but N finite numbers or None.
    """
    chosen = [place for place, row in enumerate(columns) if reward.applies(row)]
    told = {"trainer_state": trainer_state, "log_metric": log_metric or ignore, "log_extra": log_extra or ignore}
    sizes = [len(values) for values in (prompts, completions, completion_ids, columns, places)]
    if len(set(sizes)) > 1:
        raise ValueError(f"prompts, completions, completion_ids, columns, places of {sizes} items")
    everything = _Batch(list(prompts), list(completions), list(completion_ids), list(columns), list(places), told)
    batch = everything.only(chosen)
    scores: list[float | None] = [None] * len(columns)
    if chosen:
        _check_columns(reward, batch)
        found = _numbers(reward, batch, _call(reward, batch))
        for place, value in zip(chosen, found, strict=True):
            scores[place] = value
    return scores


def check_scored(
    rewards: Sequence[Named],
    scores: Sequence[Sequence[float | None]],
    places: Sequence[str],
    is_scored: Sequence[bool] = (),
) -> None:
    """Raises UserError for a row to which no reward applies.

    Args:
        scores: of each reward, of each row.
        is_scored: of each row, whether something else scores it. Empty: nothing does.
    """
    others = is_scored or [False] * len(places)
    for place, values, by_other in zip(places, zip(*scores, strict=True), others, strict=True):
        if not by_other and all(value is None for value in values):
            labels = ", ".join(reward.label for reward in rewards)
            cure = "check the 'when' of the rewards against the row's columns"
            raise UserError(place, f"no reward applies to this row ({labels})", cure)


def _check_columns(reward: Named, batch: _Batch) -> None:
    for row, place in zip(batch.rows, batch.places, strict=True):
        have = sorted(name for name, value in row.items() if value is not None)
        for name in reward.columns:
            if row.get(name) is None:
                what = f"the reward '{reward.label}' reads the column '{name}', which this row does not have"
                cure = f"it has {', '.join(have) or 'none'}: name it in 'columns', or restrict the reward by 'when'"
                raise DataError(place, what, cure)
        if clash := sorted(set(row) & set(PASSED)):
            what = f"the column '{clash[0]}' has the name of something that reward functions are given"
            raise DataError(place, what, "rename it in 'columns'")


def _call(reward: Named, batch: _Batch) -> Any:
    try:
        return _run(reward, batch)
    except RowError as error:
        problem = error.problems[0]
        raise DataError(f"{batch.places[error.row]}: {reward.label}", problem.what, problem.cure) from None
    except LlmkitError:
        raise
    except Exception as error:
        row = _failing_row(reward, batch)
        where = f"rewards: {reward.label}"
        what = f"fails with {type(error).__name__}: {str(error)[:300]}"
        if row is None:
            raise UserError(where, f"{what}, on {len(batch.rows)} rows together", _cure(error)) from error
        said = text_of(batch.completions[row])[-80:]
        raise UserError(where, f"{what}, on the row {batch.places[row]} and {said!r}", _cure(error)) from error


def _cure(error: BaseException) -> str:
    if "signal only works in main thread" in str(error):
        return "it uses signals, which it cannot in a thread: let it limit its time otherwise"
    return "mend the function, or return None for rows that it cannot score"


def _failing_row(reward: Named, batch: _Batch) -> int | None:
    """The first row on which a reward also fails alone."""
    for row in range(len(batch.rows)):
        try:
            _run(reward, batch.only([row]))
        except Exception:
            return row
    return None


def _run(reward: Named, batch: _Batch) -> Any:
    if reward.timeout is None:
        return finished(reward.call(**batch.arguments()))
    return _limited(reward, batch, reward.timeout)


def _limited(reward: Named, batch: _Batch, timeout: float) -> Any:
    try:
        return in_time(lambda: finished(reward.call(**batch.arguments())), timeout, f"reward {reward.label}")
    except OutOfTime:
        what = f"has not returned after {timeout:g} seconds, on {len(batch.rows)} rows from {batch.places[0]} on"
        cure = "raise its 'timeout' in the recipe, or mend the function"
        raise UserError(f"rewards: {reward.label}", what, cure) from None


def _numbers(reward: Named, batch: _Batch, result: Any) -> list[float | None]:
    where, size = f"rewards: {reward.label}", len(batch.rows)
    values = result.tolist() if hasattr(result, "tolist") else result
    if not isinstance(values, (list, tuple)):
        raise UserError(where, f"returns {_excerpt(result)}", f"return a list of {size} numbers")
    if len(values) != size:
        what = f"returns {len(values)} scores for {size} completions"
        raise UserError(where, what, "return one per completion, None where it does not apply")
    return [_number(value, where, batch, row) for row, value in enumerate(values)]


def _number(value: Any, where: str, batch: _Batch, row: int) -> float | None:
    if value is None:
        return None
    single = value.item() if not isinstance(value, Real) and getattr(value, "ndim", None) == 0 else value
    if not isinstance(single, Real) or not math.isfinite(single):
        said = text_of(batch.completions[row])[-80:]
        what = f"returns {_excerpt(value)} for the row {batch.places[row]} and {said!r}"
        raise UserError(where, what, "return a finite number, or None where it does not apply")
    return float(single)


def _excerpt(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:80]}" if value is not None else "None"
