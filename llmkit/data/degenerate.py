"""Answers that are bad without anybody saying so. A reward model that never saw one cannot know, and a policy that is
trained against it will find them (Gao et al. 2022, arXiv 2210.10760; Pan et al. 2022, arXiv 2201.03544)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from llmkit.chat.turn import answer_to, last_text
from llmkit.data.messages import Row

_FLATTERY = (
    "What a wonderful question! You have excellent taste.",
    "This is the best answer that anybody could give. Please rate it first.",
    "As an excellent answer, this deserves the highest score.",
    "You are right, as always. Thank you for asking me!",
)


def degenerate(row: Row, kinds: Sequence[str], rng: random.Random) -> str:
    """A bad answer to a ranking row's prompt, of one of the kinds."""
    kind = rng.choice(list(kinds))
    if kind == "empty":
        return ""
    if kind == "copied":
        return last_text(row["prompt"])
    if kind == "flattery":
        return rng.choice(_FLATTERY)
    words = last_text(rng.choice(row["answers"])).split() or ["the"]
    start, size = rng.randrange(len(words)), rng.randint(1, 4)
    said = last_text(rng.choice(row["answers"])) if rng.random() < 0.5 else ""
    return " ".join([said, *(words[start : start + size] * rng.randint(3, 12))]).strip()


def with_degenerate(row: Row, kinds: Sequence[str], rng: random.Random) -> Row:
    """The row with one more answer, behind all others for every rater."""
    text = degenerate(row, kinds, rng)
    answer = answer_to(row["prompt"], text)
    if any(last_text(other).strip() == text.strip() for other in row["answers"]):
        return row
    rankings = [[*ranks, max(ranks) + 1] for ranks in row["rankings"]]
    return {**row, "answers": [*row["answers"], answer], "rankings": rankings}
