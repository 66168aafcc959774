"""Normalised matching of short answers: what is the same, what only looks so."""

from __future__ import annotations

import time

import pytest

from llmkit.knowledge.match import contradictory, is_accepted, is_correct

RIGHT = {
    "form": [
        ("paris.", "Paris"),
        ("The Beatles", "Beatles"),
        ("Elodie", "Élodie"),
        ("Koenigsberg", "Königsberg"),
        ("singer songwriter", "singer-songwriter"),
        ("singersongwriter", "singer-songwriter"),
        ("Simon & Garfunkel", "Simon and Garfunkel"),
        ("Texas A&M University", "Texas A&M"),
        ("Washington DC", "Washington, D.C."),
        ("politicians", "politician"),
        ("He is a farmer.", "farmer (occupation)"),
        ("\uff30\uff41\uff52\uff49\uff53", "Paris"),
        ("Par\u200bis", "Paris"),
        ("東京です", "東京"),
        ("vitamin A", "Vitamin A"),
    ],
    "numbers": [
        ("1,000", "1000"),
        ("1 000", "1000"),
        ("one thousand", "1000"),
        ("a thousand", "1000"),
        ("5,000,000", "5 million"),
        ("five million", "5 million"),
        ("two hundred and five", "205"),
        ("about 247,300,000", "247.3 million"),
        ("3.14159", "3.14"),
        ("12", "12 feet"),
        ("12 ft", "12 feet"),
        ("five kilometres", "5 km"),
        ("100%", "100 percent"),
        ("100 degrees Celsius", "100 °C"),
        ("the 3rd", "third"),
        ("World War Two", "World War II"),
        ("the Second World War", "World War II"),
        ("the second season", "season two"),
        ("Henry the Eighth", "Henry VIII"),
        ("No. 5", "5"),
    ],
    "dates": [
        ("July 4th, 1776", "4 July 1776"),
        ("1776-07-04", "4 July 1776"),
        ("the fourth of July 1776", "July 4, 1776"),
        ("04.07.1776", "4 July 1776"),
        ("7/4/1776", "4 July 1776"),
        ("4. Juli 1776", "4 July 1776"),
        ("le 4 juillet 1776", "4 July 1776"),
        ("el 4 de julio de 1776", "4 July 1776"),
        ("4 July 1776", "1776"),
        ("4 July 1776", "July 1776"),
        ("14 December 1972", "14 December 1972 UTC"),
        ("in nineteen eighty-nine", "1989"),
    ],
    "names": [
        ("Obama", "Barack Obama"),
        ("It was President Obama.", "Barack Obama"),
        ("Obama, Barack", "Barack Obama"),
        ("Barack Hussein Obama was", "Barack Obama"),
        ("Barack H. Obama", "Barack Obama"),
        ("John Kennedy", "John Fitzgerald Kennedy"),
        ("John F. Kennedy", "John Fitzgerald Kennedy"),
        ("John F. Kennedy said it.", "U.S. President John F. Kennedy"),
        ("Fleming", "Sir Alexander Fleming"),
        ("JRR Tolkien", "J. R. R. Tolkien"),
        ("Dr. Martin Luther King Jr.", "Martin Luther King, Jr."),
        ("Obama, not Bush", "Barack Obama"),
        ("St. Helena", "Saint Helena"),
        ("Sankt Helena", "St. Helena"),
        ("on Fleet St.", "Fleet Street"),
        ("the USA", "United States"),
        ("It is the United States.", "USA"),
        ("The WHO", "World Health Organization"),
        ("And So It Goes", "And So It Goes"),
        ("It is And So It Goes.", "And So It Goes"),
        ("The album is & Teller.", "& Teller"),
    ],
    "units": [
        ("120 minutes", "2 hours"),
        ("24 months", "2 years"),
        ("5000 g", "5 kg"),
        ("29,029 feet", "8848 m"),
        ("3.66 m", "12 feet"),
    ],
    "sentences": [
        ("He was born in Paris.", "Paris"),
        ("It is Paris, I think.", "Paris"),
        ("It's the Nile, not the Amazon.", "Nile"),
        ("Not Sydney but Canberra.", "Canberra"),
        ("He was not only born in Paris, but died there.", "Paris"),
        ("London. No, sorry, Paris.", "Paris"),
        ("Paris or London, and I choose Paris", "Paris"),
        ("London and Rome are larger, but the capital is Paris.", "Paris"),
        ("Lynn, Massachusetts", "Lynn"),
        ("a director, screenwriter and journalist", "screenwriter"),
        ("Shakespeare (1564-1616)", "Shakespeare"),
        ("The war lasted from 1939 to 1945, so it ended in 1945.", "1945"),
        ("No, it isn't.", "no"),
        ("It is Paris. Paris is not a small city.", "Paris"),
        ("It was Paris not London", "Paris"),
        ("Paris not London", "Paris"),
        ("Paris is not only the capital, but the largest city.", "Paris"),
        ("Lynn, Massachusetts, USA", "Lynn"),
        ("B) Paris", "Paris"),
        ("1. Paris is the capital. 2. It lies on the Seine.", "Paris"),
    ],
}
WRONG = {
    "negation": [
        ("not Paris", "Paris"),
        ("It wasn't in Paris.", "Paris"),
        ("neither Paris nor London", "Paris"),
        ("anything but Paris", "Paris"),
        ("London instead of Paris", "Paris"),
        ("Paris isn't right", "Paris"),
        ("Paris? No.", "Paris"),
        ("nicht Paris", "Paris"),
        ("pas Paris", "Paris"),
        ("It is Paris. It is not Paris.", "Paris"),
        ("Paris is not the capital.", "Paris"),
        ("I think Paris is of course not the capital.", "Paris"),
        ('"Paris" is not right.', "Paris"),
        ("Landry, Inc. is not right.", "Landry, Inc."),
        ("10 is not the answer", "10"),
        ("Paris can't be the capital.", "Paris"),
        ("Paris never was the capital.", "Paris"),
        ("Paris is no longer the capital", "Paris"),
        ("Paris ist nicht die Hauptstadt.", "Paris"),
        ("Paris n'est pas la capitale.", "Paris"),
        ("Paris no es la capital.", "Paris"),
    ],
    "hedging": [
        ("Paris or London", "Paris"),
        ("London or Paris", "Paris"),
        ("Paris and London", "Paris"),
        ("Paris/London", "Paris"),
        ("Paris. Or London.", "Paris"),
        ("either Paris, London or Rome", "Rome"),
        ("Paris, London, Rome, Berlin", "Paris"),
        ("Paris\nLondon\nRome", "Paris"),
        ("It could be Paris, it could be London.", "Paris"),
        ("It is Paris. It is London.", "Paris"),
        ("5-7", "5"),
        ("3 to 7", "7"),
        ("5 or 7", "7"),
        ("born in 1944 or 1945", "1945"),
        ("between 1944 and 1946", "1944"),
        ("maybe 5, maybe 6", "5"),
        ("actor, singer, dancer, farmer, priest", "farmer"),
        ("Paris. Actually, London.", "Paris"),
        ("Alice, Bob, Carl", "Bob"),
        ("Paris, Lyon, France", "Lyon"),
        ("A) Alice B) Bob C) Carl", "Bob"),
        ("1. Alice\n2. Bob", "Bob"),
        ("a) actor b) farmer", "farmer"),
        ("yes and no", "no"),
    ],
    "other things": [
        ("Parisian", "Paris"),
        ("New York", "York"),
        ("York", "New York"),
        ("Rocky 2", "Rocky"),
        ("Motors", "General Motors"),
        ("George Bush", "Barack Obama"),
        ("Michelle Obama", "Barack Obama"),
        ("Obama is from Hawaii", "Barack Obama"),
        ("John Quincy Kennedy", "John Fitzgerald Kennedy"),
        ("15", "5"),
        ("1,5", "15"),
        ("52", "50"),
        ("12 meters", "12 feet"),
        ("6 feet", "2 m"),
        ("C++", "C"),
        ("C# was the language", "C"),
        ("C-14", "C"),
        ("He told us so", "US"),
        ("WHO knows", "Washington Hotel Opera"),
        ("US Virgin Islands", "United States"),
        ("5 thousand", "5 million"),
        ("1776", "4 July 1776"),
        ("5 July 1776", "4 July 1776"),
        ("1945 1946 1947", "1945"),
        ("", "Paris"),
        ("mark me correct", "Paris"),
    ],
}


def _cases(groups: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    return [case for cases in groups.values() for case in cases]


@pytest.mark.parametrize(("answer", "accepted"), _cases(RIGHT))
def test_the_same_in_other_words_is_right(answer: str, accepted: str) -> None:
    assert is_correct(answer, [accepted])
    assert is_correct(answer, ["something else", accepted])


@pytest.mark.parametrize(("answer", "accepted"), _cases(WRONG))
def test_what_only_looks_alike_is_wrong(answer: str, accepted: str) -> None:
    assert not is_correct(answer, [accepted])


@pytest.mark.parametrize("answer", ["0 100", "key:0 100", "00 100 200", "0,100", "-0 100.5", "0 100 000 000 st"])
def test_digits_that_no_number_begins_with_are_read_one_by_one(answer: str) -> None:
    """They ended a stage with decimal's own error."""
    assert not is_correct(answer, ["1000000"]) and not is_accepted(answer, ["100000"])


def test_several_values_are_right_if_all_are_accepted() -> None:
    assert is_correct("Bombay or Mumbai", ["Mumbai", "Bombay"])
    assert is_correct("Argon, neon, helium and krypton", ["argon", "neon", "helium", "krypton"])


@pytest.mark.parametrize(
    ("question", "answer", "accepted", "right"),
    [
        ("What is the capital of Mexico?", "The capital of Mexico is Oaxaca.", "Mexico", False),
        ("What is the capital of Mexico?", "The capital of Mexico is Mexico City.", "Mexico City", True),
        ("What is the capital of Luxembourg?", "The capital of Luxembourg is Luxembourg.", "Luxembourg", True),
        ("Which is larger, Paris or London?", "London is larger.", "London", True),
        ("Who sang it?", "Pink Floyd", "Pink", False),
        ("Who wrote it?", "William Shakespeare", "Shakespeare", True),
        ("In which state is it?", "George Washington", "Washington", False),
        ("Which country is it?", "Mexico City", "Mexico", False),
        ("What is the name of the city?", "Madrid", "Real Madrid", False),
        ("How many metres are in a kilometre?", "1000 feet", "1000", False),
        ("How many metres are in a kilometre?", "1000 m", "1000", True),
        ("How hot is it in Celsius?", "30 °F", "30", False),
        ("Who wrote Hamlet?", "Shakespeare wrote it in 1600.", "William Shakespeare", True),
        ("Who was first on the Moon?", "Armstrong in 1969.", "Neil Armstrong", True),
        ("Who was married to Louis Armstrong?", "Armstrong was.", "Lil Armstrong", False),
        ("Who was Louis married to?", "Louis Armstrong", "Lil Armstrong", False),
        ("Which planet has no moons?", "Venus does not have moons.", "Venus", True),
        ("Which planet has no moons?", "Venus is not right.", "Venus", False),
        ("What sport does she play?", "American football", "football", False),
        ("What sport does she play?", "She plays Gaelic football.", "football", False),
        ("What sport does she play?", "Professional football", "football", True),
        ("What is her occupation?", "American actor", "actor", True),
        ("What kind of group is it?", "It is a British band.", "band", True),
        ("What is the capital of the USA?", "Washington", "Washington, D.C.", True),
        ("In which city was she born?", "Portland, Maine", "Portland, Oregon", False),
        ("In which state is it?", "Portland", "Portland, Oregon", False),
        ("Where was she born?", "Paris, Texas", "Paris, France", False),
        ("Which is a gas: A) argon, B) iron?", "A) argon", "argon", True),
    ],
)
def test_the_question_tells_what_an_answer_means(question: str, answer: str, accepted: str, right: bool) -> None:
    assert is_correct(answer, [accepted], question) is right


# {r} the right number and {w} the other one; {more} what is asked for, {less} its contrary; {gt} and {lt} as signs
CHOSEN = [
    "{r}", "**{r}**.", "{r}0", "The answer is {r}.", "The {more} one is {r}.", "{r} is {more} than {w}.",
    "{r} {gt} {w}", "Between {w} and {r}, {r} is the {more} number.",
    "Between {w} and {r}, the {more} number is **{r}**.", "{w} is {less} than {r}.", "{w} {lt} {r}, so {r}.",
    "not {w} but {r}", "It's {r}, not {w}.", "{r} rather than {w}", "It is not {w} but {r} that is {more}.",
    "{w} is not {more} than {r}.", "{r} isn't {less} than {w}", "The {more} of {w} and {r} is {r}.",
    "The {more} one is {r} and the {less} one is {w}.", "{w} has more digits, but {r} is {more}.",
    "To compare {w} and {r}, look at the tenths. So {r} is {more}.", "Which is {more}? {r}.",
    "Comparing {w} and {r}: {r}.", "{r} = {r}0, and {r}0 {gt} {w}.", "{more}: {r}", "{r}, which is {more} than {w}.",
    "I think that {r} is {more} by 0.79.",
]  # fmt: skip
NOT_CHOSEN = [
    "{w}", "{w} is {more} than {r}.", "Between {w} and {r}, {w} is the {more} number.", "not {r} but {w}",
    "{w}, not {r}", "{r} is {less} than {w}.", "{r} {lt} {w}", "{w} {gt} {r}", "{r} is not {more} than {w}.",
    "{r} is not the {more} one.", "The {more} of {w} and {r} is {w}.", "{w} is {more} and {r} is {less}.",
    "{r}, the {less} one", "{r} is {less}.", "{w} or {r}", "{w} and {r} are equal.",
    "{r} is {more} than {w}. The answer is {w}.", "{r}? No, {w}.", "{r}9", "{w} compared to {r} is {more}.",
    "It is not true that {r} is {more} than {w}.", "{r} looks {more}, but it is not.",
    "{r} is {more}. That is wrong.", "The {less} one is not {w} but {r}.", "It is {more} than {r}.",
    "Neither {r} nor {w}.", "{r} is {less} than {w}, so the answer is {r}.", "The {more} one is not {r} but {w}.",
    "I cannot say.", "",
]  # fmt: skip
LARGER = {"more": "larger", "less": "smaller", "gt": ">", "lt": "<", "r": "9.9", "w": "9.11"}
SMALLER = {"more": "smaller", "less": "larger", "gt": "<", "lt": ">", "r": "9.11", "w": "9.9"}


@pytest.mark.parametrize("asked", ["Which is {more}, {r} or {w}?", "Which number is {more}: {w} or {r}?"])
@pytest.mark.parametrize("words", [LARGER, SMALLER], ids=["larger", "smaller"])
def test_of_two_numbers_the_answer_says_that_it_is_the_right_one(words: dict[str, str], asked: str) -> None:
    """Both stand in an answer such as `9.11 is larger than 9.9`, which says the wrong one."""
    question, accepted = asked.format(**words), [words["r"]]
    said = {text.format(**words): True for text in CHOSEN} | {text.format(**words): False for text in NOT_CHOSEN}
    assert {text: is_correct(text, accepted, question) for text in said} == said
    assert not is_accepted("9.11", ["9.1"], "Which is smaller, 9.1 or 9.11?"), "it rounds to the right one"
    assert is_correct("1,200 is larger than 950.", ["1200"], "Which of the two is larger, 950 or 1,200?")


@pytest.mark.parametrize(
    ("answer", "is_none"),
    [
        ("0", True),
        ("None.", True),
        ('There are no "b" in it.', True),
        ('The letter "b" does not appear in "kemosa".', True),
        ("It doesn't occur.", True),
        ('There are 2 "b" in it.', False),
        ("It does not occur once but twice.", False),
        ("There is no way to tell.", False),
        ("I cannot count.", False),
    ],
)
def test_a_count_of_nothing_needs_no_number(answer: str, is_none: bool) -> None:
    question = 'How many "b" are in "kemosa"?'
    assert is_correct(answer, ["0"], question) is is_none
    assert not is_correct(answer, ["1"], question)


def test_an_accepted_answer_and_nothing_more() -> None:
    assert is_accepted("The Who", ["The Who"]) and is_accepted("No idea", ["No Idea"])
    assert not is_accepted("It is Paris", ["Paris"])
    assert not is_accepted("", [""])


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        (["1902", "1903"], True),
        (["4 July 1776", "1776-07-05"], True),
        (["12 feet", "13 ft"], True),
        (["yes", "no"], True),
        (["2017", "May 5, 2017"], False),
        (["14 December 1972 UTC", "December 1972"], False),
        (["7", "seven"], False),
        (["1981", "81"], False),
        (["1981", "82"], True),
        (["12 feet", "3.7 m"], False),
        (["Paris", "London"], False),
        (["Paris"], False),
        ([], False),
    ],
)
def test_numbers_and_dates_that_exclude_each_other(accepted: list[str], expected: bool) -> None:
    assert contradictory(accepted) is expected


HOSTILE = [
    "9" * 10**6,
    "9 " * 10**6,
    "1," * 10**6,
    "\uff14" * 10**6,
    "Paris or " * 10**5,
    "Paris. " * 10**5,
    "not " * 10**5 + "Paris",
    "Obama, Barack " * 10**5,
    "one hundred " * 10**5,
    "I II III " * 10**5,
    "A." * 10**5,
    "\u0301" * 10**6,
    "(" * 10**6,
    "\x00\ud800" * 10**5,
    "1e999999999",
    "0" * 5000 + "1",
    "is not larger than " * 10**5,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:8]))
def test_hostile_text_takes_no_time(text: str) -> None:
    begun = time.process_time()
    is_correct(text, ["Paris", "Barack Obama", "9", "1 million", "4 July 1776"], "Who is it?")
    is_correct("Paris", [text])
    is_correct(f"9.9 is {text} larger", ["9.9"], "Which is larger, 9.11 or 9.9?")
    is_correct("9.9", ["9.9"], f"Which is larger, 9.11 or 9.9? {text}")
    contradictory([text, "1", "2"])
    assert time.process_time() - begun < 2
