"""Snippets of documents, and a sample of a stream."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.knowledge.snippets import reservoir, snippets

SENTENCES = [f"Person {name} was born in the town of Alba on a cold day." for name in "ABCDEFGHIJ"]


def test_a_document_that_fits_is_one_snippet() -> None:
    text = "Ida Berg lives in Alba.\nShe is a baker.\n\nIvo Falk lives in Bruma."
    assert snippets(f"\n {text} \n", 100) == [text]


def test_paragraphs_stay_together_while_they_fit() -> None:
    one, two, three = ("The lake of Alba is deep and cold." + " And wide." * extra for extra in (0, 1, 2))
    assert snippets(f"{one}\n\n{two}\n \n\n{three}", 100) == [f"{one}\n\n{two}", three]
    assert snippets(f"{one}\n\n{two}\n\n{three}", 60) == [one, two, three]


def test_a_long_paragraph_is_cut_between_sentences_and_stays_apart_from_its_neighbours() -> None:
    text = f"A short one about Alba.\n\n{' '.join(SENTENCES)}\n\nAnother about Bruma town."
    found = snippets(text, 130)
    assert found[0] == "A short one about Alba." and found[-1] == "Another about Bruma town."
    assert found[1:-1] == [" ".join(SENTENCES[i : i + 2]) for i in range(0, 10, 2)]


def test_lines_are_borders_before_sentences() -> None:
    lines = [" ".join(SENTENCES[:2]), " ".join(SENTENCES[2:4]), SENTENCES[4]]
    assert snippets("\n".join(lines), 180) == ["\n".join(lines[:1]), "\n".join(lines[1:])]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Ida Berg met J. R. Falk. They spoke.", ["Dr. Ida Berg met J. R. Falk.", "They spoke."]),
        (
            "He came to St. Ignace. Was it cold? Yes! 12 men left.",
            ["He came to St. Ignace.", "Was it cold?", "Yes!", "12 men left."],
        ),
        (
            '"It is cold." Ida left. (So it was.) Ivo stayed.',
            ['"It is cold."', "Ida left.", "(So it was.)", "Ivo stayed."],
        ),
        ("It costs 3.5 crowns, e.g. in Alba. So what?", ["It costs 3.5 crowns, e.g. in Alba.", "So what?"]),
        ("It rained ... and rained . Then it stopped .", ["It rained ... and rained .", "Then it stopped ."]),
        ('He said " I go . " Then he went .', ['He said " I go . "', "Then he went ."]),
        ("巴黎是首都。东京也是首都\uff01真的\uff1f", ["巴黎是首都。", "东京也是首都\uff01", "真的\uff1f"]),
        ("Über Alba. Änderungen folgen.", ["Über Alba.", "Änderungen folgen."]),
    ],
)
def test_sentence_borders(text: str, sentences: list[str]) -> None:
    """Shown by cutting at the length of the longest sentence, with filler that keeps each apart."""
    from llmkit.knowledge.snippets import _BORDERS, _SPACE_OR_MARK, _parts

    spans = _parts(text, (0, len(text)), _BORDERS.index(_SPACE_OR_MARK))
    assert [text[start:end] for start, end in spans] == sentences


def test_only_a_sentence_that_is_too_long_is_cut() -> None:
    long = "Alba " + " ".join(f"word{i}" for i in range(62)) + "."
    text = f"{SENTENCES[0]} {long} {SENTENCES[1]}"
    found = snippets(text, 100)
    assert found[0] == SENTENCES[0] and found[-1] == SENTENCES[1]
    assert " ".join(found[1:-1]) == long and all(len(piece) <= 100 for piece in found)
    flat = "".join(f"x{i}y" for i in range(100))
    assert "".join(snippets(f"one two three four {flat}", 80)[1:]) in flat


def test_headings_part_the_text_and_are_dropped_with_lists_of_numbers_and_scraps() -> None:
    text = (
        " = Alba = \n \n Alba is a town in the north . \n \n = = History = = \n \n It was founded by Ida Berg . \n"
        "# Notes\n\n1 2 3 4 5 1901 1902\n\n## See also\n\nList of towns\n\n== Links ==\n\n* * *"
        "\n\n# Rest\n===\nA B = C and D = E here"
    )
    dropped: Counter[str] = Counter()
    assert snippets(text, 80, dropped) == [
        "Alba is a town in the north .",
        "It was founded by Ida Berg .",
        "===\nA B = C and D = E here",
    ]
    assert dropped == {"heading": 6, "mostly numbers": 2, "too few words": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Yours, Anna", "too few words"),
        ("ha ha ha ha ha ha ha ha", "too few words"),
        ("12 34 56 78, 90 and 11", "mostly numbers"),
        ("--- *** ---", "mostly numbers"),
        ("Ida \ud800 lives in Alba now", "broken text"),
    ],
)
def test_pieces_without_facts(text: str, reason: str) -> None:
    dropped: Counter[str] = Counter()
    assert snippets(text, 100, dropped) == [] and dropped == {reason: 1}


def test_texts_without_anything() -> None:
    for text in ("", " \n\n ", "\n" * 10):
        dropped: Counter[str] = Counter()
        assert snippets(text, 100, dropped) == [] and not dropped


def test_short_facts_are_kept() -> None:
    for text in ("Anna Berg likes tea.", "巴黎是法国的首都", "In 1986 Halley came back"):
        assert snippets(text, 100) == [text]


ALPHABET = st.sampled_from(
    ["word ", "Alba", ". ", ".", "! ", "\n", "\n\n", "= H =\n", "1 ", '" ', "。", "é", " @-@ ", "\t"]
)


@given(st.lists(ALPHABET, max_size=120).map("".join), st.integers(1, 60))
def test_every_snippet_stands_in_the_text_in_order_and_within_the_limit(text: str, limit: int) -> None:
    place = 0
    for piece in snippets(text, limit):
        assert len(piece) <= limit and piece == piece.strip() and piece
        place = text.index(piece, place) + len(piece)


@pytest.mark.parametrize(
    "text",
    [
        "." * 100_000,
        " " * 100_000,
        "= " * 50_000,
        "a. " * 30_000,
        "\n" * 100_000,
        "=" * 100_000,
        "x" * 100_000,
        '. " ' * 20_000,
    ],
)
def test_hostile_texts_take_no_time(text: str) -> None:
    start = time.process_time()
    snippets(f"A {text} b", 100)
    assert time.process_time() - start < 5


def test_the_reservoir_draws_evenly_by_seed_and_keeps_the_order() -> None:
    hits = Counter(item for seed in range(4000) for item in reservoir(range(20), 5, seed))
    assert all(abs(hits[item] - 1000) < 120 for item in range(20))  # 4 standard deviations
    assert reservoir(range(1000), 5, 1) == reservoir(iter(range(1000)), 5, 1) != reservoir(range(1000), 5, 2)
    drawn = reservoir(range(1000), 50, 1)
    assert drawn == sorted(drawn) and len(set(drawn)) == 50
    assert reservoir("abc", 5, 0) == ["a", "b", "c"]


def test_the_reservoir_holds_no_more_than_it_gives() -> None:
    def stream() -> Iterator[str]:
        for index in range(20_000):
            yield f"{index}" * 1000

    tracemalloc.start()
    drawn = reservoir(stream(), 10, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(drawn) == 10 and peak < 1_000_000
