"""The final answer of a text and whether it is the expected one; the rewards `exact` and `choice` that live on it."""

from __future__ import annotations

import random
import time
from fractions import Fraction
from typing import Any

import pytest

from llmkit.errors import DataError, UserError
from llmkit.rewards.answer import MARKS, MAX_CHARS, canonical, changed, found_in, number, same, say
from llmkit.rewards.choice import make_choice
from llmkit.rewards.exact import make_exact
from llmkit.rewards.rows import RowError

STRICT = {
    "The answer is 5.": "5",
    "So the final answer is: $1,234.50. I hope this helps.": "$1,234.50",
    "the answer is\n\n42": "42",
    "The answer is **7**.": "**7",
    "The answer is St. Louis. It is in Missouri.": "St. Louis",
    "48/2 = 24\n#### 24\nDone": "24",
    "\\boxed{\\frac{1}{2}}": "\\frac{1}{2}",
    "\\boxed{\\{1, 2\\}}": "\\{1, 2\\}",
    "\\boxed{\\boxed{7}}": "7",
    "<answer>\n5\n</answer>": "5",
    "<answer>3</answer> or <answer>4</answer>": "4",
    "The answer is 3. No: #### 4": "4",
    "#### 3\nThe answer is 4.": "4",
    "The answer is \\boxed{9}.": "9",
    "<think>The answer is 5.</think> The answer is 6.": "6",
    "It is 5.": None,
    "\\boxed{5": None,
    "<answer>5": None,
    "<answer></answer>": None,
    "##### 5": None,
    "<think>The answer is 5.</think> Bye.": None,
    "": None,
}
LENIENT = {
    "It is 5.": "5",
    "from 3 to -12": "-12",
    "5-3": "3",
    "48/2=24 clips, that is 1/2.": "1/2",
    "(3,5)": "5",
    "x_2 and B12": None,
    "it costs $1,234.50!": "1,234.50",
    "v1.2.3": "3",
    "no number": None,
    "9" * 65: None,
    "The answer is blue, 5 of them": "blue, 5 of them",
}
NUMBERS = {
    "5": 5, "5.": 5, "-5": -5, "\u22125": -5, "+5": 5, "$5": 5, "-$5": -5, "$-5": -5, "5 dollars": 5, "5$": 5, "$5$": 5,
    "5%": 5, "5 percent": 5, "5\\%": 5, "50% of them": 50, "1,234": 1234, "12,345.67": Fraction(1234567, 100),
    "1{,}000": 1000, "1\\,000": 1000, ".5": Fraction(1, 2), "0.50": Fraction(1, 2), "1/2": Fraction(1, 2),
    "1 1/2": Fraction(3, 2), "\\frac12": Fraction(1, 2), "-\\dfrac{3}{4}": Fraction(-3, 4), "1e3": 1000,
    "5 m": 5, "5 km": 5, "5 m/s": 5, "5 m^2": 5, "5\\text{ feet}": 5, "90^\\circ": 90, "**5**": 5, "\\(5\\)": 5,
    "5 apples, because she ate two": 5, "5 times": 5, "5 (five)": 5, "5)": 5, "5 )": 5, "9" * 64: int("9" * 64),
}  # fmt: skip
NO_NUMBERS = (
    "", "five", "5 or 6", "5 and 6", "5, 6", "5-6", "5 to 6", "not 5", "5, not 6", "5 thousand", "5k items", "5M",
    "5M dollars", "5 dozen",
    "5x", "3i", "5\\pi", "5 pi", "2 sqrt(3)", "5²", "2^5", "1/0", "1/2/3", "1,23", "12:30", "x=5", "5=5", "(5)", "0x1F",
    "9" * 65, "\u0663", "nan", "inf", "1e999",
)  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), STRICT.items())
def test_strict_takes_what_stands_behind_the_last_mark(text: str, wanted: str | None) -> None:
    assert found_in(text).strict == wanted


@pytest.mark.parametrize(("text", "wanted"), LENIENT.items())
def test_lenient_takes_the_last_number_where_no_mark_stands(text: str, wanted: str | None) -> None:
    assert found_in(text).lenient == wanted


def test_only_allowed_marks_count() -> None:
    text = "The answer is 1. \\boxed{2} <answer>3</answer> #### 4"
    found = {mark: found_in(text, [mark]).strict for mark in MARKS}
    assert found == {"answer_is": "1", "boxed": "2", "tag": "3", "hash": "4"}
    assert found_in(text, ["boxed", "tag"]).strict == "3"


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_numbers_are_read(text: str, value: Fraction) -> None:
    found = number(text)
    assert found is not None and found.value == value


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_more_or_less_than_a_number_is_none(text: str) -> None:
    assert number(text) is None


def test_any_spelling_of_a_number_is_that_number_and_no_other() -> None:
    rng = random.Random(0)
    for _ in range(60):
        value = rng.choice([rng.randrange(-999, 999), rng.randrange(-(10**9), 10**9)])
        cents = rng.randrange(100)
        amount = value + (Fraction(cents, 100) if value >= 0 else -Fraction(cents, 100))
        sign, size = "-" if value < 0 else "", f"{abs(value)}.{cents:02d}"
        for text in (f"{sign}{size}", f"{sign}{abs(value):,}.{cents:02d}", f"{sign}${size}", f"{sign}{size} apples"):
            assert same(text, str(float(amount))), text
            assert not same(text, str(float(amount + 1))) and not same(changed(text), str(float(amount))), text
            for mark in MARKS:
                assert same(found_in(say(text, [mark]), [mark]).strict, text), (mark, text)


@pytest.mark.parametrize(
    ("given", "expected", "right"),
    [
        ("0.5", "1/2", True),
        ("0.333", "1/3", False),
        ("50%", "0.5", False),
        ("3 * 5 = 15", "15", True),
        ("15 = 16", "15", False),
        ("12 feet", "12", True),
        ("12", "12 feet", True),
        ("12 foot", "12 feet", False),
        ("12 inches", "12 feet", False),
        ("12 apples", "12 apple", True),
        ("5 m2", "5 m^2", True),
        ("5²", "52", False),
        ("PARIS.", "Paris", True),
        ('"Paris"', "Paris", True),
        ("Paris or London", "Paris", False),
        ("Lyon", "Paris", False),
        ("", "Paris", False),
        ("...", "!!", False),
        (None, "5", False),
    ],
)
def test_same(given: str | None, expected: str, right: bool) -> None:
    assert same(given, expected) is right


def test_an_answer_is_said_so_that_it_is_read_to_the_letter() -> None:
    for answer in ("5", "Yes.", "St. Louis", "a\nb", "3-4", "(B)", "1. e4 e5", "x = {1, 2}", "A. B. C"):
        assert found_in(say(answer)).strict == answer
    assert say("a\nb", ["answer_is"]) == "The answer is a\nb.", "nothing better there"


def test_votes_for_one_answer_are_one_text() -> None:
    assert {canonical(text) for text in ("5", "$5.00", "5 apples", "2 + 3 = 5", "10/2", "**5**")} == {"5"}
    assert canonical("Paris.") == canonical("paris") != canonical("Lyon") and canonical("5 or 6") != canonical("5")


HOSTILE = [
    "9" * 10**6, "\\boxed{" * 10**5, "\\boxed{" * 10**5 + "}" * 10**5, "{" * 10**6, "<answer>" * 10**5, "-" * 10**6,
    "the answer is " * 10**5, ",999" * 10**5, "1/" * 10**5, "1 " * 10**6, "." * 10**6, "#" * 10**6, "$" * 10**6,
    "\\frac{1}{" * 10**5, "\\text{" * 10**5, " " * 10**6, "\n" * 10**6, "(A) " * 10**5,
    "The answer is " + "A. " * 10**5,
    "The answer is 1" + "a" * 1900 + "2", "#### " + "1 1/" * 500, "1,111" * 10**5, "\x00\ud800" * 10**5,
]  # fmt: skip


def test_whatever_is_said_is_read() -> None:
    """A model that practises says everything sooner or later."""
    chance, letters = random.Random(0), "0123456789.,$%()[]{}\\ =/*^-+eEabm°²<>\n"
    for _ in range(30_000):
        text = "".join(chance.choice(letters) for _ in range(chance.randint(0, 8)))
        found = found_in(f"The answer is {text}")
        assert same(found.strict, "12") in (True, False) and same(text, found.lenient or "12") in (True, False)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
def test_no_text_takes_long(text: str) -> None:
    exact, choice = make_exact(), make_choice(parse="lenient")
    start = time.process_time()
    exact(completions=[text, text], answer=["5", "Paris"])
    choice(completions=[text, text], answer=["A", "B"])
    assert time.process_time() - start < 0.1


def exact(*completions: Any, answer: Any, parse: Any = "strict", **options: Any) -> list[float | None]:
    values = answer if isinstance(answer, list) else [answer] * len(completions)
    return list(make_exact(parse=parse, **options)(completions=list(completions), answer=values))


def test_exact_scores_each_row_by_its_own_answer() -> None:
    assert exact("The answer is 5.", "#### 6", "\\boxed{Paris}", answer=["5", 6.0, "paris"]) == [1.0, 1.0, 1.0]
    assert exact("The answer is 5.", "#### 6", answer=[6, 5]) == [0.0, 0.0]
    assert exact([{"role": "assistant", "content": "The answer is 5."}], answer=5) == [1.0]


def test_exact_reads_as_it_is_told() -> None:
    assert exact("I get 5", answer=5) == [0.0]
    assert exact("I get 5", answer=5, parse="lenient") == [1.0]
    assert exact("The answer is 5.", answer=5, marks=["boxed"]) == [0.0]


@pytest.mark.parametrize(
    "text",
    ["The answer is 5 or 6.", "The answer is 4, 5, 6.", "5 6 7 8", "The answer is not 5.", "<answer>5 6</answer>", ""],
)
def test_naming_several_answers_earns_nothing(text: str) -> None:
    assert exact(text, answer=5) == exact(text, answer=5, parse="lenient") == [0.0]


def test_exact_reports_both_readings_of_the_same_batch() -> None:
    logged: dict[str, float] = {}
    completions = ["The answer is 5.", "I get 5", "The answer is 6. (5)", "none"]
    make_exact()(completions=completions, answer=[5] * 4, log_metric=logged.__setitem__)
    assert logged == {"exact/strict": 0.25, "exact/lenient": 0.5, "exact/found": 0.5}


@pytest.mark.parametrize(
    "bad", [None, "", "  ", True, float("nan"), float("inf"), ["5"], {"a": 5}, "x" * (MAX_CHARS + 1)]
)
def test_a_row_without_an_answer_is_named(bad: Any) -> None:
    with pytest.raises(RowError, match=r"row 1: its answer is") as caught:
        exact("The answer is 5.", "The answer is 5.", answer=["5", bad])
    assert caught.value.row == 1


def test_columns_and_options_are_checked() -> None:
    with pytest.raises(DataError, match="no column 'answer'"):
        make_exact()(completions=["5"])
    with pytest.raises(DataError, match="2 completions but 1 'answer'"):
        exact("5", "5", answer=["5"])
    for options in ({"parse": "loose"}, {"marks": []}, {"marks": "boxed"}, {"marks": ["bold"]}):
        with pytest.raises(UserError, match="exact: "):
            make_exact(**options)  # type: ignore[arg-type]


def choice(text: str, answer: Any, choices: Any = None, parse: Any = "strict") -> float | None:
    columns = {} if choices is None else {"choices": [choices]}
    return make_choice(parse=parse)(completions=[text], answer=[answer], **columns)[0]


CITIES = ["London", "Paris", "A cat", "B"]


@pytest.mark.parametrize(
    "said",
    [
        "B",
        "b",
        "(B)",
        "B)",
        "B.",
        "**B**",
        "B: Paris",
        "B. Paris",
        "(B) Paris",
        "option B",
        "Paris",
        "B, since it is so",
        "\\text{B}",
        "\\text{(B)}",
        "\\textbf{B}",
        "\\mathrm{B}",
        "\\(B\\)",
    ],
)
def test_choice_takes_a_letter_or_the_text_of_a_choice(said: str) -> None:
    for form in (f"The answer is {said}", f"#### {said}", f"\\boxed{{{said}}}", f"<answer>{said}</answer>"):
        assert choice(form, "B", CITIES[:3]) == choice(form, 1, CITIES[:3]) == 1.0, form
        assert choice(form, "A", CITIES[:3]) == choice(form, 0, CITIES[:3]) == 0.0, form


@pytest.mark.parametrize(
    "said",
    ["A or B", "B or A", "B and C", "A, B", "A/B", "B or something", "both A and B", "not B", "B, no, C", "", "a B"],
)
def test_choice_refuses_hedges(said: str) -> None:
    for parse in ("strict", "lenient"):
        assert choice(f"The answer is {said}.", "B", parse=parse) == 0.0


def test_choice_knows_an_article_and_its_own_letters() -> None:
    assert choice("The answer is a cat", "A") == 0.0
    assert choice("The answer is a cat", "C", CITIES) == 1.0
    assert choice("The answer is A because it is", "A") == 1.0
    assert choice("The answer is F", "B", CITIES) == 0.0
    assert choice("The answer is B", "B", CITIES) == 1.0 and choice("The answer is B", "D", CITIES) == 0.0


def test_choice_reads_leniently_only_where_told() -> None:
    for text in ("It must be (B).", "B", "I pick B", "A is wrong.\nSo B.", "Paris"):
        assert choice(text, "B", CITIES[:3]) == 0.0
        assert choice(text, "B", CITIES[:3], parse="lenient") == 1.0, text
    for text in ("A cat sat there.", "It is A or B.", "B.\nNo: C.", "I do not know"):
        assert choice(text, "B", parse="lenient") == choice(text, "A", parse="lenient") == 0.0, text


UNFIT = [("E", CITIES), (4, CITIES), (1, None), ("AB", None), (None, None), (-1, CITIES), (True, CITIES)]


@pytest.mark.parametrize(("answer", "choices"), UNFIT)
def test_choice_names_a_row_without_a_right_choice(answer: Any, choices: Any) -> None:
    with pytest.raises(RowError, match="row 0: its answer is"):
        choice("The answer is A.", answer, choices)
