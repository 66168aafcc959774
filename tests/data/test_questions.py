"""Rows of question files: columns, answers in all their shapes, and what cannot be asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from llmkit.errors import DataError
from llmkit.knowledge.questions import from_rows, sift
from llmkit.knowledge.records import Question
from llmkit.knowledge.repeats import Seen, settle
from llmkit.knowledge.templates import Bad
from llmkit.recipe.knowledge import QuestionSource, TemplateSpec


def years_differ(accepted: Sequence[str]) -> bool:
    return len({answer for answer in accepted if answer.isdigit()}) > 1


def read(*rows: Any, seen: Seen | None = None, **fields: Any) -> list[Question | Bad]:
    raws = [(row, f"f:{line}") for line, row in enumerate(rows, start=1)]
    return list(from_rows(raws, QuestionSource(path="f", **fields), years_differ, seen))


def only(*rows: Any, **fields: Any) -> Question:
    (made,) = read(*rows, **fields)
    assert isinstance(made, Question), made
    return made


def reason(row: Any, **fields: Any) -> tuple[str, str]:
    (made,) = read(row, **fields)
    assert isinstance(made, Bad) and made.where == "f:1", made
    return made.reason, made.detail


def test_a_row_with_everything() -> None:
    row = {"question": " Who  wrote\nit? ", "answers": "Ida", "entity": "Ida B", "group": "known", "document": " a\nb "}
    assert only({**row, "id": 7}) == Question("Who wrote it?", ("Ida",), "Ida B", "known", "a\nb", "f:1")
    assert only({**row, "language": "de"}).language == "de"
    assert only({"question": "Who?", "answers": "Ida"}) == Question("Who?", ("Ida",), source="f:1")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("Alba", ("Alba",)),
        (["Alba", "the city of Alba", "Alba"], ("Alba", "the city of Alba")),
        (("Alba", "Bruma"), ("Alba", "Bruma")),
        ('["politician", "polit."]', ("politician", "polit.")),
        (' ["a"] ', ("a",)),
        (1986, ("1986",)),
        ([3.0, "three"], ("3", "three")),
        ("[1986]", ("1986",)),
        (["", " ", None, "?", "Alba"], ("Alba",)),
        (["$", "dollar"], ("dollar",)),
        ("C++", ("C++",)),
        ("東京", ("東京",)),
    ],
)
def test_shapes_of_answers(answers: Any, expected: tuple[str, ...]) -> None:
    assert only({"question": "Which?", "answers": answers}).answers == expected


@pytest.mark.parametrize(
    ("row", "expected", "detail"),
    [
        ("text", "unreadable row", "this is str"),
        (None, "unreadable row", "this is NoneType"),
        ({"question": "Who?"}, "missing column", "answers (has question)"),
        ({"question": "Who?", "answer": "x"}, "missing column", "did you mean 'answer'?"),
        ({"answers": "x"}, "missing column", "question"),
        ({"question": "", "answers": "x"}, "empty question", ""),
        ({"question": None, "answers": "x"}, "empty question", ""),
        ({"question": "??", "answers": "x"}, "empty question", "??"),
        ({"question": {"text": "Who?"}, "answers": "x"}, "unreadable row", "question is dict"),
        ({"question": "Who?", "answers": ""}, "empty answer", "Who?"),
        ({"question": "Who?", "answers": []}, "empty answer", "Who?"),
        ({"question": "Who?", "answers": None}, "empty answer", "Who?"),
        ({"question": "Who?", "answers": "[]"}, "empty answer", "Who?"),
        ({"question": "Who?", "answers": ["---", ")"]}, "answer without letters or digits", "Who?"),
        ({"question": "Who?", "answers": "['a', 'b']"}, "unreadable row", "are no JSON: ['a', 'b']"),
        ({"question": "Who?", "answers": "[" * 100_000 + "]"}, "unreadable row", "are no JSON"),
        ({"question": "Who?", "answers": "[" + "1" * 5000 + "]"}, "unreadable row", "are no JSON"),
        ({"question": "Who?", "answers": {"text": "a"}}, "unreadable row", "an accepted answer is dict"),
        ({"question": "Who?", "answers": True}, "unreadable row", "an accepted answer is bool"),
        ({"question": "Who?", "answers": [["a"]]}, "unreadable row", "an accepted answer is list"),
        ({"question": "Who?", "answers": "x", "entity": ["a"]}, "unreadable row", "entity is list"),
        ({"question": "Who \ud800?", "answers": "x"}, "broken text", ""),
        ({"question": "Who?", "answers": ["x", "y\udc80"]}, "broken text", ""),
        ({"question": "When?", "answers": ["1986", "1987"]}, "answers that contradict", "When? 1986 | 1987"),
    ],
)
def test_what_cannot_be_asked_is_named(row: Any, expected: str, detail: str) -> None:
    found, why = reason(row)
    assert found == expected and detail in why


def test_the_predicate_sees_only_answers_that_can_be_given() -> None:
    assert only({"question": "When?", "answers": ["1986", "??", "in 1986"]}).answers == ("1986", "in 1986")


def test_columns_by_name_and_path() -> None:
    row = {"q": "Who?", "answer": {"aliases": ["Ida", "I. Berg"]}, "subj": {"name": "Ida"}, "kind": 3}
    columns = {"question": "q", "answers": "answer.aliases", "entity": "subj.name", "group": "kind"}
    assert only(row, columns=columns) == Question("Who?", ("Ida", "I. Berg"), "Ida", "3", "", "f:1")
    several = {"question": "Who?", "a": [{"text": "Ida"}, {"text": "Ivo"}]}
    assert only(several, columns={"answers": "a[*].text"}).answers == ("Ida", "Ivo")


def test_a_name_with_dots_is_a_name_first() -> None:
    row = {"question": "Who?", "answers.text": "Ida", "answers": {"text": "Ivo"}, "No.": "g"}
    assert only(row, columns={"answers": "answers.text", "group": "No."}) == Question(
        "Who?", ("Ida",), "", "g", "", "f:1"
    )


def test_mapped_columns_must_be_there() -> None:
    found, why = reason({"question": "Who?", "answers": "x", "subject": "y"}, columns={"entity": "subjet"})
    assert found == "missing column" and "did you mean 'subject'?" in why
    found, why = reason({"question": "Who?", "answers": "x"}, columns={"group": "a..b"})
    assert found == "missing column" and "a..b" in why


def test_unknown_columns_are_refused() -> None:
    with pytest.raises(
        DataError, match="'columns' names 'anwsers', no part that questions have; did you mean 'answers'"
    ):
        read(columns={"anwsers": "a"})
    specs = [TemplateSpec(question="Of {a}?", answers="{a}")]
    with pytest.raises(DataError, match="'answers', no part that questions made by templates have; it can name group"):
        read(columns={"answers": "a"}, templates=specs)
    with pytest.raises(DataError, match="'text'"):
        read(columns={"text": "a"}, templates=specs)


def test_duplicates_are_named_within_and_across_sources() -> None:
    row = {"question": "Who?", "answers": ["Ida"]}
    other = {"question": "Who?", "answers": ["Ivo"]}
    seen = Seen()
    made = read(row, other, {"question": " Who? ", "answers": '["Ida"]'}, seen=seen)
    assert [type(each) for each in made] == [Question, Question, Bad]
    assert isinstance(made[2], Bad) and (made[2].reason, made[2].where) == ("duplicate", "f:3")
    (again,) = read(row, seen=seen)
    assert isinstance(again, Bad) and again.reason == "duplicate"
    assert [type(each) for each in read(row)] == [Question]


def test_rows_that_ask_the_same_with_other_answers_are_merged_or_left_out() -> None:
    seen = Seen()
    rows = [
        {"question": "What is Will Smith?", "answers": ["actor", "writer"]},
        {"question": "what is  will smith", "answers": ["producer", "Actor"]},
        {"question": "Where was Bo Day born?", "answers": ["Rome"], "entity": "Bo Day"},
        {"question": "Where was Bo Day born?", "answers": ["Bonn"], "entity": "Day, Bo"},
        {"question": "Who?", "answers": ["Ida"]},
    ]
    made = [each for each in read(*rows, seen=seen) if isinstance(each, Question)]
    assert len(made) == 5 and len(seen.disputed) == 2
    found = settle([*made[:4], made[1]])
    assert [(each.question, each.answers) for each in found.kept.values()] == [
        ("What is Will Smith?", ("actor", "writer", "producer", "Actor"))
    ]
    assert [each.where for each in found.contradictory] == ["f:3", "f:4"] and found.num_merged == 2


def test_templates_with_group_and_document() -> None:
    rows = [
        {"n": "Norland", "c": ["Alba"], "r": "North", "about": "Norland's seat is Alba."},
        {"n": "Isle", "c": [], "r": "S"},
    ]
    specs = [TemplateSpec(question="What is the capital of {n}?", answers="{c}", entity="{n}")]
    first, second = read(*rows, templates=specs, columns={"group": "r"})
    assert first == Question("What is the capital of Norland?", ("Alba",), "Norland", "North", "", "f:1")
    assert isinstance(second, Bad) and (second.where, second.reason) == ("f:2", "template does not apply")
    first, second = read(*rows, templates=specs, columns={"document": "about"})
    assert isinstance(first, Question) and first.document == "Norland's seat is Alba."
    assert isinstance(second, Bad) and second.reason == "missing column"


def test_patterns_look_at_the_text_column() -> None:
    specs = [TemplateSpec(question="Capital of {n}?", answers="{c}", match=r"(?P<c>\w+) is the capital of (?P<n>\w+)")]
    text = "Alba is the capital of Norland. Bruma is the capital of Isle."
    assert [each.answers for each in read({"text": text}, templates=specs) if isinstance(each, Question)] == [
        ("Alba",),
        ("Bruma",),
    ]
    made = read({"body": text}, templates=specs, columns={"text": "body"})
    assert all(isinstance(each, Question) and each.document == text for each in made) and len(made) == 2


def test_rows_are_streamed() -> None:
    def endless() -> Any:
        number = 0
        while True:
            number += 1
            yield {"question": f"Who is {number}?", "answers": "Ida"}, f"f:{number}"

    made = from_rows(endless(), QuestionSource(path="f"), years_differ)
    assert [type(next(made)) for _ in range(100)] == [Question] * 100


def test_sift_serves_questions_of_any_origin() -> None:
    bad = Bad("f:9", "template does not apply")
    found = [Question("Who?", ("Ida",), source="a"), bad, Question("Who?", ("Ida",), source="b"), Question("A?", ())]
    made = list(sift(found, years_differ, Seen()))
    assert made[0] == found[0] and made[1] is bad
    assert [each.reason for each in made if isinstance(each, Bad)] == [
        "template does not apply",
        "duplicate",
        "empty answer",
    ]


def test_ids_do_not_depend_on_the_shape_of_the_answers() -> None:
    shapes = [["a", "b"], json.dumps(["a", "b"]), ("a", "b")]
    assert len({only({"question": "Who?", "answers": shape}).id for shape in shapes}) == 1
