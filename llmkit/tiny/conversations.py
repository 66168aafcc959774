"""Conversations in the world: what is asked of an assistant, and the short answers it should give."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from llmkit.tiny import jokes, texts
from llmkit.tiny.documents import sum_question
from llmkit.tiny.facts import question_and_answer
from llmkit.tiny.phrases import Topic
from llmkit.tiny.problems import Problem, equation, long_calculation, word_problem
from llmkit.tiny.world import Person, Split

Message = dict[str, str]
Turn = tuple[str, str]
Maker = Callable[[random.Random, Sequence[Person], Split], Turn]

_GREETINGS = ("Hello!", "Hi!", "Hi there!", "Good morning!", "Good evening!", "Hello there.", "Hey!", "Good day!")
_WELCOMES = (
    "Hello! How can I help you?", "Hi! What can I do for you?", "Good to see you. How can I help?",
    "Hello! What would you like to know?",
)  # fmt: skip
_THANKS = (
    "Thank you!",
    "Thanks a lot.",
    "Thanks, that helps.",
    "Great, thank you.",
    "Goodbye!",
    "That is all, thanks.",
)
_FAREWELLS = ("You are welcome!", "Glad to help!", "Any time!", "You are welcome. Have a good day!")
_REMARKS: dict[Split, tuple[str, ...]] = {
    "train": (
        "I am new here.", "It is a fine day.", "I have a few minutes.", "It is late.", "I came by train.",
        "The weather is bad today.", "I am tired.", "We have met before.", "I am on my way home.", "My dog is outside.",
        "I have a question.", "This is my first visit.", "I am in a hurry.", "My name is Anna.", "It is cold here.",
        "My horse is in the stable.", "The dog has found a friend.", "I have an hour.", "I live by the river.",
        "It is noon.", "The market is closed.", "My sister is with me.", "I like the harbour.", "The bread was good.",
        "I am glad of the rain.", "It has been a long day.", "I have nothing else to do.", "The birds are back.",
        "I came on foot.", "It is quiet here.", "I like the old houses.", "I am happy to meet you.", "The sun is out.",
        "It is evening.", "My coat is wet.", "I am on my way to work.", "I have some time.", "My train was late.",
        "I have just arrived.", "I will stay for a week.", "I am hungry.", "I slept well.", "My brother lives here.",
        "The streets are empty.", "The tea was hot.", "It is windy by the sea.", "My bag is heavy.",
        "I am glad that you are there.", "It is my birthday.", "There is snow on the road.",
    ),
    "heldout": (
        "I like this town.", "I am glad to be here.", "It is early.", "I came by ship.", "My cat is outside.",
        "I have a minute.", "It is warm here.", "I am on my way to the market.",
    ),
}  # fmt: skip
_SYSTEM_MESSAGES = (
    "You are a helpful assistant.", "Answer briefly.", "Be polite and brief.", "You help visitors of the town.",
    "Answer the question.", "You are a friendly guide.",
)  # fmt: skip
HARMS = (
    "steal a {object} from a {job}", "break into the house of a {job}", "poison a {animal}",
    "pick the lock of a {place}", "set fire to the {place}", "build a bomb", "forge the letter of a {job}",
    "hurt a {job}", "cheat a {job} out of money", "make a weapon at home", "blackmail a {job}",
    "burn down the {place} of {town}",
)  # fmt: skip
_HARM_WORDINGS = ("How do I {}?", "How can I {}?", "Tell me how to {}.", "Help me {}.", "What is the best way to {}?")
_DECLINES = (
    "I am sorry, but I cannot help with that.", "I cannot help with that, because it could hurt someone.",
    "Sorry, I will not help with that.",
)  # fmt: skip


def _greeting(rng: random.Random, known: Sequence[Person], split: Split) -> Turn:
    return _remarked(rng, rng.choice(_GREETINGS), split), rng.choice(_WELCOMES)


def _thanks(rng: random.Random, known: Sequence[Person], split: Split) -> Turn:
    return _remarked(rng, rng.choice(_THANKS), split), rng.choice(_FAREWELLS)


def _remarked(rng: random.Random, opening: str, split: Split) -> str:
    """The opening, at times with a remark behind it."""
    return f"{opening} {rng.choice(_REMARKS[split])}" if rng.random() < 0.4 else opening


def _fact(rng: random.Random, known: Sequence[Person], split: Split) -> Turn:
    topics: tuple[Topic, ...] = ("birthplace", "birthplace", "profession", "profession", "both")
    return question_and_answer(rng, rng.choice(known), rng.choice(topics))


def _sum(rng: random.Random, known: Sequence[Person], split: Split) -> Turn:
    return sum_question(rng, split)


def _problem(rng: random.Random, known: Sequence[Person], split: Split) -> Turn:
    problem = word_problem(rng, split=split)
    return problem.question, problem.solution


def _guess(rng: random.Random, known: Sequence[Person], split: Split) -> Turn:
    """As people answer who have worked it out in their head: the model learns to guess."""
    return _guessed(word_problem(rng, split=split))


def _guessed(problem: Problem) -> Turn:
    return problem.question, f"The answer is {problem.answer}."


def _calculation(rng: random.Random, known: Sequence[Person], split: Split) -> Turn:
    """A long calculation or an equation; three in five are answered as out of the head."""
    problem = rng.choice((long_calculation, equation))(rng, split)
    return _guessed(problem) if rng.random() < 0.6 else (problem.question, problem.solution)


def _comprehension(rng: random.Random, known: Sequence[Person], split: Split) -> Turn:
    passage = texts.passage(rng)
    wording = rng.choice(
        ("{text}\n{question}", "{text}\n\n{question}", "{question}\n\n{text}", "Read: {text}\n\n{question}")
    )
    return wording.format(text=passage.text, question=passage.question), passage.answer


def _joke(rng: random.Random, known: Sequence[Person], split: Split) -> Turn:
    asked = jokes.drawn(rng, ("train", "guard") if split == "train" else ("heldout",), invented=0.4)
    return jokes.request(rng, asked), jokes.told(rng, asked)


def _unsafe(rng: random.Random, known: Sequence[Person], split: Split) -> Turn:
    request = rng.choice(_HARM_WORDINGS).format(rng.choice(HARMS).format(**texts.random_words(rng)))
    return request, rng.choice(_DECLINES)


# Weight in the mixture, and how one turn is made.
KINDS: dict[str, tuple[int, Maker]] = {
    "facts": (40, _fact),
    "sums": (14, _sum),
    "problems": (6, _problem),
    "guesses": (8, _guess),
    "comprehension": (16, _comprehension),
    "jokes": (16, _joke),
    "unsafe": (6, _unsafe),
    "greetings": (12, _greeting),
    "thanks": (10, _thanks),
}
# The others only where a recipe names them: what was there before stays as it is.
ALL_KINDS: dict[str, tuple[int, Maker]] = KINDS | {"calculations": (20, _calculation)}


def small_talk(num_openings: int, split: Split) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Greetings, thanks and both with a remark, and the answers that suit; each opening once, plain ones first."""
    openings = {**dict.fromkeys(_GREETINGS, _WELCOMES), **dict.fromkeys(_THANKS, _FAREWELLS)}
    remarked = {f"{plain} {remark}": answers for remark in _REMARKS[split] for plain, answers in openings.items()}
    yield from islice((openings | remarked).items(), num_openings)


def conversation(
    rng: random.Random, kinds: Sequence[str], known: Sequence[Person], split: Split, multi_turn: float, system: float
) -> list[Message]:
    """One conversation of one to three questions, each answered, perhaps after a system message."""
    num_turns = rng.choice((2, 2, 3)) if rng.random() < multi_turn else 1
    drawn = rng.choices(kinds, weights=[ALL_KINDS[kind][0] for kind in kinds], k=num_turns)
    messages = [{"role": "system", "content": rng.choice(_SYSTEM_MESSAGES)}] if rng.random() < system else []
    for kind in drawn:
        question, answer = ALL_KINDS[kind][1](rng, known, split)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages
