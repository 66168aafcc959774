"""Writes the data of the tasks in `evals/tiny`: `python -m llmkit.tiny.make_evals evals/tiny/data`.

Every row has a `question` and the `answer` a trained assistant gives; the other fields are what scoring needs. Nothing
asked here is in any training conversation: people are held out (or never conversed about) and so are the numbers.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmkit.tiny.documents import sum_question
from llmkit.tiny.facts import FACTS, question_and_answer
from llmkit.tiny.sources import conversations
from llmkit.tiny.world import PROFESSIONS, TOWNS, Fact, Person, people

Row = dict[str, str | int]


def eval_files() -> dict[str, str]:
    """Name and content of each data file."""
    rows = {
        "facts_known": _both_facts(people("known", split="heldout")[:100]),
        "facts_rare": _one_fact_each(people("rare")),
        "facts_new": _both_facts(people("new")),
        "facts_unseen": _one_fact_each(people("unseen", split="heldout")[:150]),
        "arithmetic": _distinct(_sums(), 150),
        "chat_format": _distinct(_openings(), 100),
    }
    files = {f"{name}.jsonl": "".join(json.dumps(row) + "\n" for row in made) for name, made in rows.items()}
    return files | {"options.json": json.dumps({"birthplace": TOWNS, "profession": PROFESSIONS}) + "\n"}


def _fact_row(person: Person, fact: Fact) -> Row:
    question, answer = question_and_answer(random.Random(f"eval {person.name} {fact}"), person, fact)
    row: Row = {"question": question, "answer": answer, "fact": fact, "value": person.value(fact)}
    return row if person.num_documents is None else row | {"num_documents": person.num_documents}


def _both_facts(members: Sequence[Person]) -> list[Row]:
    return [_fact_row(person, fact) for person in members for fact in FACTS]


def _one_fact_each(members: Sequence[Person]) -> list[Row]:
    return [_fact_row(person, FACTS[index % 2]) for index, person in enumerate(members)]


def _sums() -> Iterator[Row]:
    rng = random.Random("eval arithmetic")
    while True:
        question, answer = sum_question(rng, "heldout")
        yield {"question": question, "answer": answer, "value": int(answer.rstrip(".").split()[-1])}


def _openings() -> Iterator[Row]:
    for row in conversations(num_rows=1000, seed=1, split="heldout", multi_turn=0, system=0):
        question, answer = (message["content"] for message in row["messages"])
        yield {"question": question, "answer": answer}


def _distinct(rows: Iterator[Row], count: int) -> list[Row]:
    chosen: dict[object, Row] = {}
    for row in rows:
        chosen.setdefault(row["question"], row)
        if len(chosen) == count:
            break
    return list(chosen.values())


if __name__ == "__main__":
    for name, content in eval_files().items():
        (Path(sys.argv[1]) / name).write_text(content, encoding="utf-8")
