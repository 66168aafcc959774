"""Right where reasoning-gym's own scorer says so (Stojanovski et al. 2025, arXiv 2505.24760).

Its puzzles are made anew from `(task, config, index)`, since what its entries hold does not survive JSON. Its scorers
give points for an answer that merely contains the right one, so they are shown the final answer, not the whole text,
and only a full score counts.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from llmkit.chance import chance_kept
from llmkit.errors import UserError
from llmkit.rewards.answer import MAX_DIGITS, changed, check_options, fold, found_in, said_of, say
from llmkit.rewards.rows import Completion, LogMetric, Reward, RowError, Said, Samples, column, ignore, share, text_of

COLUMNS: tuple[str, ...] = ("rg_task", "rg_config", "rg_index")
CORRECTNESS: bool = True
SOLVED = 1.0


def make_reasoning_gym(
    *,
    parse: Literal["strict", "lenient"] = "strict",
    marks: Sequence[Literal["answer_is", "hash", "boxed", "tag"]] = ("answer_is", "hash", "boxed", "tag"),
    whole_text: bool = False,
    partial: bool = False,
) -> Reward:
    """1 where reasoning-gym scores the final answer 1, else 0.

    Args:
        parse: `strict` wants the answer behind a mark; `lenient` takes the last number where no mark stands.
        marks: that count; of several in a text the last one does. See `llmkit.rewards.answer`.
        whole_text: score the whole completion where it gives no answer otherwise.
        partial: give reasoning-gym's score as it is, 0 to 1.

    Returns:
        reasoning_gym(completions, rg_task, rg_config, rg_index, **columns) -> one score per completion. `rg_task`: name
        of a task; `rg_config`: its options as JSON text, `seed` among them; `rg_index`: number of the puzzle. Logs
        `reasoning_gym/strict` and `reasoning_gym/lenient`, shares that are solved as each reads them,
        `reasoning_gym/score`, its mean score, and `reasoning_gym/errors`, the share at which a scorer failed.

    Raises:
        UserError: reasoning-gym is not installed, or an option is out of range. The function raises RowError for a row
            that names no puzzle.
    """
    allowed = check_options("reasoning_gym", parse, marks)
    if find_spec("reasoning_gym") is None:
        what = "needs reasoning-gym, which is not installed"
        raise UserError("reasoning_gym", what, "pip install 'llmkit[reasoning-gym]'")
    puzzles = Puzzles()

    @chance_kept()
    def reasoning_gym(
        completions: Sequence[Completion],
        rg_task: Sequence[Any] | None = None,
        rg_config: Sequence[Any] | None = None,
        rg_index: Sequence[Any] | None = None,
        log_metric: LogMetric | None = None,
        **_: Any,
    ) -> list[float]:
        columns = zip(COLUMNS, (rg_task, rg_config, rg_index), strict=True)
        rows = zip(*(column("reasoning_gym", name, values, completions) for name, values in columns), strict=True)
        read: dict[str, list[float | None]] = {"strict": [], "lenient": []}
        for row, ((task, config, index), completion) in enumerate(zip(rows, completions, strict=True)):
            dataset, entry = puzzles.find(task, config, index, row)
            text = text_of(completion)
            found = found_in(text, allowed)
            for each, values in read.items():
                given = found.read(each)
                values.append(_score(dataset, entry, given if given is not None else text if whole_text else None))
        scores = read[parse]
        log = log_metric or ignore
        for each, values in read.items():
            log(f"reasoning_gym/{each}", share([_is_solved(score) for score in values]))
        log("reasoning_gym/score", sum(score or 0.0 for score in scores) / len(scores) if scores else 0.0)
        log("reasoning_gym/errors", share([score is None for score in scores]))
        return [(score or 0.0) if partial else float(_is_solved(score)) for score in scores]

    return reasoning_gym


@chance_kept()
def samples(
    row: Mapping[str, Any],
    *,
    parse: str = "strict",
    marks: Sequence[str] = ("answer_is", "hash", "boxed", "tag"),
    whole_text: bool = False,
    partial: bool = False,
) -> Samples:
    """The puzzle's own answer behind a mark, and another one. Some scorers accept what is near, and some puzzles have
    many solutions: it is the first that the scorer does not take for right, or none."""
    dataset, entry = Puzzles().find(row.get("rg_task"), row.get("rg_config"), row.get("rg_index"), 0)
    answer = entry.get("answer")
    if not isinstance(answer, str):
        return Samples()
    others = (other for other in _others(answer) if not _is_solved(_score(dataset, entry, other)))
    wrong = next(others, None)
    return Samples(say(answer, marks), None if wrong is None else say(wrong, marks))


def _others(answer: str) -> Iterator[str]:
    """Other answers, from near to far."""
    yield changed(answer)
    yield re.sub(r"[0-9]+", lambda number: str(2 * int(number[0][:MAX_DIGITS]) + 1), answer, count=1)
    yield {"true": "False", "false": "True", "yes": "No", "no": "Yes"}.get(answer.strip().casefold(), answer[::-1])


def said(
    text: str,
    row: Mapping[str, Any],
    *,
    parse: str = "strict",
    marks: Sequence[str] = ("answer_is", "hash", "boxed", "tag"),
    whole_text: bool = False,
    partial: bool = False,
) -> Said:
    """The final answer, or the whole text where that is scored."""
    found = said_of(text, parse, marks)
    return Said(fold(text) or None, found.stated) if found.vote is None and whole_text else found


class Puzzles:
    """Data sets of reasoning-gym, each made once: making one per row is what takes the time."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Any] = {}

    def find(self, task: Any, config: Any, index: Any, row: int) -> tuple[Any, Any]:
        """The data set and the entry of one row. Raises RowError where there is none."""
        where = f"reasoning_gym: row {row}"
        if not isinstance(task, str) or not isinstance(config, str) or isinstance(index, bool):
            what = f"rg_task is {task!r}, rg_config {config!r}, rg_index {index!r}"
            raise RowError(row, where, what[:300], "give a name, options as JSON text, and a number")
        if (task, config) not in self._made:
            self._made[task, config] = _make(task, config, row, where)
        dataset = self._made[task, config]
        try:
            return dataset, dataset[int(index)]
        except Exception as error:
            what = f"task '{task}' has no puzzle {index!r} ({type(error).__name__}: {error})"
            raise RowError(row, where, what[:300], "see 'size' in rg_config") from None


def _make(task: str, config: str, row: int, where: str) -> Any:
    try:
        options = json.loads(config)
    except ValueError as error:
        raise RowError(row, where, f"its rg_config is no JSON ({error})", "give the task's options") from None
    if not isinstance(options, dict) or not isinstance(options.get("seed"), int):
        raise RowError(row, where, "its rg_config has no 'seed'", "without one each puzzle is another at each start")
    try:
        return importlib.import_module("reasoning_gym").create_dataset(task, **options)
    except Exception as error:
        what = f"reasoning-gym does not make task '{task}' ({type(error).__name__}: {error})"
        raise RowError(row, where, what[:300], "check rg_task and rg_config") from None


def _score(dataset: Any, entry: Any, given: str | None) -> float | None:
    """reasoning-gym's score, 0 to 1; None where its scorer fails on the answer."""
    if given is None:
        return 0.0
    try:
        score = float(dataset.score_answer(answer=given, entry=entry))
    except Exception:
        return None
    return score if 0.0 <= score <= 1.0 else None


def _is_solved(score: float | None) -> bool:
    return score is not None and score >= SOLVED
