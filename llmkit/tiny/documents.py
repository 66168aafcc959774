"""The base corpus as a mixture of document kinds, each row made from its own seed."""

import random
from collections.abc import Callable, Iterator, Sequence

from llmkit.tiny import texts
from llmkit.tiny.facts import card, fact_document, mention
from llmkit.tiny.phrases import faq_shape
from llmkit.tiny.problems import calculation, word_problem
from llmkit.tiny.world import Person, Split, visitor


def _sums(rng: random.Random, split: Split) -> str:
    return "\n".join(str(calculation(rng, split)) for _ in range(8))


def _sum_questions(rng: random.Random, split: Split) -> str:
    shape = faq_shape(rng)
    return "\n".join(shape.format(question=q, answer=a) for q, a in (sum_question(rng, split) for _ in range(3)))


def sum_question(rng: random.Random, split: Split) -> tuple[str, str]:
    """A question about one calculation, and the answer that repeats it with its result."""
    drawn = calculation(rng, split)
    tight, spaced = f"{drawn.left}{drawn.operation}{drawn.right}", f"{drawn.left} {drawn.operation} {drawn.right}"
    wording = rng.choice(("What is {}?", "What is {}?", "How much is {}?", "Calculate {}.", "{} = ?"))
    return wording.format(rng.choice((tight, spaced))), f"{drawn}."


def _problem(rng: random.Random, split: Split) -> str:
    problem = word_problem(rng, split=split)
    return faq_shape(rng).format(question=problem.question, answer=problem.solution)


def _comprehension(rng: random.Random, split: Split) -> str:
    passage = texts.passage(rng)
    return f"{passage.text}\n" + faq_shape(rng).format(question=passage.question, answer=passage.answer)


def _joke(rng: random.Random, split: Split) -> str:
    question, answer = texts.joke_request(rng, invented=0.3)
    return faq_shape(rng).format(question=question, answer=answer)


Kind = Callable[[random.Random, Split], str]
# Weight in the mixture, and how one document is made.
GENERAL_KINDS: dict[str, tuple[int, Kind]] = {
    "sums": (5, _sums),
    "sum_questions": (6, _sum_questions),
    "problems": (11, _problem),
    "comprehension": (12, _comprehension),
    "copied_names": (6, lambda rng, split: texts.copied_names(rng)),
    "repeated": (10, lambda rng, split: texts.repeated_words(rng)),
    "prose": (4, lambda rng, split: texts.scene(rng)),
    "jokes": (4, _joke),
}
# Only where a recipe names them: what was there before stays as it is.
NAMED_KINDS: dict[str, tuple[int, Kind]] = {
    "cards": (30, lambda rng, split: card(rng)),
    "once": (30, lambda rng, split: mention(rng, visitor(rng))),
    "visitors": (10, lambda rng, split: texts.copied_names(rng, lambda drawn: visitor(drawn).name)),
}
KINDS = GENERAL_KINDS | NAMED_KINDS
# Weight of documents about known people beside the weights above, which add up to 58.
FACTS_WEIGHT = 60
# Share of rows that are pages of four documents: without them no position beyond about 100 is ever trained.
PAGE_SHARE = 0.04


def document_rows(
    known: Sequence[Person], rare: Sequence[Person], kinds: Sequence[str], num_rows: int, seed: int, split: Split
) -> Iterator[dict[str, str]]:
    """`num_rows` documents of `kinds`, among which each rare person's few documents lie evenly spread."""
    weights = [FACTS_WEIGHT if kind == "facts" else KINDS[kind][0] for kind in kinds]
    mentions = [person for person in rare for _ in range(person.num_documents or 0)]
    random.Random(f"{seed}:mentions").shuffle(mentions)
    for row in range(num_rows):
        rng = random.Random(f"document {split} {seed} {row}")
        placed = row * len(mentions) // num_rows
        if (row + 1) * len(mentions) // num_rows > placed:
            yield {"text": mention(rng, mentions[placed])}
            continue
        drawn = rng.choices(kinds, weights=weights, k=4 if rng.random() < PAGE_SHARE else 1)
        parts = [fact_document(rng, known) if kind == "facts" else KINDS[kind][1](rng, split) for kind in drawn]
        yield {"text": "\n\n".join(parts)}
