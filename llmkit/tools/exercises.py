"""What a model gets wrong in its head and right with a program: products, long sums, letters, spelling, decimals.

A source of training rows (`conversations`) and of questions for `task: tools` (`questions`). The same numbers, in
whatever order, and the same word are never on both sides. The programs of the rows are run by the tool itself: what
stands there as its result is what it gives.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from llmkit.chat.schemas import search_schema
from llmkit.chat.turn import Call, result_message
from llmkit.errors import DataError
from llmkit.recipe.tools import PythonSpec
from llmkit.tools.python import python_tool

Side = Literal["train", "heldout"]
Row = dict[str, Any]
HELDOUT = 8
"""One exercise in so many is for evaluation."""
SAID = "The answer is {}."
"""What a row says, in words that the reward `exact` reads, so that practice goes on with what rows have taught."""
MAX_COUNT = 4
"""Times that a letter stands in a word, at most; as many words for each number, 0 included."""
CONSONANTS, VOWELS = "bdfgklmnprstv", "aeiou"
ENDINGS = ("", "", "s", "m", "r")


class Size(NamedTuple):
    """Of an exercise's numbers and words.

    Attributes:
        digits: fewest and most.
        is_repetitive: numbers of three different digits at most, words of two different consonants and vowels.
    """

    digits: tuple[int, int]
    is_repetitive: bool


class Exercise(NamedTuple):
    """A question and the program that answers it.

    Attributes:
        key: what tells it from others, whatever the wording.
        answer: what the program prints.
    """

    key: str
    question: str
    code: str
    answer: str


def _product(rng: random.Random, size: Size) -> Exercise:
    a, b = _number(rng, size), _number(rng, size)
    wording = rng.choice(("What is {} * {}?", "What is {} times {}?", "Multiply {} by {}.", "Work out {} * {}."))
    return Exercise(f"{a}*{b}", wording.format(a, b), f"print({a} * {b})", str(a * b))


def _sum(rng: random.Random, size: Size) -> Exercise:
    a, b, c = (_number(rng, size) for _ in range(3))
    wording = rng.choice(("What is {} + {} + {}?", "Add {}, {} and {}.", "What do {}, {} and {} add up to?"))
    answer = str(a + b + c)
    return Exercise(f"{a}+{b}+{c}", wording.format(a, b, c), f"print({a} + {b} + {c})", answer)


def _letters(rng: random.Random, size: Size) -> Exercise:
    letter, count = rng.choice(rng.choice((CONSONANTS, VOWELS))), rng.randint(0, MAX_COUNT)
    word = _word(rng, size, letter, count)
    wording = rng.choice(
        ('How many "{0}" are in "{1}"?', 'How often does "{0}" occur in "{1}"?', 'Count the "{0}" in "{1}".')
    )
    code, answer = f'print("{word}".count("{letter}"))', str(word.count(letter))
    return Exercise(f"{letter} {word}", wording.format(letter, word), code, answer)


def _reversed(rng: random.Random, size: Size) -> Exercise:
    word = _word(rng, size)
    wording = rng.choice(('Spell "{}" backwards.', 'What is "{}" backwards?', 'Reverse the word "{}".'))
    return Exercise(f"<{word}", wording.format(word), f'print("{word}"[::-1])', word[::-1])


def _decimals(rng: random.Random, size: Size) -> Exercise:
    whole = rng.randint(1, 99)
    a, b = (Decimal(f"{whole}.{rng.randint(1, 10 ** rng.randint(1, 3) - 1)}") for _ in range(2))
    if a == b:
        b += 1
    name, function = rng.choice((("larger", "max"), ("smaller", "min")))
    wording = rng.choice(("Which is {2}, {0} or {1}?", "Which number is {2}: {0} or {1}?"))
    answer = max(a, b) if function == "max" else min(a, b)
    code = f"print({function}({a}, {b}))"
    return Exercise(f"{a} {b} {name}", wording.format(a, b, name), code, repr(float(answer)))


KINDS: dict[str, Callable[[random.Random, Size], Exercise]] = {
    "products": _product,
    "sums": _sum,
    "letters": _letters,
    "reversed": _reversed,
    "decimals": _decimals,
}


def conversations(
    *,
    kinds: Sequence[str] = tuple(KINDS),
    num_rows: int = 1000,
    digits: tuple[int, int] = (3, 6),
    beside: Sequence[str] = (),
    direct: float = 0.0,
    repetitive: float = 0.0,
    split: Side = "train",
    seed: int = 0,
) -> Iterator[Row]:
    """Rows of `messages` and `tools`: the question, a program, what it gives, the answer.

    Args:
        digits: fewest and most of the numbers.
        beside: names of search tools that are at hand, too.
        direct: share of the rows that answer at once, as if no tool were at hand. Practice finds out which pays.
        repetitive: share whose numbers and words are of few different digits and letters, which small models miscopy.

    Raises:
        DataError: a kind that is not there.
    """
    tool = python_tool(PythonSpec(name="python"))
    schemas = [*(search_schema(name) for name in beside), tool.schema]
    rng = random.Random(f"direct {split} {seed}")
    try:
        for _, exercise in _drawn(kinds, num_rows, digits, split, seed, repetitive):
            call, result = Call("python", {"code": exercise.code}), tool.result({"code": exercise.code})
            if result.failed or result.text.strip() != exercise.answer:
                raise DataError("exercises", f"{exercise.code} gave {result.text!r}", "report this")
            called = [
                {"role": "assistant", "content": "", "tool_calls": [call.as_message()]},
                result_message(result.text),
            ]
            messages = [
                {"role": "user", "content": exercise.question},
                *(called if rng.random() >= direct else ()),
                {"role": "assistant", "content": SAID.format(exercise.answer)},
            ]
            yield {"messages": messages, "tools": schemas}
    finally:
        tool.close()


def questions(
    *,
    kinds: Sequence[str] = tuple(KINDS),
    num_rows: int = 100,
    digits: tuple[int, int] = (3, 6),
    split: Side = "heldout",
    seed: int = 0,
) -> Iterator[Row]:
    """Rows of `question`, `answers` (for practice also `answer`), `entity` and `group`, the kind; as many of each."""
    for kind, exercise in _drawn(kinds, num_rows, digits, split, seed):
        yield {
            "question": exercise.question,
            "answers": [exercise.answer],
            "answer": exercise.answer,
            "entity": exercise.key,
            "group": kind,
        }


def _drawn(
    kinds: Sequence[str], num_rows: int, digits: tuple[int, int], split: Side, seed: int, repetitive: float = 0.0
) -> Iterator[tuple[str, Exercise]]:
    """Each exercise once."""
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise DataError(f"kinds: {unknown[0]}", "no such kind of exercise", f"have: {', '.join(KINDS)}")
    rng, seen = random.Random(f"exercises {split} {seed}"), set[str]()
    number = 0
    while len(seen) < num_rows:
        kind = kinds[len(seen) % len(kinds)]
        size = Size((digits[0], digits[1]), repetitive > 0 and rng.random() < repetitive)
        exercise = KINDS[kind](rng, size)
        number += 1
        if number > 100 * num_rows + 1000:
            raise DataError("exercises", f"there are no {num_rows} different ones", "ask for fewer, or more 'digits'")
        if exercise.key not in seen and _is_heldout(exercise.key) == (split == "heldout"):
            seen.add(exercise.key)
            yield kind, exercise


def _is_heldout(key: str) -> bool:
    """By its numbers, in whatever order, or by its word, whatever is asked of it."""
    parts = sorted(re.findall(r"[\d.]+", key)) or [key.split()[-1].lstrip("<")]
    return zlib.crc32(" ".join(parts).encode()) % HELDOUT == 0


def _number(rng: random.Random, size: Size) -> int:
    length = rng.randint(*size.digits)
    if not size.is_repetitive:
        return rng.randint(10 ** (length - 1), 10**length - 1)
    few = rng.sample("123456789", 1) + rng.sample("0123456789", 2)
    return int(few[0] + "".join(rng.choices(few, k=length - 1)))


def _word(rng: random.Random, size: Size, letter: str = "", count: int = 0) -> str:
    """Made of syllables, so that no list of words is known by heart; `letter` stands in it `count` times."""
    length = rng.randint(max(2, count), 4)
    places = set(rng.sample(range(length), count))
    consonants, vowels = (
        (_few(rng, letters, letter) if size.is_repetitive else letters) for letters in (CONSONANTS, VOWELS)
    )

    def drawn(letters: str, place: int) -> str:
        planted = letter in letters and place in places
        return letter if planted else rng.choice([one for one in letters if one != letter])

    syllables = (drawn(consonants, place) + drawn(vowels, place) for place in range(length))
    return "".join(syllables) + rng.choice([ending for ending in ENDINGS if ending != letter])


def _few(rng: random.Random, letters: str, letter: str) -> str:
    """Two of them, and the one that is counted."""
    return "".join(rng.sample([one for one in letters if one != letter], 2)) + (letter if letter in letters else "")
