"""A model that attempts problems: greedily and sampled, shared out over processes, and what its attempts amount to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from llmkit.chat.ask import Answer, Engine
from llmkit.chat.turn import Message
from llmkit.data.problems import Problem, Problems
from llmkit.errors import RunError
from llmkit.evaluate.passes import budgets, maj_at_k, pass_at_k
from llmkit.knowledge.store import Row, Steps
from llmkit.stages.asked import in_chunks
from llmkit.stages.at_hand import reads_back
from llmkit.stages.common import Worker
from llmkit.stages.prompting import ask_of
from llmkit.stages.scoring import Scorer

SLICE = 256
"""Problems whose attempts are scored at a time."""
_RIGHT = "\0right"
"""The vote of all right answers: no text is it."""
Progress = Callable[[int, int], None]
Numbers = dict[str, list[float]]
"""Metric -> its value for every problem."""


@dataclass(frozen=True)
class Attempt:
    """One answer to a problem, and what the rewards say of it."""

    text: str
    vote: str | None
    """The answer that the text gives, in one spelling; None: it gives none."""
    is_stated: bool
    """Whether that stands in the demanded form."""
    is_right: bool
    is_truncated: bool
    num_tokens: int
    total: float
    scores: dict[str, float]
    """Reward -> score, of those that apply."""
    temperature: float
    messages: Sequence[Message] = ()
    """With tools: all turns and results."""
    is_row: bool = True
    """Whether they are read from a training row as they were said."""

    def as_row(self) -> Row:
        """For a file; `Attempt(**row)` is the attempt again."""
        row = asdict(self)
        return row if self.messages else {name: row[name] for name in row if name not in ("messages", "is_row")}


def attempt(
    engine: Engine,
    scorer: Scorer,
    problems: Sequence[Problem],
    temperatures: Sequence[float],
    *,
    max_new_tokens: int,
    top_p: float = 1.0,
    seed: int = 0,
    stop_strings: Sequence[str] = (),
    prefill: str = "",
    on_progress: Progress | None = None,
) -> list[list[Attempt]]:
    """One attempt per problem and temperature; what a problem is answered depends on its key and the seed alone.

    Args:
        prefill: text with which every answer begins; it counts as the model's own.

    Raises:
        RunError: the engine failed on a problem.
        UserError: a reward failed.
    """
    found: list[list[Attempt]] = []
    for start in range(0, len(problems), SLICE):
        part = problems[start : start + SLICE]
        asks = [ask_of(problem, problem.key, temperatures, prefill) for problem in part]
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "top_p": top_p, "seed": seed}
        answers = list(engine.answer(asks, stop_strings=stop_strings, **options))
        for problem, given in zip(part, answers, strict=True):
            check_answers(problem, given)
        repeated = [problem for problem in part for _ in temperatures]
        flat = [replace(answer, text=prefill + answer.text) for given in answers for answer in given]
        scores = scorer(repeated, flat)
        made = [
            _attempt(scorer, repeated[place], answer, values, total, right, temperatures[place % len(temperatures)])
            for place, (answer, values, total, right) in enumerate(
                zip(flat, scores.values_NF, scores.totals_N, scores.is_right_N, strict=True)
            )
        ]
        size = len(temperatures)
        found += [made[first : first + size] for first in range(0, len(made), size)]
        if on_progress is not None:
            on_progress(len(found), len(problems))
    return found


def attempt_together(
    state: PartialState, engine: Engine, scorer: Scorer, problems: Sequence[Problem], *args: Any, **options: Any
) -> list[list[Attempt]]:
    """As `attempt`; the processes share the problems out, and all get all attempts."""
    mine = problems[state.process_index :: state.num_processes]
    own = attempt(engine, scorer, mine, *args, **options)
    if state.num_processes == 1:
        return own
    places = range(state.process_index, len(problems), state.num_processes)
    gathered: list[tuple[int, list[Attempt]]] = gather_object(list(zip(places, own, strict=True)))
    return [made for _, made in sorted(gathered, key=lambda pair: pair[0])]


def attempt_chunks(
    worker: Worker,
    state: PartialState,
    steps: Steps,
    step: str,
    chunks: Sequence[Sequence[int]],
    problems: Problems,
    row_of: Callable[[int, list[Attempt]], Row],
    engine: Engine,
    scorer: Scorer,
    temperatures: Sequence[float],
    **options: Any,
) -> float | None:
    """Has this process's share of the chunks attempted as far as it is not on disk, and waits for the others.

    Args:
        step: name of the rows on disk, one per problem: `row_of(number, its attempts)`.
        chunks: numbers of problems.
        options: of `attempt`.

    Returns:
        Problems per second over all processes; None: all rows were there.
    """

    def rows_of(numbers: Sequence[int]) -> Iterable[Row]:
        made = attempt(engine, scorer, [problems[number] for number in numbers], temperatures, **options)
        return (row_of(number, each) for number, each in zip(numbers, made, strict=True))

    return in_chunks(worker, state, steps, step, chunks, rows_of, unit="problems")


def numbers_of(attempts: Sequence[Sequence[Attempt]]) -> Numbers:
    """What greedy and sampled attempts amount to, problem by problem.

    `accuracy`: the greedy answer is right. `pass@k`, `maj@k`: see `llmkit.evaluate.passes`. `answered`: the greedy
    answer stands in the demanded form. `truncated`, `num_tokens`: of the greedy answer.
    """
    found: Numbers = {}
    for number, made in enumerate(attempts):
        greedy = [one for one in made if not one.temperature]
        sampled = [one for one in made if one.temperature]
        values: dict[str, float] = {}
        if greedy:
            first = greedy[0]
            values = {
                "accuracy": float(first.is_right),
                "answered": float(first.is_stated),
                "truncated": float(first.is_truncated),
                "num_tokens": float(first.num_tokens),
            }
        if sampled:
            num_right = sum(one.is_right for one in sampled)
            # right answers are one answer, in whatever spelling
            votes = [_RIGHT if one.is_right else one.vote for one in sampled]
            is_right = [one.is_right for one in sampled]
            for k in budgets(len(sampled)):
                values[f"pass@{k}"] = pass_at_k(len(sampled), num_right, k)
                if k > 2:
                    values[f"maj@{k}"] = maj_at_k(votes, is_right, k, seed=number)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return found


def share_right(attempts: Sequence[Attempt]) -> float:
    return float(np.mean([one.is_right for one in attempts]))


def _attempt(
    scorer: Scorer, problem: Problem, answer: Answer, values: Any, total: Any, right: Any, temperature: float
) -> Attempt:
    scores = {label: float(v) for label, v in zip(scorer.labels, values, strict=True) if not np.isnan(v)}
    said = scorer.said(problem, answer.text)
    return Attempt(
        text=answer.text,
        vote=said.vote,
        is_stated=said.stated,
        is_right=bool(right),
        is_truncated=answer.finish_reason == "length",
        num_tokens=answer.num_tokens or 0,
        total=float(total),
        scores=scores,
        temperature=temperature,
        messages=answer.messages,
        is_row=reads_back(problem.prompt, answer),
    )


def check_answers(problem: Problem, answers: Sequence[Answer]) -> None:
    """Raises RunError where the engine failed on a problem."""
    failed = next((answer for answer in answers if answer.finish_reason == "error"), None)
    if failed is not None:
        raise RunError(problem.place, f"the model could not be asked ({failed.error})", "shorten or remove the problem")
