"""Questions from the fields of rows and from patterns in texts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from llmkit.errors import DataError
from llmkit.knowledge.records import Question
from llmkit.knowledge.templates import Bad, lookup, questions_of
from llmkit.recipe.knowledge import TemplateSpec
from llmkit.recipe.templates import check_templates

ROW: dict[str, Any] = {
    "name": {"common": "Norland", "native": {"nor": {"common": "Norlandet"}}},
    "capital": ["Alba"],
    "seats": ["Alba", "Bruma", "Corvale"],
    "area": 180.0,
    "height": 12.5,
    "population": 0,
    "languages": {"a": "Norlandic", "b": "Danish"},
    "currencies": {"NOC": {"name": "crown", "symbol": "kr"}, "EUR": {"name": "euro", "symbol": "€"}},
    "landlocked": True,
    "subregion": "",
    "motto": None,
    "rating": float("nan"),
    "flat.key": "no",
}


def ask(question: str, answers: str | list[str], row: Any = ROW, **more: Any) -> list[Question | Bad]:
    return list(questions_of(row, [TemplateSpec(question=question, answers=answers, **more)], "f:1"))


def answers(template: str) -> tuple[str, ...] | str:
    (made,) = ask("Of {name.common}?", template)
    return made.answers if isinstance(made, Question) else made.detail


def test_fields_are_filled_in() -> None:
    (made,) = ask("What is the capital of {name.common}?", "{capital}", entity="{name.common}")
    assert made == Question("What is the capital of Norland?", ("Alba",), "Norland", "", "", "f:1")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{seats}", ("Alba", "Bruma", "Corvale")),
        ("{seats[1]}", ("Bruma",)),
        ("{seats[*]}", ("Alba", "Bruma", "Corvale")),
        ("{languages}", ("Norlandic", "Danish")),
        ("{languages.b}", ("Danish",)),
        ("{currencies[*].name}", ("crown", "euro")),
        ("{currencies.EUR.symbol}", ("€",)),
        ("the {currencies[*].name} of {name.common}", ("the crown of Norland", "the euro of Norland")),
        ("{area} km", ("180 km",)),
        ("{height}", ("12.5",)),
        ("{population}", ("0",)),
        ("{{{capital}}} or {{}}", ("{Alba} or {}",)),
        ("yes", ("yes",)),
    ],
)
def test_values(template: str, expected: tuple[str, ...]) -> None:
    assert answers(template) == expected


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{nothing}", "missing or empty"),
        ("{subregion}", "missing or empty"),
        ("{motto}", "missing or empty"),
        ("{rating}", "missing or empty"),
        ("{seats[3]}", "missing or empty"),
        ("{seats.name}", "missing or empty"),
        ("{capital[0][0]}", "missing or empty"),
        ("{name.common.upper}", "missing or empty"),
        ("{currencies}", "is dict, not text or a number"),
        ("{landlocked}", "is bool, not text or a number"),
        ("{seats} {languages}", "two fields with several values"),
    ],
)
def test_a_template_that_the_row_cannot_fill_does_not_apply(template: str, why: str) -> None:
    (made,) = ask("Of {name.common}?", template)
    assert isinstance(made, Bad) and made.reason == "template does not apply" and made.where == "f:1"
    assert why in made.detail and "templates[0]" in made.detail


@pytest.mark.parametrize("field", ["__class__", "name.__class__", "name.__class__.__mro__", "0", "name.common.__len__"])
def test_a_field_reaches_plain_data_only(field: str) -> None:
    assert lookup(ROW, field) == []
    (made,) = ask(f"Is {{{field}}} so?", "{capital}")
    assert isinstance(made, Bad) and "missing or empty" in made.detail


def test_format_strings_are_not_run() -> None:
    row = {"a": "{b}", "b": "secret", "c!r": "kept", "d:>9": "kept too"}
    (made,) = ask("What of {a}, {c!r}, {d:>9}?", "{a}", row)
    assert isinstance(made, Question) and made.question == "What of {b}, kept, kept too?" and made.answers == ("{b}",)


def test_a_question_has_one_value_a_field() -> None:
    assert [type(made) for made in ask("Which land has {capital}?", "{name.common}")] == [Question]
    (made,) = ask("Which land has {seats}?", "{name.common}")
    assert isinstance(made, Bad) and "3 values here; name one of them" in made.detail
    (made,) = ask("Which land has {seats[0]}?", "{name.common}", entity="{seats}")
    assert isinstance(made, Bad)


def test_several_templates_and_accepted_answers() -> None:
    specs = [
        TemplateSpec(question="Capital of {name.common}?", answers=["{capital}", "the city of {capital}", "{capital}"]),
        TemplateSpec(question="Motto of {name.common}?", answers="{motto}"),
        TemplateSpec(question="Area of {name.common}?", answers="{area}"),
    ]
    made = list(questions_of(ROW, specs, "f:1"))
    assert [type(each) for each in made] == [Question, Bad, Question]
    assert isinstance(made[0], Question) and made[0].answers == ("Alba", "the city of Alba")
    assert isinstance(made[1], Bad) and made[1].detail.startswith("templates[1]")


def test_rows_that_are_no_objects() -> None:
    for row in (None, "text", ["a"], 3):
        (made,) = ask("Of {a}?", "{b}", row)
        assert isinstance(made, Bad) and made.reason == "unreadable row"


PATTERN = r"(?P<who>[A-Z]\w+ [A-Z]\w+) was born in (?P<town>\w+)(?: in (?P<year>\d{4}))?"
TEXT = "Ida Berg was born in Alba in 1901. Later, Ivo Falk was born in Bruma.\nNothing else happened."


def test_every_match_in_a_text_gives_a_question() -> None:
    made = ask("Where was {who} born?", "{town}", {"text": TEXT}, match=PATTERN, entity="{who}")
    assert [(each.question, each.answers, each.entity) for each in made if isinstance(each, Question)] == [
        ("Where was Ida Berg born?", ("Alba",), "Ida Berg"),
        ("Where was Ivo Falk born?", ("Bruma",), "Ivo Falk"),
    ]
    assert all(isinstance(each, Question) and each.document == TEXT for each in made)


def test_a_match_without_a_group_does_not_hide_the_others() -> None:
    text = TEXT.replace("Bruma", "Bruma. Uta Lind was born in Elsby in 1950")
    made = ask("When was {who} born?", "{year}", {"text": text}, match=PATTERN)
    assert [type(each) for each in made] == [Question, Bad, Question]


def test_texts_without_a_match_are_counted() -> None:
    for row in ({"text": "Nobody."}, {"text": ""}, {"text": None}, {"title": "no text"}):
        (made,) = ask("Where was {who} born?", "{town}", row, match=PATTERN)
        assert isinstance(made, Bad) and "'match' finds nothing" in made.detail


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"question": "Of {a?"}, "templates[1].question: 'Of {a?' has an unpaired {"),
        ({"question": "Of a}?"}, "templates[1].question: 'Of a}?' has an unpaired }"),
        ({"question": "Of {}?"}, "templates[1].question: '{}' is no field"),
        ({"question": "Of {a..b}?"}, "'{a..b}' is no field"),
        ({"question": "Of {a[b]}?"}, "'{a[b]}' is no field"),
        ({"question": "Of {[0]}?"}, "'{[0]}' is no field"),
        ({"question": "Who?"}, "names no field, so every row would ask the same"),
        ({"answers": []}, "templates[1].answers: is empty"),
        ({"answers": ["{a}", "{b"]}, "templates[1].answers[1]: '{b' has an unpaired {"),
        ({"entity": "{a.}"}, "templates[1].entity: '{a.}' is no field"),
        ({"match": "(?P<a>x"}, "templates[1].match: '(?P<a>x' is no regular expression (missing )"),
        ({"match": "(x)"}, "'(x)' has no named groups"),
        ({"match": "(?P<ab>x)"}, "{a} is no named group of 'match'; did you mean {ab}?"),
        ({"match": "(?P<zzz>x)"}, "{a} is no named group of 'match' (zzz)"),
    ],
)
def test_malformed_templates_are_named(fields: dict[str, Any], problem: str) -> None:
    good = TemplateSpec(question="Of {a}?", answers="{a}")
    bad = TemplateSpec(**{"question": "Of {a}?", "answers": "{a}", **fields})
    problems = check_templates([good, bad])
    assert any(problem in found for found in problems), problems
    assert all(found.startswith("templates[1]") for found in problems)
    with pytest.raises(DataError, match=r"templates\[1\]"):
        list(questions_of({"a": "b", "text": "x"}, [good, bad], "f:1"))


def test_good_templates_have_no_problems() -> None:
    specs = [
        TemplateSpec(question="Of {name.common}?", answers=["{capital[0]}", "{currencies[*].name}"], entity="{name}"),
        TemplateSpec(question="Where was {who} born?", answers="{town}", entity="{who}", match=PATTERN),
    ]
    assert check_templates(specs) == []


def test_reasons_can_be_counted() -> None:
    made = [each for row in (ROW, {"name": {}}, 3) for each in ask("Of {name.common}?", "{capital}", row)]
    assert Counter(each.reason for each in made if isinstance(each, Bad)) == {
        "template does not apply": 1,
        "unreadable row": 1,
    }
