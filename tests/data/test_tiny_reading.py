"""The embedded world's rows for reading and looking up: nothing in them is known beforehand, nobody is asked again."""

from __future__ import annotations

import json
import random
import re

from llmkit.tiny.documents import GENERAL_KINDS, NAMED_KINDS
from llmkit.tiny.questions import honesty, library, tools
from llmkit.tiny.searches import conversations
from llmkit.tiny.sources import documents
from llmkit.tiny.world import PROFESSIONS, TOWNS, all_names, visitor

NAMES = set(all_names())
_FULL_NAME = re.compile(r"(?=\b([A-Z][a-z]+ [A-Z][a-z]+))")
_FACT = re.compile(rf"\b({'|'.join((*TOWNS, *PROFESSIONS))})\b", re.IGNORECASE)


def test_visitors_are_nobody_of_the_place() -> None:
    drawn = [visitor(random.Random(seed)) for seed in range(2000)]
    assert not {person.name for person in drawn} & NAMES
    assert len({person.name for person in drawn}) > 1900
    assert {person.town for person in drawn} == set(TOWNS)


def test_a_card_holds_what_is_answered() -> None:
    for row in documents(num_rows=500, kinds=["cards"]):
        facts = [found.lower() for found in _FACT.findall(row["text"])]
        assert facts.count(facts[-1]) >= 2, f"the last answer stands on no card: {row['text']}"
        assert not [name for name in _FULL_NAME.findall(row["text"]) if name in NAMES]


def test_kinds_that_no_recipe_names_leave_the_others_as_they_are() -> None:
    assert list(documents(num_rows=50)) == list(documents(num_rows=50, kinds=["facts", *GENERAL_KINDS]))
    for kind in NAMED_KINDS:
        rows = [row["text"] for row in documents(num_rows=20, kinds=[kind])]
        assert not [name for text in rows for name in _FULL_NAME.findall(text) if name in NAMES]
        assert all(rows) and rows == [row["text"] for row in documents(num_rows=20, kinds=[kind])]


def test_a_search_is_for_whom_the_question_names_and_its_answer_stands_in_the_result() -> None:
    rows = list(conversations(num_rows=1000, programs=True))
    asked = {row["entity"] for row in (*tools(), *honesty())}
    found = 0
    for row in rows:
        question, call, result, answer = row["messages"]
        name = call["tool_calls"][0]["function"]["arguments"]["query"]
        assert name in question["content"] and name in NAMES and name not in asked
        if result["content"] == "Nothing found.":
            assert name in answer["content"]
        else:
            found += 1
            assert name in result["content"]
            assert answer["content"].rstrip(".").lower() in result["content"].lower()
            is_town = answer["content"].rstrip(".") in TOWNS
            asks_town = any(word in question["content"] for word in ("born", "from", "birthplace", "home town"))
            assert is_town == asks_town
    assert 550 < found < 650
    assert len({row["messages"][0]["content"] for row in rows}) == 1000
    assert [tool["function"]["name"] for tool in rows[0]["tools"]] == ["search", "python"]
    assert json.dumps(rows) == json.dumps(list(conversations(num_rows=1000, programs=True)))
    sought = {row["messages"][1]["tool_calls"][0]["function"]["arguments"]["query"] for row in rows}
    assert not sought & {row["text"].split(" was born")[0] for row in library()}
