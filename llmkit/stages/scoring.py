"""Answers to problems, scored by a stage's rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmkit.chat.ask import Answer
from llmkit.chat.turn import answer_to
from llmkit.data.problems import Problem, Problems
from llmkit.errors import UserError
from llmkit.knowledge.match import is_accepted
from llmkit.knowledge.refusing import is_refusal
from llmkit.recipe.practice import RewardSpec
from llmkit.rewards.answer import canonical, found_in
from llmkit.rewards.guard import check_scored, score
from llmkit.rewards.registry import Named, load
from llmkit.rewards.rows import LogMetric

RIGHT = 1.0 - 1e-6
"""Least score of a reward on correctness that counts as solved."""


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
        self._where = where

    def check(self, problems: Problems, *, needs_correctness: bool) -> None:
        """Raises UserError where a column is missing, or where nothing says whether a problem is solved."""
        have = problems.columns_of_all()
        for reward in self.rewards:
            missing = sorted(set(reward.columns) - have) if not reward.when else []
            if missing:
                what = f"reward '{reward.label}' reads the column '{missing[0]}', which not all problems have"
                cure = f"map it in 'columns', or restrict the reward by 'when'; all have: {', '.join(sorted(have))}"
                raise UserError(self._where, what, cure)
        if needs_correctness and not self.correctness:
            what = "no reward says whether a problem is solved"
            raise UserError(self._where, what, "add one such as 'exact', or set 'correctness: true' on your own")

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

    def _is_right(self, values_NF: np.ndarray) -> np.ndarray:
        chosen_NC = values_NF[:, self.correctness]
        applies_NC = ~np.isnan(chosen_NC)
        right: np.ndarray = applies_NC.any(axis=1) & np.where(applies_NC, chosen_NC >= RIGHT, True).all(axis=1)
        return right


class _Judge:
    """What the reward `abstain` asks of an answer."""

    def is_correct(self, text: str, accepted: tuple[str, ...]) -> bool:
        return is_accepted(text, accepted)

    def is_refusal(self, text: str, own: tuple[str, ...]) -> bool:
        return is_refusal(text, own)


def vote_of(text: str) -> str | None:
    """The answer that a text gives, for votes and tables."""
    found = found_in(text).lenient
    return None if found is None else canonical(found)


def _completion(problem: Problem, answer: Answer) -> Any:
    """As TRL gives it to rewards: with tools, all turns and results."""
    return list(answer.messages) or answer_to(problem.prompt, answer.text)
