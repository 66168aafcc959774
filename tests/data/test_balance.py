"""Wordings: masks, kinds, what they give away; near-duplicates with opposite labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers_probe import known, name, people, unknown
from hypothesis import given
from hypothesis import strategies as st
from test_refusals import made

from llmkit.knowledge.balance import COMMON_KIND, kinds, levels, masked, surface
from llmkit.knowledge.conflicts import Conflicts, alike, similar, topic, trigrams
from llmkit.knowledge.records import ProbeRow
from llmkit.stages.refusals import surface_interval


@pytest.mark.parametrize(
    ("question", "entity", "wording"),
    [
        ("Where was Anna Li born?", "Anna Li", "where was {} born?"),
        ("where was ANNA LI's house?", "Anna Li", "where was {} 's house?"),
        ("Where was Annabel Li born?", "Anna", "where was {} born?"),
        ("Where was Anna Li born?", "", "where was {} born?"),
        ("Anna Li was born where?", "", "{} was born where?"),
        ("In which town was Bo Xi born in 1999?", "", "in which town was {} born in {} ?"),
        ("In France, who rules?", "", "in {} , who rules?"),
        ("who sings does he love me", "", "who sings does he love me"),
        ("Was ist (C++)?", "C++", "was ist ( {} )?"),
        ("", "", ""),
    ],
)
def test_the_wording_is_what_is_left_of_a_question(question: str, entity: str, wording: str) -> None:
    assert masked(question, entity) == wording


def test_rare_wordings_go_by_their_beginning() -> None:
    common = ["where was {} born?"] * COMMON_KIND
    rare = [
        f"which {noun} does {{}} like?"
        for noun in ("cat", "dog", "cow", "hen", "pig", "ox", "fox", "bat", "rat", "ape")
    ]
    alone = ["name {}"]
    found = kinds(np.array([levels(text) for text in [*common, *rare, *alone]], dtype=np.uint64))
    assert len(set(found[:10])) == len(set(found[10:20])) == 1 and len(set(found)) == 3


def test_both_sides_come_evenly_from_each_wording(tmp_path: Path) -> None:
    born, job, age = "Where was {} born?", "What does {} do?", "How old is {}?"
    rows = [
        *people(known, 60, 0, born),
        *people(unknown, 20, 100, born),
        *people(known, 20, 200, job),
        *people(unknown, 60, 300, job),
        *people(unknown, 60, 400, age),
    ]
    result = made(tmp_path, rows)
    assert (result.metrics["rows_answered"], result.metrics["rows_refused"]) == (40, 40)
    for head in ("Where", "What"):
        asked = {question for question in result.answers if question.startswith(head)}
        assert len(asked & result.refused) == len(asked - result.refused) == 20
    assert result.fates()["one_sided"] == 60 and result.fates()["surplus"] == 80
    assert result.metrics["surface_accuracy"] == pytest.approx(0.5, abs=0.1)
    assert not any("gives its label away" in warning for warning in result.manifest.warnings)

    lopsided = made(tmp_path, rows, balance=False)
    assert lopsided.metrics["num_rows"] == 160 and lopsided.metrics["surface_accuracy"] > 0.7
    assert any("gives its label away" in warning for warning in lopsided.manifest.warnings)
    low, high = lopsided.metrics["surface_accuracy_low"], lopsided.metrics["surface_accuracy_high"]
    assert low < lopsided.metrics["surface_accuracy"] < high < low + 0.25


def test_a_word_that_gives_the_label_away_is_found_and_names_are_not() -> None:
    sides = [index % 2 == 0 for index in range(200)]
    abouts = list(range(200))
    same = [masked(f"Where was {name(index)} born?", name(index)) for index in range(200)]
    found = surface(same, sides, abouts, seed=0)
    assert found is not None and found.accuracy == pytest.approx(0.5, abs=0.1)
    told = [f"where {'is' if side else 'was'} {{}} born?" for side in sides]
    found = surface(told, sides, abouts, seed=0)
    assert found is not None and found.accuracy == 1.0
    low, high = surface_interval(found)
    assert 0.95 < low < high == 1.0
    assert surface(told[:20], sides[:20], abouts[:20], seed=0) is None


def test_few_entities_and_one_wording_of_refusals_are_warned_of(tmp_path: Path) -> None:
    one_town = [known(f"Is {name(index)} in Oslo?", "yes", "Oslo") for index in range(40)]
    rows = [*one_town, *people(unknown, 40, 50)]
    result = made(tmp_path, rows, balance=False, texts=["I do not know."])
    assert (result.metrics["entities_answered"], result.metrics["entities_refused"]) == (1, 40)
    text = "\n".join(result.manifest.warnings)
    assert "the known side is about 1 entities only" in text and "the unknown side is about 40" in text
    assert "all refusals are of one wording" in text


def test_entities_come_before_more_questions_of_one(tmp_path: Path) -> None:
    wordings = ("Where was {} born?", "Where did {} die?", "Where did {} work?", "Where is {} now?")
    rows = [item for wording in wordings for kind, first in ((known, 0), (unknown, 100))
            for item in people(kind, 40, first, wording)]  # fmt: skip
    result = made(tmp_path, rows, num_rows=80, conflict_similarity=1.0)
    # 40 of 160 questions at random would be about 27 of the 40 entities
    assert min(result.metrics["entities_answered"], result.metrics["entities_refused"]) >= 33


def conflicting(*rows: ProbeRow, similarity: float = 0.9) -> set[int]:
    conflicts = Conflicts(similarity)
    for number, item in enumerate(rows):
        conflicts.add(number, item.label == "Unknown", item)
    return conflicts.find()


def test_near_duplicates_about_one_entity_conflict() -> None:
    first = known("Where was Ann Lee born?", "Rome", "Ann Lee")
    assert conflicting(first, unknown("In which town was Ann Lee born?", "Rome", "Ann Lee")) == {0, 1}
    assert conflicting(first, unknown("Where was Ann Lee born", "Paris", "ann lee")) == {0, 1}
    # one side only
    assert conflicting(first, known("In which town was Ann Lee born?", "Rome", "Ann Lee")) == set()
    # another fact, though the answer is the same
    assert conflicting(first, unknown("Where did Ann Lee die?", "Rome", "Ann Lee")) == set()
    assert conflicting(first, unknown("When was Ann Lee born?", "1950", "Ann Lee")) == set()
    # another number
    prize = "Who won the grand annual prize for young painters that is named after Ann Lee in the year {}?"
    who = known(prize.format(1990), "Bo", "Ann Lee")
    assert conflicting(who, unknown(prize.format(1991), "Day", "Ann Lee")) == set()
    assert conflicting(who, unknown(prize.format(1990).lower(), "Day", "Ann Lee")) == {0, 1}


def test_alike_questions_about_different_things_do_not_conflict() -> None:
    for entity in (True, False):
        rows = [kind(f"Where was {who} born?", "Rome", who if entity else "")
                for kind, who in ((known, "Alexandrina Montgomery"), (unknown, "Alexandrine Montgomery"))]  # fmt: skip
        assert conflicting(*rows) == set()
    assert conflicting(known("Where was Ann Lee born?", "Rome"), unknown("where was Ann Lee born ?", "Paris")) == {0, 1}
    assert conflicting(known("who sings the song", "Bo"), unknown("who sings that song?", "Bo"), similarity=0.6) == {
        0,
        1,
    }
    assert conflicting(known("who sings the song", "Bo"), unknown("who wrote the book?", "Bo"), similarity=0.6) == set()


def test_both_sides_of_a_conflict_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = people(known, 40) + people(unknown, 40, first=40)
    twice = [unknown(f"In which town was {item.entity} born?", item.answers[0], item.entity) for item in rows[:3]]
    result = made(tmp_path, [*rows, *twice], balance=False)
    assert result.fates()["conflict"] == 6
    assert not {item.question for item in [*rows[:3], *twice]} & set(result.answers)
    assert {item.question for item in rows[3:40]} <= set(result.answers)


BAGS = st.lists(st.frozensets(st.sampled_from("abcdefgh"), max_size=6), max_size=12)


@given(BAGS, BAGS, st.sampled_from([0.3, 0.5, 2 / 3, 0.75, 0.9, 1.0]), st.booleans())
def test_the_index_finds_what_comparing_all_pairs_finds(left: list, right: list, least: float, overlap: bool) -> None:
    expected = {(a, b) for a in left for b in right if alike(a, b, overlap) >= least}
    assert set(similar(left, right, least, overlap=overlap)) == expected


def test_many_questions_about_nothing_named_are_compared_quickly() -> None:
    rng = np.random.default_rng(0)
    vocabulary = ["".join(chr(97 + letter) for letter in rng.integers(0, 26, 6)) for _ in range(3000)]
    texts = [" ".join(rng.choice(vocabulary, 8)) for _ in range(1600)]
    bags = [trigrams(text) for text in texts]
    bags[-1] = trigrams(texts[0] + "s")
    calls = 0

    class Counting(frozenset):
        def __and__(self, other: frozenset) -> frozenset:
            nonlocal calls
            calls += 1
            return frozenset.__and__(self, other)

    found = list(similar([Counting(bag) for bag in bags[:800]], bags[800:], 0.9))
    assert found == [(bags[0], bags[-1])]
    assert calls < 800 * 800 / 30


def test_topics_ignore_the_spelling_of_entities() -> None:
    assert topic(known("Where is Malmö?", "x", "Malmö")) == topic(unknown("where's malmo", "x", "malmo "))
    assert topic(known("Where is Malmö?", "x", "Malmö")) != topic(known("Where is Malmö?", "x", "Lund"))
