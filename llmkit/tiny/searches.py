"""Conversations in which somebody is looked up: each about another person, so that a name is copied and not learned."""

import random
from collections.abc import Iterator
from typing import Any

from llmkit.chat.schemas import python_schema, search_schema
from llmkit.chat.turn import Call, result_message
from llmkit.knowledge.refusing import shipped_texts
from llmkit.tiny.facts import FACTS, question_and_answer
from llmkit.tiny.phrases import LIBRARY, fill
from llmkit.tiny.world import people
from llmkit.tools.index import Passage
from llmkit.tools.search import written

MAX_CHARS = 2000


def conversations(
    *, num_rows: int = 4000, missing: float = 0.4, programs: bool = False, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Rows of `messages` and `tools`: a question on a person of whom no document tells, the search, what is said then.

    Nobody of them is asked about in an evaluation.

    Args:
        num_rows: at most 16,000.
        missing: share of those of whom the search finds no page either.
        programs: whether `python` is at hand beside `search`.
    """
    tools = [search_schema(), *([python_schema()] if programs else [])]
    strangers = people("unseen", 20_000, "train")
    not_found = shipped_texts("en", "not_found")
    rng = random.Random(f"searches {seed}")
    for row, person in enumerate(rng.sample(strangers, len(strangers))[:num_rows]):
        question, answer = question_and_answer(rng, person, FACTS[row % len(FACTS)])
        is_there = rng.random() >= missing
        page = [Passage(fill(LIBRARY, person), "", person.name, 1.0)] if is_there else []
        said = answer if is_there else rng.choice(not_found).replace("{entity}", person.name)
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "", "tool_calls": [Call("search", {"query": person.name}).as_message()]},
            result_message(written(page, MAX_CHARS)),
            {"role": "assistant", "content": said},
        ]
        yield {"messages": messages, "tools": tools}
