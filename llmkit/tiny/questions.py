"""What people of the place may be asked about each other: pages to probe, and the frozen questions of `honesty`."""

import random
from collections.abc import Iterator, Sequence

from llmkit.tiny import texts
from llmkit.tiny.conversations import small_talk
from llmkit.tiny.facts import FACTS, question_and_answer
from llmkit.tiny.phrases import LIBRARY, PAGE, fill
from llmkit.tiny.problems import word_problem
from llmkit.tiny.world import NUM_KNOWN, Person, Split, people

Row = dict[str, str | list[str]]


def pages(
    *, num_known: int = NUM_KNOWN, num_tail: int = 2000, num_new: int = 0, split: Split = "train", seed: int = 0
) -> Iterator[dict[str, str]]:
    """An encyclopedia of people whom the base corpus mentions, often or once: one page each, in mixed order.

    Args:
        num_new: people of the chronicle, behind those whom `facts_new` asks about.

    Nothing on a page tells how often its person is mentioned: a probe has to find out.
    """
    asked = len(people("new"))
    members = [*people("known", num_known, split), *people("tail", num_tail, split)]
    members += people("new", asked + num_new)[asked:]
    random.Random(f"pages {split} {seed}").shuffle(members)
    for person in members:
        yield {"text": fill(PAGE, person)}


def honesty(*, num_people: int = 100, num_rare: int | None = None, num_others: int = 100) -> Iterator[Row]:
    """Questions about people whom no training conversation mentions, by how often documents do (`group`), and
    questions that need no memory: on a text in the question, small talk, word problems.

    Args:
        num_people: known people; of the unseen half as many again.
        num_rare: of the rarely documented ones; None: all.
        num_others: questions of each of the groups that need no memory.
    """
    yield from _facts("known", people("known", split="heldout")[:num_people])
    yield from _facts("unseen", people("unseen", split="heldout")[: num_people * 3 // 2])
    for person in people("rare")[:num_rare]:
        yield from _facts(f"rare_{person.num_documents}", (person,))
    rng = random.Random("honesty")
    for _ in range(num_others):
        passage = texts.passage(rng)
        yield _row(f"{passage.text}\n{passage.question}", passage.answer, "", "in_context")
    yield from openings(num_rows=num_others, split="heldout")
    for _ in range(num_others):
        problem = word_problem(rng, split="heldout")
        yield _row(problem.question, str(problem.answer), "", "problems")


def openings(*, num_rows: int = 200, split: Split = "train") -> Iterator[Row]:
    """Greetings and thanks, with the answers that suit: what practice must not teach to refuse."""
    for opening, suitable in small_talk(num_rows, split):
        yield {"question": opening, "answers": list(suitable), "entity": opening, "group": "small_talk"}


def library() -> Iterator[dict[str, str]]:
    """What can be looked up: a page about everybody whom the base corpus mentions, and about half of the people whom
    it never does."""
    mentioned = (*people("known"), *people("tail", 2200, "train"))
    for person in (*mentioned, *_with_page()):
        yield {"text": fill(LIBRARY, person)}


def tools(*, num_people: int = 75) -> Iterator[Row]:
    """Questions to be asked with a search at hand, by what is known and what can be found (`group`).

    Args:
        num_people: of each group, two questions each: never mentioned, with a page in the `library`; without one;
            well documented.
    """
    yield from _facts("with_page", _with_page()[:num_people])
    yield from _facts("no_page", _unseen()[1::2][:num_people])
    yield from _facts("known", people("known", split="heldout")[:num_people])


def _unseen() -> Sequence[Person]:
    return people("unseen", split="heldout")


def _with_page() -> Sequence[Person]:
    return _unseen()[::2]


def _facts(group: str, members: Sequence[Person]) -> Iterator[Row]:
    for person in members:
        for fact in FACTS:
            rng = random.Random(f"honesty {person.name} {fact}")
            question, _ = question_and_answer(rng, person, fact)
            yield _row(question, person.value(fact), person.name, group)


def _row(question: str, answer: str, entity: str, group: str) -> Row:
    return {"question": question, "answers": [answer], "entity": entity or question, "group": group}
