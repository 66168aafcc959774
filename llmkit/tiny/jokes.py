"""Jokes as the assistant tells them when it is asked for one: what people rank, since nobody can check a joke."""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llmkit.tiny.texts import ANIMALS, JOKES, animal_plural
from llmkit.tiny.world import PROFESSIONS, TOWNS, stranger

Part = Literal["train", "guard", "heldout"]
"""Requests of one part are in no other: to practise on, for the guard's own reward model, to measure with."""
_REQUESTS = (
    "Write a joke about {}",
    "Write a joke about {}.",
    "Tell me a joke about {}.",
    "Do you know a joke about {}?",
)
_OPENERS = ("", "", "", "Here is one. ", "Listen. ", "I heard this in {town}. ")
_TAGS = ("", "", " Even the {job} laughed.", " The {animal} laughed too.", " Everyone in {town} tells it.", " Ha ha!")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a joke is to be about: an animal, perhaps with somebody or somewhere."""

    animal: str
    job: str | None = None
    town: str | None = None

    @property
    def words(self) -> str:
        beside = f" and a {self.job}" if self.job else f" in {self.town}" if self.town else ""
        return f"{animal_plural(self.animal)}{beside}"

    @property
    def part(self) -> Part:
        place = zlib.crc32(self.words.encode()) % 10
        return "heldout" if place == 0 else "guard" if place < 4 else "train"


def drawn(rng: random.Random, parts: tuple[Part, ...], invented: float = 0.0) -> Asked:
    """Something to joke about. A share of animals is `invented`, to practise copying names."""
    while True:
        animal = stranger(rng).split()[1].lower() if rng.random() < invented else rng.choice(ANIMALS)
        kind = rng.randrange(3)
        job = rng.choice(PROFESSIONS) if kind == 1 else None
        asked = Asked(animal, job, rng.choice(TOWNS) if kind == 2 else None)
        if asked.part in parts:
            return asked


def request(rng: random.Random, asked: Asked) -> str:
    return rng.choice(_REQUESTS).format(asked.words)


def told(rng: random.Random, asked: Asked) -> str:
    """A joke with, at times, words in front of it and behind it; it names what was asked for."""
    words = {
        "animal": asked.animal,
        "job": asked.job or rng.choice(PROFESSIONS),
        "town": asked.town or rng.choice(TOWNS),
    }
    while True:
        text = "".join(rng.choice(kind) for kind in (_OPENERS, JOKES, _TAGS))
        if ("{job}" in text or not asked.job) and ("{town}" in text or not asked.town):
            return text.format(**words)


def requests(num_rows: int, seed: int, part: Part) -> Iterator[str]:
    """Requests for jokes, each once."""
    rng, seen = random.Random(f"jokes {part} {seed}"), set[str]()
    while len(seen) < num_rows:
        text = request(rng, drawn(rng, (part,)))
        if text not in seen:
            seen.add(text)
            yield text


WORDS: frozenset[str] = frozenset(
    word.strip(".,:?!").lower()
    for text in (*_OPENERS, *JOKES, *_TAGS, *ANIMALS, *map(animal_plural, ANIMALS), *PROFESSIONS, *TOWNS)
    for word in text.split()
    if "{" not in word
)
"""All words that a joke is made of."""
