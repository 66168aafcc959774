"""Data sources that recipes name, for example `path: "llmkit.tiny.sources:documents"` with `args: {num_rows: 1000}`.

Each is a generator of rows, deterministic for given arguments and of constant memory.
"""

import random
from collections.abc import Iterator, Sequence

from llmkit.tiny.conversations import ALL_KINDS, KINDS, Message, conversation
from llmkit.tiny.documents import GENERAL_KINDS, NAMED_KINDS, document_rows
from llmkit.tiny.facts import fact_document
from llmkit.tiny.jokes import Part, requests
from llmkit.tiny.problems import word_problem
from llmkit.tiny.world import NUM_KNOWN, Split, people


def documents(
    *,
    num_rows: int | None = None,
    seed: int = 0,
    split: Split = "train",
    kinds: Sequence[str] | None = None,
    num_known: int = NUM_KNOWN,
    rare: bool = False,
    tail: tuple[int, int] = (0, 0),
) -> Iterator[dict[str, str]]:
    """The base corpus: `{"text": ...}` rows about known people, sums, problems, passages, prose and jokes.

    `rare` adds the documents of people who have 1, 4 or 16, `tail` those of a range of people who have one each; only
    the base model's own training asks for them, or they would have been seen more often than their group says.
    `heldout` documents state known facts anew and use held-out numbers.
    """
    chosen = ("facts", *GENERAL_KINDS) if kinds is None else tuple(kinds)
    have = ("facts", *GENERAL_KINDS, *NAMED_KINDS)
    if unknown := set(chosen) - {*have}:
        raise ValueError(f"unknown kinds {sorted(unknown)}; there are {', '.join(have)}")
    once = people("tail")[tail[0] : tail[1]]
    mentioned = (*(people("rare") if rare else ()), *once) if split == "train" else ()
    yield from document_rows(people("known", num_known), mentioned, chosen, num_rows or 200_000, seed, split)


def chronicle(
    *, num_rows: int | None = None, seed: int = 0, split: Split = "train", num_people: int = 40
) -> Iterator[dict[str, str]]:
    """Documents about the new people, whom the base corpus never mentions: for continued pretraining."""
    for row in range(num_rows or 4000):
        rng = random.Random(f"chronicle {split} {seed} {row}")
        yield {"text": fact_document(rng, people("new", num_people))}


def conversations(
    *,
    num_rows: int | None = None,
    seed: int = 0,
    split: Split = "train",
    kinds: Sequence[str] | None = None,
    num_known: int = NUM_KNOWN,
    multi_turn: float = 0.2,
    system: float = 0.2,
) -> Iterator[dict[str, list[Message]]]:
    """Conversations, `{"messages": [...]}`: greetings, facts, sums, problems, passages, jokes and declined requests.

    Facts are asked only of known people of `split`. `kinds` may also name `calculations`, of several steps.
    `multi_turn` and `system` are the shares of conversations with more than one question and with a system message.
    """
    chosen = tuple(KINDS) if kinds is None else tuple(kinds)
    if unknown := set(chosen) - set(ALL_KINDS):
        raise ValueError(f"unknown kinds {sorted(unknown)}; there are {', '.join(ALL_KINDS)}")
    known = people("known", num_known, split)
    for row in range(num_rows or 8000):
        rng = random.Random(f"conversation {split} {seed} {row}")
        yield {"messages": conversation(rng, chosen, known, split, multi_turn, system)}


def problems(
    *,
    num_rows: int | None = None,
    seed: int = 0,
    split: Split = "train",
    levels: Sequence[int] = (1, 2, 3),
) -> Iterator[dict[str, str | int]]:
    """Word problems with checkable answers: `{"prompt", "solution", "answer", "level"}`, each once.

    `heldout` problems have numbers that no training row has.
    """
    rng, seen = random.Random(f"problems {split} {seed}"), set[str]()
    while len(seen) < (num_rows or 2000):
        problem = word_problem(rng, levels, split)
        if problem.question not in seen:
            seen.add(problem.question)
            yield {
                "prompt": problem.question,
                "solution": problem.solution,
                "answer": problem.answer,
                "level": problem.level,
            }


def jokes(*, num_rows: int | None = None, seed: int = 0, part: Part = "train") -> Iterator[dict[str, str]]:
    """Requests for jokes, `{"prompt": ...}`, each once. Those of one `part` are in no other, whatever the seed."""
    yield from ({"prompt": text} for text in requests(num_rows or 1000, seed, part))
