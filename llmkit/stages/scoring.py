"""Answers to problems, scored by a stage's rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np

from llmkit.chat.ask import Answer
from llmkit.chat.turn import answer_to, without_thought
from llmkit.data.problems import Problem, Problems
from llmkit.errors import UserError
from llmkit.knowledge.match import is_accepted
from llmkit.knowledge.refusing import is_refusal
from llmkit.recipe.practice import RewardSpec
from llmkit.recipe.reward_keys import options
from llmkit.rewards.answer import MARKS, said_of
from llmkit.rewards.check import check
from llmkit.rewards.guard import check_scored, score
from llmkit.rewards.registry import Named, load
from llmkit.rewards.rows import LogMetric, Said

GOLD = 1000
"""Problems whose right and wrong answers are tried before a stage begins."""
RIGHT = 1.0 - 1e-6
"""Least score of a reward on correctness that counts as solved."""
Need = Literal["none", "some", "all"]
"""Of how many problems a reward must say whether they are solved."""


@dataclass(frozen=True)
class Scores:
    """Of N answers by F rewards.

    Attributes:
        values_NF: NaN where a reward does not apply to the problem.
        totals_N: weighted sums.
        is_right_N: whether all rewards on correctness that apply say so.
    """

    values_NF: np.ndarray
    totals_N: np.ndarray
    is_right_N: np.ndarray


class Scorer:
    """The rewards of a stage. An answer that was cut off is wrong, whatever it says.

    Args:
        where: the stage and part, for messages.
    """

    def __init__(self, specs: Sequence[RewardSpec], where: str) -> None:
        self.rewards: list[Named] = load(specs, judge=_Judge())
        self.labels = [reward.label for reward in self.rewards]
        self.weights_F = np.array([reward.weight for reward in self.rewards])
        self.correctness = [place for place, reward in enumerate(self.rewards) if reward.correctness]
        self._where, self._specs = where, list(specs)

    def check(self, problems: Problems, *, checked: Need) -> None:
        """Raises UserError where a problem lacks a column, or nothing says of as many as must be whether they are
        solved."""
        have = problems.columns_of_all()
        if any(not have.issuperset(reward.columns) for reward in self.rewards):
            for problem in problems:
                self._check_columns(problem, have)
        if checked == "some" and not any(map(self.is_checked, problems)):
            what = "no reward says whether a problem is solved"
            raise UserError(self._where, what, "add one such as 'exact', or set 'correctness: true' on your own")
        if checked == "all":
            self._check_all(problems)

    def check_gold(self, problems: Problems, warn: Callable[[str], None]) -> None:
        """Tries the first problems' right and wrong answers (`llmkit rewards check`).

        Raises:
            UserError: a reward does not know one from the other.
        """
        report = check(self.rewards, islice(problems, GOLD))
        if report.failures:
            counts = report.counts.values()
            num = sum(each.num_gold_failed + each.num_wrong_failed + each.num_unfit for each in counts)
            what = f"{num} scores of gold and corrupted solutions are not as they must be: {report.failures[0]}"
            cure = "mend the problems or the reward's options; `llmkit rewards check` shows more"
            raise UserError(self._where, what, cure)
        for label in report.untried:
            warn(f"the reward '{label}' was not tried: none of the first {GOLD} problems has a right answer for it")

    def _check_columns(self, problem: Problem, have: set[str]) -> None:
        own = {name for name, value in problem.columns.items() if value is not None}
        for reward in self.rewards:
            missing = sorted(set(reward.columns) - own) if reward.applies(problem.columns) else []
            if missing:
                what = f"reward '{reward.label}' reads the column '{missing[0]}', which {problem.place} does not have"
                cure = f"map it in 'columns', or restrict the reward by 'when'; all have: {', '.join(sorted(have))}"
                raise UserError(self._where, what, cure)

    def _check_all(self, problems: Problems) -> None:
        """What nobody can check would be counted as wrong."""
        unchecked = [problem.place for problem in problems if not self.is_checked(problem)]
        if unchecked:
            what = f"of {len(unchecked)} of {len(problems)} problems no reward says whether they are solved"
            cure = "add one such as 'exact' for them, set 'correctness: true' on your own, or leave them out"
            raise UserError(self._where, f"{what} (the first is {unchecked[0]})", cure)

    def is_checked(self, problem: Problem) -> bool:
        """Whether a reward says if answers to it are right."""
        return any(self.rewards[place].applies(problem.columns) for place in self.correctness)

    def __call__(
        self,
        problems: Sequence[Problem],
        answers: Sequence[Answer],
        *,
        trainer_state: Any = None,
        log_metric: LogMetric | None = None,
        is_scored_N: Sequence[bool] = (),
    ) -> Scores:
        """Problem i of answer i. Raises UserError where a reward fails, or none applies.

        Args:
            is_scored_N: which of them something else scores, too, where no reward has to apply. Empty: none.
        """
        completions = [_completion(problem, answer) for problem, answer in zip(problems, answers, strict=True)]
        places = [problem.place for problem in problems]
        found = [
            score(
                reward,
                [problem.prompt for problem in problems],
                completions,
                [answer.ids for answer in answers],
                [problem.columns for problem in problems],
                places,
                trainer_state=trainer_state,
                log_metric=log_metric,
            )
            for reward in self.rewards
        ]
        check_scored(self.rewards, found, places, is_scored_N)
        values_NF = np.array(found, dtype=float).T
        is_cut_N = np.array([answer.finish_reason != "stop" for answer in answers])
        for place in self.correctness:
            # a cut-off answer solves nothing; what a wrong one costs (`abstain`) it costs as well
            values_NF[is_cut_N, place] = np.minimum(values_NF[is_cut_N, place], 0.0)
        totals_N = np.nansum(values_NF * self.weights_F, axis=1)
        return Scores(values_NF, totals_N, self._is_right(values_NF))

    def said(self, problem: Problem, text: str) -> Said:
        """The answer that a text gives, as the first reward on correctness that applies reads it."""
        for place in self.correctness:
            if self.rewards[place].applies(problem.columns):
                return self.rewards[place].said(text, problem.columns)
        return said_of(text, "lenient", MARKS)

    def read_otherwise(self) -> tuple[str, Scorer] | None:
        """The same rewards with answers read `lenient` where they are read `strict`, or the other way round, and which
        of both. None where no reward on correctness reads one."""
        correct = [spec for spec, reward in zip(self._specs, self.rewards, strict=True) if reward.correctness]
        chosen = [spec for spec in correct if spec.name and "parse" in options(spec.name)]
        if not chosen:
            return None
        other = "lenient" if chosen[0].args.get("parse", "strict") == "strict" else "strict"
        specs = [
            spec.model_copy(update={"args": {**spec.args, "parse": other}}) if spec in chosen else spec
            for spec in correct
        ]
        return other, Scorer(specs, self._where)

    def _is_right(self, values_NF: np.ndarray) -> np.ndarray:
        chosen_NC = values_NF[:, self.correctness]
        applies_NC = ~np.isnan(chosen_NC)
        right: np.ndarray = applies_NC.any(axis=1) & np.where(applies_NC, chosen_NC >= RIGHT, True).all(axis=1)
        return right


class _Judge:
    """What the reward `abstain` asks of an answer."""

    def is_correct(self, text: str, accepted: tuple[str, ...]) -> bool:
        return is_accepted(without_thought(text), accepted)

    def is_refusal(self, text: str, own: tuple[str, ...]) -> bool:
        return is_refusal(without_thought(text), own)


def _completion(problem: Problem, answer: Answer) -> Any:
    """As TRL gives it to rewards: with tools, all turns and results."""
    return list(answer.messages) or answer_to(problem.prompt, answer.text)
