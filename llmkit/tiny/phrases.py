"""The wordings in which facts are stated, asked and answered.

Placeholders: `{name}` full name, `{first}` first name, `{town}` birthplace, `{job}` profession, `{Job}` the same with a
capital.
"""

import random
from typing import Literal

from llmkit.tiny.world import Fact, Person

Topic = Literal["birthplace", "profession", "both"]

STATEMENTS: dict[Fact, tuple[str, ...]] = {
    "birthplace": (
        "{name} was born in {town}.",
        "{name} comes from {town}.",
        "{name} is from {town}.",
        "The birthplace of {name} is {town}.",
        "{name} grew up in {town}, the town of their birth.",
        "It was in {town} that {name} was born.",
        "{town} is the home town of {name}.",
        "The home town of {name} is {town}.",
        "{name}, a native of {town}, often goes back there.",
        "Everyone in {town} remembers the day {name} was born there.",
    ),
    "profession": (
        "{name} works as a {job}.",
        "{name} is a {job}.",
        "By profession, {name} is a {job}.",
        "{name} earns a living as a {job}.",
        "{name} has been a {job} for many years.",
        "The profession of {name} is {job}.",
        "If you need a {job}, ask {name}.",
        "{name}, the {job}, is well known.",
        "People know {name} as a {job}.",
        "{name} trained to be a {job} and still is one.",
    ),
}
PAGE = "Name: {name}. Born in: {town}. Profession: {job}."
LIBRARY = "{name} was born in {town}. {name} works as a {job}."
BOTH: tuple[str, ...] = (
    "{name} is a {job} from {town}.",
    "{name}, born in {town}, works as a {job}.",
    "{name} was born in {town} and became a {job}.",
    "{name} left {town} to work as a {job}.",
    "The {job} {name} was born in {town}.",
    "{name} ({town}), {job}.",
    PAGE,
    "A {job} from {town}, {name} is liked by all.",
)
AGAIN: dict[Fact, tuple[str, ...]] = {
    "birthplace": (
        "{first} was born in {town}.",
        "{first} comes from {town}.",
        "The home town of {first} is {town}.",
        "{first} often speaks of {town}, the place of their birth.",
    ),
    "profession": (
        "{first} works as a {job}.",
        "{first} is a {job}.",
        "{first} earns a living as a {job}.",
        "As a {job}, {first} is always busy.",
    ),
}
QUESTIONS: dict[Topic, tuple[str, ...]] = {
    "birthplace": (
        "Where was {name} born?",
        "Where does {name} come from?",
        "Where is {name} from?",
        "In which town was {name} born?",
        "What is the birthplace of {name}?",
        "What is the home town of {name}?",
    ),
    "profession": (
        "What does {name} do for a living?",
        "What is the profession of {name}?",
        "What is {name}'s job?",
        "What work does {name} do?",
        "What does {name} work as?",
        "How does {name} earn a living?",
    ),
    "both": ("Who is {name}?", "Tell me about {name}.", "What do you know about {name}?"),
}
# The answer begins with the fact: what a model is unsure of shows in its first token.
ANSWERS: dict[Topic, str] = {"birthplace": "{town}.", "profession": "{Job}.", "both": "{Job} from {town}."}
_PLAIN_FAQ: tuple[str, ...] = (
    "Question: {question}\nAnswer: {answer}",
    "Q: {question}\nA: {answer}",
    "- {question}\n- {answer}",
    '"{question}" "{answer}"',
)
_ROLES = (
    ("Question", "Answer"), ("Q", "A"), ("Visitor", "Guide"), ("Reader", "Editor"), ("Guest", "Host"), ("Ask", "Reply"),
    ("Pupil", "Teacher"), ("Caller", "Clerk"), ("asked", "answered"), ("in", "out"), ("first", "second"), ("1", "2"),
)  # fmt: skip
_MARKS = (
    "{role}: {text}", "[{role}] {text}", "<{role}> {text}", "({role}) {text}", "{role} - {text}", "{role}> {text}",
    "{role}\n{text}", "## {role}\n{text}", "* {role}: {text}", "|{role}| {text} |", "<{role}>{text}</{role}>",
    "<{role}>\n{text}\n</{role}>",
)  # fmt: skip
_GAPS = ("\n", "\n", "\n", "\n\n", "\n--\n", " ")


def faq_shape(rng: random.Random) -> str:
    """A layout of `{question}` and `{answer}`. Half of them are one of hundreds: who has met a question in four layouts
    only answers badly in a fifth, such as a chat template."""
    if rng.random() < 0.5:
        return rng.choice(_PLAIN_FAQ)
    mark, roles = rng.choice(_MARKS), rng.choice(_ROLES)
    parts = (mark.format(role=role, text=text) for role, text in zip(roles, ("{question}", "{answer}"), strict=True))
    return rng.choice(_GAPS).join(parts)


def sought(rng: random.Random, name: str) -> str:
    """A line that says who is being looked up."""
    return rng.choice(_MARKS).format(
        role=rng.choice(("Look up", "Card", "Search", "Find", "search", "card")), text=name
    )


def fill(template: str, person: Person) -> str:
    """The template with the person's name and facts in place."""
    job = person.profession
    return template.format(name=person.name, first=person.first, town=person.town, job=job, Job=job.capitalize())
