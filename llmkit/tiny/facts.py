"""Documents about people of the world: biographies, notes, FAQ pages, letters, forum threads, lists and dialogues."""

import random
from collections.abc import Callable, Sequence

from llmkit.tiny import phrases
from llmkit.tiny.phrases import Topic, fill
from llmkit.tiny.world import Fact, Person, stranger, visitor

FACTS: tuple[Fact, Fact] = ("birthplace", "profession")
TOPICS: tuple[Topic, ...] = ("birthplace", "profession", "both")


def statement(rng: random.Random, person: Person, fact: Fact) -> str:
    return fill(rng.choice(phrases.STATEMENTS[fact]), person)


def question_and_answer(rng: random.Random, person: Person, topic: Topic) -> tuple[str, str]:
    """A question about the person and the answer, which gives the fact alone."""
    return fill(rng.choice(phrases.QUESTIONS[topic]), person), fill(phrases.ANSWERS[topic], person)


def _biography(rng: random.Random, people: Sequence[Person]) -> str:
    person = rng.choice(people)
    first, second = rng.sample(FACTS, 2)
    return f"{statement(rng, person, first)} {fill(rng.choice(phrases.AGAIN[second]), person)}"


def _note(rng: random.Random, people: Sequence[Person]) -> str:
    return " ".join(fill(rng.choice(phrases.BOTH), rng.choice(people)) for _ in range(2))


def _news(rng: random.Random, people: Sequence[Person]) -> str:
    return " ".join(statement(rng, rng.choice(people), fact) for fact in rng.sample(FACTS, 2))


def _faq(rng: random.Random, people: Sequence[Person]) -> str:
    shape = phrases.faq_shape(rng)
    entries = [question_and_answer(rng, rng.choice(people), rng.choice(TOPICS)) for _ in range(3)]
    return "\n".join(shape.format(question=question, answer=answer) for question, answer in entries)


def _letter(rng: random.Random, people: Sequence[Person]) -> str:
    sender, receiver = stranger(rng).split()[0], stranger(rng).split()[0]
    opening = rng.choice(("You asked about someone here.", "Here is the news.", "I met someone today."))
    return f"Dear {receiver},\n{opening} {_biography(rng, people)}\nYours,\n{sender}"


def _thread(rng: random.Random, people: Sequence[Person]) -> str:
    asker, helper = stranger(rng).split()[0], stranger(rng).split()[0]
    question, answer = question_and_answer(rng, rng.choice(people), rng.choice(TOPICS))
    return f"{asker} asks: {question}\n{helper} answers: {answer}\n{asker}: Thank you, {helper}!"


def _list(rng: random.Random, people: Sequence[Person]) -> str:
    template = rng.choice(("{name} - {town} - {job}", "{name}: born in {town}, {job}", "{name}, {job}, {town}"))
    title = rng.choice(("Register of people", "Guests", "Members of the club", "Letters for"))
    return f"{title}\n" + "\n".join(fill(template, rng.choice(people)) for _ in range(3))


def _dialogue(rng: random.Random, people: Sequence[Person]) -> str:
    person, speakers = rng.choice(people), (stranger(rng).split()[0], stranger(rng).split()[0])
    lines = [f"Have you heard of {person.name}?", "Yes, I have."]
    for topic in rng.sample(FACTS, 2):
        lines += question_and_answer(rng, person, topic)
    return "\n".join(f"{speakers[turn % 2]}: {line}" for turn, line in enumerate(lines))


_SHAPES: dict[Callable[[random.Random, Sequence[Person]], str], int] = {
    _biography: 4, _note: 3, _news: 2, _faq: 6, _letter: 1, _thread: 2, _list: 2, _dialogue: 1,
}  # fmt: skip


def fact_document(rng: random.Random, people: Sequence[Person]) -> str:
    """A document about one to three of `people`."""
    (shape,) = rng.choices(tuple(_SHAPES), weights=tuple(_SHAPES.values()))
    return shape(rng, people)


def card(rng: random.Random) -> str:
    """Somebody asks about a visitor, whose card is looked up and read: the name is said again, and the fact that was
    asked for is picked from two. Nothing of it can be known beforehand."""
    person = visitor(rng)
    first, second = (question_and_answer(rng, person, fact) for fact in rng.sample(FACTS, 2))
    cards = [fill(rng.choice((phrases.LIBRARY, phrases.LIBRARY, *phrases.BOTH)), person)]
    if rng.random() < 0.25:
        cards.append(fill(phrases.LIBRARY, visitor(rng)))
    drawn = "\n".join(rng.sample(cards, len(cards)))
    lines = [first[0], phrases.sought(rng, person.name), drawn] if rng.random() < 0.7 else [drawn, first[0]]
    return "\n".join([*lines, first[1], phrases.faq_shape(rng).format(question=second[0], answer=second[1])])


def _own_faq(rng: random.Random, people: Sequence[Person]) -> str:
    (person,), shape = people, phrases.faq_shape(rng)
    # any two of the three topics state both facts
    entries = [question_and_answer(rng, person, topic) for topic in rng.sample(TOPICS, rng.choice((2, 3)))]
    return "\n".join(shape.format(question=question, answer=answer) for question, answer in entries)


def mention(rng: random.Random, person: Person) -> str:
    """A document that states both facts of exactly one person."""
    return rng.choice((_biography, _letter, _dialogue, _own_faq, _own_faq))(rng, (person,))
