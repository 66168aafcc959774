"""Arithmetic questions and word problems with worked solutions, every one with a single whole-number answer.

A solution is a few sentences whose every step reads `a op b = c`, and ends with `The answer is N.`; it can be checked
by reading those steps. Problems come in three levels, equal to the number of steps. A tenth of all operand pairs and of
all combinations of numbers in a word problem are held out, by a checksum of the numbers, and never reach training.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from llmkit.tiny.world import Split, words

Operation = Literal["+", "-", "*", "/"]

NAMES = words("Anna Ben Chloe David Emily Finn Grace Henry Isla Jack Kate Liam Maya Noah Olive Paul Ruth Sam Tess Will")
GOODS: dict[str, tuple[str, ...]] = {
    "fruit": ("apple", "orange", "pear", "plum", "lemon", "peach", "melon", "banana"),
    "toys": ("ball", "kite", "doll", "drum", "puzzle", "robot"),
    "stationery": ("pen", "pencil", "notebook", "ruler", "marker", "eraser"),
    "food": ("cake", "pie", "cookie", "bun", "roll", "muffin"),
}
# Reserved for questions a finished assistant is asked; see tests/data/test_tiny_world.py.
RESERVED_SUM = (2, 2)
RESERVED_PROBLEM = (3, 2, 2, 13)


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, its worked solution, the answer it ends with and the number of steps it takes."""

    question: str
    solution: str
    answer: int
    level: int


@dataclass(frozen=True, slots=True)
class Calculation:
    """One operation on two whole numbers with a whole, non-negative result."""

    left: int
    operation: Operation
    right: int

    @property
    def result(self) -> int:
        match self.operation:
            case "+":
                return self.left + self.right
            case "-":
                return self.left - self.right
            case "*":
                return self.left * self.right
            case "/":
                return self.left // self.right

    @property
    def split(self) -> Split:
        """Single-digit facts are all trained, as in school; only larger operands are held out."""
        if self.operation == "+" and (self.left, self.right) == RESERVED_SUM:
            return "heldout"
        small = max(self.left, self.right) < 10 or self.operation in "*/"
        return "train" if small else _split_of(self.operation, self.left, self.right)

    def __str__(self) -> str:
        return f"{self.left} {self.operation} {self.right} = {self.result}"


def _split_of(*key: object) -> Split:
    return "heldout" if zlib.crc32(repr(key).encode()) % 10 == 0 else "train"


def calculation(rng: random.Random, split: Split = "train") -> Calculation:
    """A sum or difference of numbers up to 99, a product up to 10 x 10 or a division without remainder."""
    while (drawn := _any_calculation(rng)).split != split or (drawn.left, drawn.right) == RESERVED_SUM:
        pass
    return drawn


def _any_calculation(rng: random.Random) -> Calculation:
    operation: Operation = rng.choice(("+", "+", "-", "-", "*", "/"))
    if operation in "*/":
        left, right = rng.randint(2, 10), rng.randint(2, 10)
        return Calculation(left, "*", right) if operation == "*" else Calculation(left * right, "/", right)
    limit = rng.choice((9, 20, 99))
    left, right = rng.randint(1, limit), rng.randint(1, rng.choice((9, limit)))
    if operation == "-" and right > left:
        left, right = right, left
    return Calculation(left, operation, right)


def plural(noun: str) -> str:
    return noun + "es" if noun.endswith(("ch", "sh")) else noun + "s"


def word_problem(rng: random.Random, levels: Sequence[int] = (1, 2, 3), split: Split = "train") -> Problem:
    """A word problem of one of `levels`; every step of its solution is a calculation that training may show."""
    while True:
        make = rng.choice(_FAMILIES[rng.choice(tuple(levels))])
        numbers, question, steps, level = make(rng)
        calculations = [step for step in steps if isinstance(step, Calculation)]
        if _split_of(make.__name__, numbers) != split or numbers == RESERVED_PROBLEM:
            continue
        if any(step.split != "train" or step.result < 1 for step in calculations):
            continue
        answer = calculations[-1].result
        solution = " ".join(f"{step}." if isinstance(step, Calculation) else step for step in steps)
        return Problem(question, f"{solution} The answer is {answer}.", answer, level)


_OF_THREE: tuple[Operation, ...] = ("+", "-", "*")


def long_calculation(rng: random.Random, split: Split = "train") -> Problem:
    """Three numbers up to 9, or 20, and two operations, worked out a pair at a time; the result may be negative."""
    while True:
        limit = rng.choice((9, 9, 20))
        a, b, c = (rng.randint(0, limit) for _ in range(3))
        first, second = rng.choice(_OF_THREE), rng.choice(_OF_THREE)
        pairs = Calculation(a, first, b), Calculation(b, second, c)
        if second == "*" != first:
            inner, outer = pairs[1], Calculation(a, first, pairs[1].result)
        else:
            inner, outer = pairs[0], Calculation(pairs[0].result, second, c)
        fits = limit == 9 or "*" not in (first, second)
        if fits and _split_of("long", a, first, b, second, c) == split and _shown(*pairs, outer):
            break
    wording = rng.choice(("What is {}?", "How much is {}?", "Work out {}.", "{} = ?"))
    return _worked(wording.format(f"{a} {first} {b} {second} {c}"), [inner, outer])


def equation(rng: random.Random, split: Split = "train") -> Problem:
    """An equation in one unknown, `a*x + b = c` or `a*x - b = c` with whole numbers, solved in two steps."""
    while True:
        times, number, rest, plus = rng.randint(2, 10), rng.randint(1, 12), rng.randint(1, 20), rng.random() < 0.5
        total = times * number + rest if plus else times * number - rest
        alone = Calculation(total, "-" if plus else "+", rest)
        if total > 0 and _split_of("equation", times, number, rest, plus) == split and _shown(alone):
            break
    x = rng.choice("abcdefghijkmnpqrstuvwxyz")
    text = f"{times}*{x} {'+' if plus else '-'} {rest} = {total}"
    wording = rng.choice(("What is {x}, if {text}?", "{text}. What is {x}?", "Which number is {x} in {text}?"))
    return _worked(wording.format(x=x, text=text), [alone, Calculation(alone.result, "/", times)])


def _shown(*steps: Calculation) -> bool:
    """Whether training may show these calculations."""
    return all(step.split == "train" for step in steps)


def _worked(question: str, steps: list[Calculation]) -> Problem:
    answer = steps[-1].result
    return Problem(question, f"{' '.join(f'{step}.' for step in steps)} The answer is {answer}.", answer, len(steps))


Steps = list[str | Calculation]
Draft = tuple[tuple[int, ...], str, Steps, int]


def _two_goods(rng: random.Random) -> tuple[str, str, str]:
    kind = rng.choice(tuple(GOODS))
    first, second = rng.sample(GOODS[kind], 2)
    return kind, first, second


def _gets_more(rng: random.Random) -> Draft:
    name, (_, good, _) = rng.choice(NAMES), _two_goods(rng)
    have, more = rng.randint(2, 30), rng.randint(2, 20)
    verb = rng.choice(("buys", "finds", "gets", "is given"))
    question = f"{name} has {have} {plural(good)} and {verb} {more} more. How many {plural(good)} does {name} have now?"
    return (have, more), question, [Calculation(have, "+", more)], 1


def _gives_away(rng: random.Random) -> Draft:
    name, (_, good, _) = rng.choice(NAMES), _two_goods(rng)
    have, given = rng.randint(5, 40), rng.randint(2, 20)
    verb = rng.choice(("gives away", "sells", "loses", "drops"))
    question = f"{name} has {have} {plural(good)} and {verb} {given}. How many {plural(good)} are left?"
    return (have, given), question, [Calculation(have, "-", given)], 1


def _price_of_many(rng: random.Random) -> Draft:
    name, (_, good, _) = rng.choice(NAMES), _two_goods(rng)
    count, price = rng.randint(2, 10), rng.randint(2, 10)
    question = f"{name} buys {count} {plural(good)}. Each {good} costs ${price}. What is the total cost?"
    return (count, price), question, [Calculation(count, "*", price)], 1


def _share(rng: random.Random) -> Draft:
    name, (_, good, _) = rng.choice(NAMES), _two_goods(rng)
    friends, each = rng.randint(2, 10), rng.randint(2, 10)
    question = (
        f"{name} shares {friends * each} {plural(good)} equally among {friends} friends. "
        f"How many {plural(good)} does each friend get?"
    )
    return (friends, each), question, [Calculation(friends * each, "/", friends)], 1


def _change(rng: random.Random) -> Draft:
    name, (_, good, _) = rng.choice(NAMES), _two_goods(rng)
    count, price, paid = rng.randint(2, 9), rng.randint(2, 9), rng.choice((20, 30, 50, 100))
    cost = Calculation(count, "*", price)
    question = (
        f"{name} buys {count} {plural(good)}. Each {good} costs ${price}. {name} pays with ${paid}. "
        "How much change is due?"
    )
    steps: Steps = [f"The {plural(good)} cost", cost, "The change is", Calculation(paid, "-", cost.result)]
    return (count, price, paid), question, steps, 2


def _keeps_then_shares(rng: random.Random) -> Draft:
    name, (_, good, _) = rng.choice(NAMES), _two_goods(rng)
    friends, each, kept = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 9)
    left = Calculation(friends * each + kept, "-", kept)
    question = (
        f"{name} has {left.left} {plural(good)}, keeps {kept} and shares the rest equally among {friends} friends. "
        f"How many {plural(good)} does each friend get?"
    )
    steps: Steps = ["The rest is", left, "Each gets", Calculation(left.result, "/", friends)]
    return (friends, each, kept), question, steps, 2


def _total_of_two(rng: random.Random) -> Draft:
    name, (kind, good, other) = rng.choice(NAMES), _two_goods(rng)
    a, b, price_a, price_b = (rng.randint(2, 9) for _ in range(4))
    cost_a, cost_b = Calculation(a, "*", price_a), Calculation(b, "*", price_b)
    question = (
        f"{name} buys {a} {plural(good)} and {b} {plural(other)}. Each {good} costs ${price_a} and each {other} costs "
        f"${price_b}. What is the total cost of all the {kind}?"
    )
    steps: Steps = [f"The {plural(good)} cost", cost_a, f"The {plural(other)} cost", cost_b]
    return (a, b, price_a, price_b), question, [*steps, "Together", Calculation(cost_a.result, "+", cost_b.result)], 3


def _unknown_price(rng: random.Random) -> Draft:
    name, (kind, good, other) = rng.choice(NAMES), _two_goods(rng)
    a, b, price_a, price_b = (rng.randint(2, 9) for _ in range(4))
    cost_b = Calculation(b, "*", price_b)
    rest = Calculation(a * price_a + cost_b.result, "-", cost_b.result)
    question = (
        f"{name} buys {a} {plural(good)} and {b} {plural(other)}. Each {other} costs ${price_b}. The total cost of all "
        f"the {kind} is ${rest.left}. What is the cost of each {good}?"
    )
    steps: Steps = [f"The {plural(other)} cost", cost_b, f"The {plural(good)} cost", rest, f"Each {good} costs"]
    return (a, b, price_b, rest.left), question, [*steps, Calculation(rest.result, "/", a)], 3


_FAMILIES: dict[int, tuple[Callable[[random.Random], Draft], ...]] = {
    1: (_gets_more, _gives_away, _price_of_many, _share),
    2: (_change, _keeps_then_shares),
    3: (_total_of_two, _unknown_price),
}
