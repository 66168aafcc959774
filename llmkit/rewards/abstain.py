"""A reward that makes saying "I don't know" worth it where the model would be wrong too often.

Kalai et al. 2025, "Why Language Models Hallucinate", section 4.2: +1 for a correct answer, 0 for an abstention,
-t / (1 - t) for a wrong answer. Answering then pays exactly where the answer is right with a probability above t.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmkit.errors import DataError
from llmkit.recipe.reward_values import check_values
from llmkit.rewards.rows import Completion, Reward, RowError, Samples, text_of

COLUMNS: tuple[str, ...] = ("answers",)
CORRECTNESS: bool = True


def make_abstain(
    t: float,
    is_correct: Callable[[str, tuple[str, ...]], bool],
    is_refusal: Callable[[str, tuple[str, ...]], bool],
    refusals: Sequence[str] = (),
) -> Reward:
    """1 for an accepted answer, 0 for saying that it is not known, -t / (1 - t) for a wrong answer.

    Args:
        t: confidence above which answering pays, 0 <= t < 1; 0: a wrong answer costs nothing.
        is_correct: (text of a completion, accepted answers) -> whether it gives one of them.
        is_refusal: (text of a completion, refusals in one's own wording) -> whether it says that it does not know.
        refusals: texts that are refusals, besides those that llmkit recognises. Default: the `texts` of the recipe's
            `refusals` stages.

    Returns:
        abstain(prompts, completions, answers, **columns) -> one reward per completion, in (-inf, 1]. `answers`: the
        accepted answers of each completion's row.

    Raises:
        UserError: `t` is out of range. The function raises DataError for a row without accepted answers.
    """
    check_values("abstain", t=t)
    penalty, own = -t / (1 - t) if t else 0.0, tuple(refusals)

    def score(text: str, accepted: tuple[str, ...]) -> float:
        # a refusal first: else "I don't know, perhaps Paris" would win where right and cost nothing where wrong
        if is_refusal(text, own):
            return 0.0
        return 1.0 if is_correct(text, accepted) else penalty

    def abstain(
        prompts: Sequence[Any], completions: Sequence[Completion], answers: Sequence[Any] | None = None, **_: Any
    ) -> list[float]:
        if answers is None:
            raise DataError("abstain", "the rows have no column 'answers'", "add the accepted answers of each question")
        if len(answers) != len(completions):
            raise DataError(
                "abstain", f"{len(completions)} completions but {len(answers)} 'answers'", "give each its own"
            )
        rows = zip(prompts, completions, answers, strict=True)
        return [
            score(text_of(given), _accepted(value, index, asked)) for index, (asked, given, value) in enumerate(rows)
        ]

    return abstain


def samples(row: Mapping[str, Any], *, t: float, refusals: Sequence[str] = ()) -> Samples:
    """The first accepted answer, and one that nobody accepts."""
    return Samples(_accepted(row.get("answers"), 0, None)[0], "Qzxvw Jkqpd")


def _accepted(value: Any, index: int, prompt: Any) -> tuple[str, ...]:
    """Accepted answers of one row: a list of texts, or one text. An empty one would accept everything."""
    answers = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not answers or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        asked = prompt if isinstance(prompt, str) else text_of([{**prompt[-1], "role": "assistant"}]) if prompt else ""
        where = f"abstain: row {index} ({asked[-80:]!r})"
        raise RowError(index, where, f"its accepted answers are {value!r}", "give a list of texts, none of them empty")
    return answers
