"""Which of two numbers an answer says is the larger or the smaller one: `Which is larger, 9.11 or 9.9?`

Both numbers stand in the question, so that an answer may name the right one and say the wrong thing: `9.11 is larger
than 9.9`. Clauses that compare are read by a small grammar, in English. An answer is right if all that it claims and
states says so, or, where it compares nothing, if it names the right number alone. What cannot be read is not right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from llmkit.knowledge.tokens import plain

_NUMBER = r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_TOKEN = re.compile(rf"{_NUMBER}|[a-z]+|[<>=:,;.!?()\n]")
_CHOICE = re.compile(rf"({_NUMBER})[,;]? (?:or|and|vs\.?|versus)(?: the number)? ({_NUMBER})(?![\w%])")
_REWRITTEN = [
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"'s\b"), " is"),
    (re.compile(r"\bnot (?:only|just|merely)\b|\bno doubt\b"), " "),
    (re.compile(r"\b(?:rather than|instead of|as opposed to|unlike)\b"), " not "),
    (re.compile(r"\bnot (?:true|right|correct|so|the case)\b"), " wrong "),
    (re.compile(r"\b(?:more|less|fewer)(?= +(?!than\b)[a-z])"), " of "),  # `more digits` compares no numbers
]
_KINDS = {
    "L": "larger largest bigger biggest greater greatest higher highest more",
    "S": "smaller smallest lesser least lower lowest less fewer",
    "LT": "> exceeds exceed beats surpasses",
    "ST": "<",
    "T": "than",
    "I": "= is are was were be being has have equals",
    "N": "not no never neither nor cannot hardly barely",
    "X": "wrong false incorrect untrue mistaken mistake mistakenly myth",
    "&": "and or",
    "b": "but",
    ":": ":",
    ",": ", ; ( ) so because since as while whereas therefore although though which that if",
    ".": ". !",
    "?": "?",
    "f": "the answer it this final correct right number one value my hence thus then would must yes sure i say choose "
    "pick think",
}
_SIGNS = {word: sign for sign, words in _KINDS.items() for word in words.split()} | {"\n": "."}
_ASKED = {word: sign for sign in "LS" for word in _KINDS[sign].split()}
"""Signs that tokens are read as; besides A and B for the right and the wrong number, n for another one, w for any other
word. A clause is a string of them."""

_ANY = "[fwn]*"
_PAIR = rf"(?:(?:A&B|B&A){_ANY})?"
_CLAIMS = [
    # A is the larger one; between A and B, A is not larger; A is larger than B
    rf"{_ANY}{_PAIR}(?P<number>[AB]){_ANY}I[fw]?(?P<no>N?){_ANY}(?P<sign>[LS]){_ANY}{_PAIR}(?:T{_ANY}(?P<other>[AB])?{_ANY})?",
    # A > B; A not larger than B
    rf"{_ANY}(?P<number>[AB])(?P<no>N?)(?P<sign>[LS]){_ANY}T{_ANY}(?P<other>[AB]){_ANY}",
    # the larger one of A and B is A
    rf"{_ANY}(?P<sign>[LS]){_ANY}{_PAIR}I{_ANY}(?P<number>[AB]){_ANY}",
    # it is larger than B
    rf"[fwI]*(?P<no>N?)[fw]*(?P<sign>[LS]){_ANY}T[fw]*(?P<other>[AB])[fw]*",
]
_CLAIM = [re.compile(claim) for claim in _CLAIMS]
_STATED = re.compile(r"[fI]*([AB])f*")
_REJECTED = re.compile(r"Nf?[AB](?:,?b)?")
_UNLIKE = {"A": "B", "B": "A"}
_MAX_TOKENS = 60
"""Of a clause that compares."""


@dataclass(frozen=True)
class Choice:
    """Two numbers of which a question wants one.

    Attributes:
        sign: `L` where the larger one is asked for, `S` for the smaller one.
    """

    right: Decimal
    wrong: Decimal
    sign: str


def choice_of(question: str, accepted: Sequence[Decimal]) -> Choice | None:
    """What a question that sets two numbers against each other wants; None: it is no such question.

    Args:
        accepted: values of the accepted answers.
    """
    if (asked := _asked(question)) is None:
        return None
    one, other, sign = asked
    right = [number for number in (one, other) if number in accepted]
    return Choice(right[0], other if right[0] == one else one, sign) if len(right) == 1 else None


def chooses_right(answer: str, choice: Choice) -> bool:
    """Whether an answer says that the right number is the one that is asked for, and nothing else."""
    clauses = _clauses(answer, choice)
    compared = [_claimed(clause, choice.sign) for clause in clauses]
    if "?" in compared or any("X" in clause for clause in clauses):
        return False
    claimed = set("".join(compared))
    stated = {found[1] for clause in clauses if (found := _STATED.fullmatch(clause))}
    if claimed:
        return claimed | stated == {"A"}
    other = "S" if choice.sign == "L" else "L"
    if any(other in clause or ("N" in clause and clause != "N") for clause in clauses):
        return False
    named = [set(clause) & {"A", "B"} for clause in clauses]
    return {number for numbers in named if len(numbers) == 1 for number in numbers} == {"A"}


def is_number(answer: str, value: Decimal) -> bool:
    """Whether an answer is this number and nothing more."""
    text = answer.strip(" \n*.!?$\"'")
    return re.fullmatch(_NUMBER, text) is not None and _value(text) == value


@lru_cache(maxsize=1024)
def _asked(question: str) -> tuple[Decimal, Decimal, str] | None:
    text = plain(question).casefold()
    said = set(re.findall(r"[a-z]+", text))
    signs = {_ASKED[word] for word in said & _ASKED.keys()}
    numbers = {_value(found) for found in re.findall(_NUMBER, text)}
    pair = _CHOICE.search(text)
    if pair is None or len(signs) != 1 or len(numbers) != 2 or said & {"than", "how", "by"}:
        return None
    return _value(pair[1]), _value(pair[2]), signs.pop()


def _value(number: str) -> Decimal:
    return Decimal(number.replace(",", ""))


def _clauses(answer: str, choice: Choice) -> list[str]:
    """Those of an answer, in signs, but for its questions and for numbers that it rejects: `not A but`."""
    text = plain(answer).casefold()
    for pattern, instead in _REWRITTEN:
        text = pattern.sub(instead, text)
    signs = "".join(_sign(token, choice) for token in _TOKEN.findall(text))
    told = "".join(sentence for sentence in re.findall(r"[^.?]*[.?]?", signs) if not sentence.endswith("?"))
    read = re.sub(r"([LS][fw]{0,2}):", r"\1I", _REJECTED.sub("", re.sub(r"([AB])I\1(?=[LS,])", r"\1", told)))
    return [clause for clause in re.split(r"[,:.b]", read) if clause]


def _sign(token: str, choice: Choice) -> str:
    if token[-1].isdigit():
        value = _value(token)
        return "A" if value == choice.right else "B" if value == choice.wrong else "n"
    return _SIGNS.get(token, "w")


def _claimed(clause: str, asked: str) -> str:
    """The numbers that a clause says are what is asked for; "?": it compares them in a way that cannot be read."""
    if not (set(clause) & {"A", "B"} and set(clause) & {"L", "S"}):
        return ""
    if len(clause) > _MAX_TOKENS:
        return "?"
    if found := next((found for claim in _CLAIM if (found := claim.fullmatch(clause))), None):
        return _meant(found.groupdict(), asked)
    parts = clause.split("&")
    joined = len(parts) > 1 and all(set(part) & {"L", "S"} or not set(part) & {"A", "B"} for part in parts)
    return "".join(_claimed(part, asked) for part in parts) if joined else "?"


def _meant(claim: dict[str, str | None], asked: str) -> str:
    number, other = claim.get("number"), claim.get("other")
    if number == other:
        return "?"
    said = number or _UNLIKE[other or ""]
    return said if (claim["sign"] == asked) != bool(claim.get("no")) else _UNLIKE[said]
