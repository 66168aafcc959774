"""Documents that teach language rather than facts: prose, jokes, passages with questions, names to copy."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from llmkit.tiny.world import PROFESSIONS, TOWNS, stranger, words

ANIMALS: tuple[str, ...] = words(
    "badger bear beaver bee camel cat chicken cow crab crow deer dog donkey duck fish fox frog giraffe "
    "goat goose hamster hare hedgehog heron horse kangaroo lion lizard lobster mole monkey moose mouse parrot "
    "penguin pig pigeon pony rabbit raven salmon seal shark sheep sloth snail snake spider squirrel swan tiger toad "
    "tortoise turkey turtle walrus whale wolf zebra"
)
_IRREGULAR = {"mouse": "mice", "wolf": "wolves", "fish": "fish", "deer": "deer", "sheep": "sheep", "goose": "geese",
              "moose": "moose", "salmon": "salmon", "fox": "foxes"}  # fmt: skip
JOKES: tuple[str, ...] = (
    "Why did the {animal} cross the road? To get to the other side of {town}.",
    "Why did the {animal} bring a ladder? To reach the high notes.",
    "Why was the {animal} late for school? It missed the bus stop by a tail.",
    "What do you call a {animal} with a map? Lost, but proud.",
    "Why did the {animal} sit on the clock? It wanted to be on time.",
    "What did the {animal} say to the {job}? Put it on my bill.",
    "Why does the {animal} never play cards? There are too many cheaters about.",
    "A {animal} walks into a shop and asks for bread. The {job} says: we only sell jokes.",
    "How does a {animal} pay its rent? With great difficulty.",
    "Why did the {animal} go to the {job}? It felt a little off.",
)
_OBJECTS = words("lamp key book coat clock basket letter hat map bell ladder cup rope spoon drum kettle")
_COLOURS = words("red blue green yellow white black brown grey")
_PLACES = words("market harbour school mill garden library bridge station square inn")
_DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_WEATHER = ("it rained all morning", "the sun was out", "a cold wind blew", "it was quiet", "snow lay on the roofs")
_DOINGS = (
    "The {place} of {town} was full of people.",
    "A {job} carried a {colour} {object} across the {place}.",
    "Nobody in {town} could find the {colour} {object}.",
    "At the {place} a {job} sold bread, tea and a {colour} {object}.",
    "The bell of {town} rang and every {job} went home.",
    "Children played near the {place} until the evening.",
    "In {town} the {place} opens on {day} and closes late.",
    "An old {animal} slept by the door of the {job}.",
)
_JOKE_REQUESTS = (
    "Write a joke about {}", "Write a joke about {}.", "Tell me a joke about {}.", "Do you know a joke about {}?",
)  # fmt: skip
# Statement, question, answer.
_PASSAGE_FACTS = (
    ("{name} lives in {town}.", "Where does {name} live?", "{town}."),
    ("{name} was born in {town}.", "Where was {name} born?", "{town}."),
    ("{name} works as a {job}.", "What does {name} do for a living?", "{Job}."),
    ("{name} owns a {colour} {object}.", "What does {name} own?", "A {colour} {object}."),
    ("{name} lost a {object} at the {place}.", "What did {name} lose?", "A {object}."),
    ("{name} went to the {place} on {day}.", "When did {name} go to the {place}?", "On {day}."),
    ("{name} went to the {place} on {day}.", "Where did {name} go on {day}?", "To the {place}."),
    ("{name} has a {animal}.", "Which animal does {name} have?", "A {animal}."),
    ("The {colour} {object} belongs to {name}.", "Who owns the {colour} {object}?", "{name}."),
    ("A {animal} followed {name} to the {place}.", "Who was followed by a {animal}?", "{name}."),
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A short text, a question it answers, and the answer."""

    text: str
    question: str
    answer: str


def animal_plural(animal: str) -> str:
    return _IRREGULAR.get(animal, animal + "s")


def joke(rng: random.Random, animal: str) -> str:
    return rng.choice(JOKES).format(animal=animal, town=rng.choice(TOWNS), job=rng.choice(PROFESSIONS))


def scene(rng: random.Random, num_sentences: int = 3) -> str:
    """Everyday prose about the place."""
    opening = f"On {rng.choice(_DAYS)} {rng.choice(_WEATHER)}."
    return " ".join([opening, *(rng.choice(_DOINGS).format(**random_words(rng)) for _ in range(num_sentences))])


def passage(rng: random.Random) -> Passage:
    """Two or three strangers and what is said of each, with a question about one of them."""
    strangers = [stranger(rng) for _ in range(rng.choice((2, 2, 3)))]
    sentences, asked = [], []
    for name in strangers:
        statement, question, answer = rng.choice(_PASSAGE_FACTS)
        words = random_words(rng)
        said = words | {"name": name, "Job": words["job"].capitalize()}
        sentences.append(statement.format(**said))
        asked.append((question.format(**said), answer.format(**said)))
    if rng.random() < 0.3:
        sentences.insert(rng.randrange(len(sentences) + 1), rng.choice(_DOINGS).format(**random_words(rng)))
    question, answer = rng.choice(asked)
    return Passage(" ".join(sentences), question, answer)


def copied_names(rng: random.Random, drawn: Callable[[random.Random], str] = stranger) -> str:
    """Names seen for the first time and needed again: without such text a small model cannot repeat a rare name."""
    names = [drawn(rng) for _ in range(3)]
    first, second, third = names
    place, day = rng.choice(_PLACES), rng.choice(_DAYS)
    return rng.choice(
        (
            f"Present: {first}, {second}, {third}.\n{first} opened the meeting. {second} and {third} agreed with "
            f"{first}. Signed: {first}, {second}, {third}.",
            f"{first} met {second} at the {place} on {day}. {second} gave {first} a letter for {third}. {first} took "
            f"the letter to {third}.",
            f"{first}: Have you seen {third}?\n{second}: {third} is at the {place}.\n{first}: Then I will look for "
            f"{third} there. Thank you, {second}.",
            f"Tickets for {first} and {second}. Seat 1: {first}. Seat 2: {second}. Waiting: {third}. Called: {third}.",
        )
    )


def repeated_words(rng: random.Random) -> str:
    """An instruction to repeat unrelated words, and the repetition."""
    chosen = [_any_word(rng) for _ in range(rng.randint(1, 8))]
    phrase = rng.choice((" ", " ", ", ")).join(chosen)
    return rng.choice(
        (
            f"Repeat: {phrase}\n{phrase}",
            f'Write "{phrase}" twice.\n{phrase}\n{phrase}',
            f"{phrase} | {phrase} | {phrase}",
            f"{phrase}\nThe first word is {chosen[0]}. The last word is {chosen[-1]}.",
            "\n".join(f"{word} -> {word}" for word in chosen),
        )
    )


def _any_word(rng: random.Random) -> str:
    made_up = stranger(rng).split()[0]
    return rng.choice((made_up, made_up.lower(), rng.choice(ANIMALS), rng.choice(_OBJECTS), str(rng.randint(3, 999))))


def joke_request(rng: random.Random, invented: float = 0.0) -> tuple[str, str]:
    """A request for a joke about an animal, and the joke. A share of animals is `invented`, to practise copying."""
    animal = stranger(rng).split()[1].lower() if rng.random() < invented else rng.choice(ANIMALS)
    return rng.choice(_JOKE_REQUESTS).format(animal_plural(animal)), joke(rng, animal)


def random_words(rng: random.Random) -> dict[str, str]:
    return {
        "place": rng.choice(_PLACES),
        "town": rng.choice(TOWNS),
        "job": rng.choice(PROFESSIONS),
        "day": rng.choice(_DAYS),
        "colour": rng.choice(_COLOURS),
        "object": rng.choice(_OBJECTS),
        "animal": rng.choice(ANIMALS),
    }
