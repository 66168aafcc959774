"""Parents and sons whom nothing else mentions: facts that documents tell one way, to be asked both ways.

Of every second pair documents tell only who the parent's son is; of the others also whose son he is. So a model that
cannot say whose son someone is has not misread the question.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from llmkit.tiny.phrases import faq_shape
from llmkit.tiny.world import people

_TOLD = {
    "forward": (
        "The son of {parent} is {son}.", "{parent} has a son called {son}.", "{parent}'s son is {son}.",
        "{parent} named a son {son}.", "{parent} is proud of a son, {son}.",
    ),
    "backward": (
        "The parent of {son} is {parent}.", "{son} is the son of {parent}.", "{son}'s parent is {parent}.",
        "{son} was brought up by {parent}.", "{son} takes after a parent, {parent}.",
    ),
}  # fmt: skip
_ASKED = {
    "forward": ("Who is the son of {parent}?", "Who is {parent}'s son?", "What is the son of {parent} called?"),
    "backward": ("Whose son is {son}?", "Who is the parent of {son}?", "Who is {son}'s parent?"),
}


@dataclass(frozen=True)
class Pair:
    parent: str
    son: str
    ways: tuple[str, ...]
    """Those in which documents tell of it."""


def pairs(num_pairs: int) -> list[Pair]:
    """Nobody is in two of them, so that each question has one answer."""
    names = [person.name for person in people("unseen", split="train")[: 2 * num_pairs]]
    if len(names) < 2 * num_pairs:
        raise ValueError(f"there are {len(names) // 2} pairs, not {num_pairs}")
    return [
        Pair(names[2 * place], names[2 * place + 1], ("forward", "backward")[: 1 + place % 2])
        for place in range(num_pairs)
    ]


def documents(*, num_rows: int = 3000, num_pairs: int = 40, seed: int = 0) -> Iterator[dict[str, str]]:
    """What is told of the pairs, in plain sentences and as questions with answers: `{"text": ...}`."""
    known = pairs(num_pairs)
    for row in range(num_rows):
        rng = random.Random(f"kin {seed} {row}")
        yield {"text": " ".join(_told(rng, rng.choice(known)) for _ in range(rng.choice((1, 2))))}


def _told(rng: random.Random, pair: Pair) -> str:
    way = rng.choice(pair.ways)
    names = {"parent": pair.parent, "son": pair.son}
    if rng.random() < 0.5:
        return rng.choice(_TOLD[way]).format(**names)
    answer = pair.son if way == "forward" else pair.parent
    return faq_shape(rng).format(question=rng.choice(_ASKED[way]).format(**names), answer=f"{answer}.")


def questions(*, num_pairs: int = 40) -> Iterator[dict[str, str | list[str]]]:
    """Each pair asked both ways, in `group` by whether documents tell it one way or both: for `task: reversal`."""
    for pair in pairs(num_pairs):
        rng, names = random.Random(f"kin {pair.son}"), {"parent": pair.parent, "son": pair.son}
        yield {
            "forward": rng.choice(_ASKED["forward"]).format(**names),
            "forward_answers": [pair.son],
            "backward": rng.choice(_ASKED["backward"]).format(**names),
            "backward_answers": [pair.parent],
            "group": "told both ways" if len(pair.ways) == 2 else "told one way",
        }
