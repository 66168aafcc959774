"""Near-duplicate questions with opposite labels: CRaFT's static conflict (2410.06913, section 3.1).

A model that must refuse one wording of a question and answer the other learns to refuse both. CRaFT compares hidden
states; here two questions are a conflict if they are about the same thing and

- their wordings are alike: Jaccard similarity of character trigrams, the entity masked; or
- an accepted answer is shared and so are the content words: "Where was A born?" and "In which town was A born?".

"About the same thing" is the same entity and the same numbers. Where no entity is known it is the same capitalised
words and numbers, so that "Where was Ann Lee born?" and "Where was Bo Day born?" are never compared. Pairs are found by
an inverted index over prefixes (Chaudhuri et al. 2006, prefix filtering): exact, and not quadratic.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from math import ceil
from typing import NamedTuple

from llmkit.knowledge.balance import FUNCTION_WORDS, SLOT, digest64, masked, names_in, numbers_in, plain
from llmkit.knowledge.records import ProbeRow
from llmkit.knowledge.split import entity_key

Bag = frozenset[str]
_NAME = "_"


class Item(NamedTuple):
    number: int
    refused: bool
    trigrams: Bag
    words: Bag
    answers: frozenset[int]


def topic(row: ProbeRow) -> int:
    """64 bits that are equal for questions about the same thing."""
    if row.entity.strip():
        return digest64("entity", entity_key(row.entity), *sorted(numbers_in(row.question)))
    return digest64("names", *sorted(names_in(row.question)))


class Conflicts:
    """Collects questions and finds those that contradict each other. Memory: the trigrams of what was added, so add
    only topics that have both sides.

    Args:
        similarity: at least so alike, from 0 to 1, is a near-duplicate.
    """

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self._topics: dict[int, list[Item]] = defaultdict(list)

    def add(self, number: int, refused: bool, row: ProbeRow) -> None:
        entity = row.entity.strip()
        wording = plain(masked(row.question, entity).replace(SLOT, f" {_NAME} ") if entity else row.question)
        words = frozenset(wording.split()) - FUNCTION_WORDS - {_NAME}
        answers = frozenset(digest64(plain(answer)) for answer in row.answers) if entity else frozenset()
        self._topics[topic(row)].append(Item(number, refused, trigrams(wording), words, answers))

    def find(self) -> set[int]:
        """Numbers of all questions that have a near-duplicate on the other side."""
        found: set[int] = set()
        for items in self._topics.values():
            found |= _alike([(item, item.trigrams) for item in items], self.similarity, overlap=False)
            by_answer: dict[int, list[Item]] = defaultdict(list)
            for item in items:
                for answer in item.answers:
                    by_answer[answer].append(item)
            for same in by_answer.values():
                found |= _alike([(item, item.words) for item in same if item.words], self.similarity, overlap=True)
        return found


def trigrams(text: str) -> Bag:
    """Runs of three characters, blanks at both ends included."""
    padded = f" {' '.join(text.casefold().split())} "
    return frozenset(padded[start : start + 3] for start in range(max(1, len(padded) - 2)))


def _alike(items: list[tuple[Item, Bag]], similarity: float, *, overlap: bool) -> set[int]:
    """Numbers of items of both sides whose bags are alike. Equal bags are compared once."""
    sides: tuple[dict[Bag, list[int]], dict[Bag, list[int]]] = (defaultdict(list), defaultdict(list))
    for item, bag in items:
        sides[item.refused][bag].append(item.number)
    if not all(sides):
        return set()
    pairs = similar(list(sides[0]), list(sides[1]), similarity, overlap=overlap)
    return {number for left, right in pairs for number in chain(sides[0][left], sides[1][right])}


def similar(
    left: list[Bag], right: list[Bag], similarity: float, *, overlap: bool = False
) -> Iterator[tuple[Bag, Bag]]:
    """All pairs of one bag of each list that are at least so alike.

    Args:
        overlap: compare |A & B| with the smaller of both instead of with their union.
    """
    counts = Counter(token for bag in chain(left, right) for token in bag)
    index: dict[str, list[Bag]] = defaultdict(list)
    for bag in left:
        # with `overlap` a small bag may match anywhere in a large one, so the large one is indexed whole
        for token in bag if overlap else _prefix(bag, similarity, counts):
            index[token].append(bag)
    for bag in right:
        probes = bag if overlap else _prefix(bag, similarity, counts)
        candidates = {other for token in probes for other in index.get(token, ())}
        yield from ((other, bag) for other in candidates if alike(other, bag, overlap) >= similarity)


def alike(first: Bag, second: Bag, overlap: bool = False) -> float:
    """Jaccard similarity, or the overlap coefficient; 0 where nothing can be shared.

    >>> alike(frozenset("abc"), frozenset("bcd")), alike(frozenset("abc"), frozenset("bc"), overlap=True)
    (0.5, 1.0)
    """
    size = min(len(first), len(second)) if overlap else len(first | second)
    return len(first & second) / size if size else 0.0


def _prefix(bag: Bag, similarity: float, counts: Counter[str]) -> list[str]:
    """The rarest tokens of a bag: two bags whose Jaccard similarity reaches the threshold share one of them."""
    size = len(bag) - ceil(similarity * len(bag) - 1e-9) + 1
    return sorted(bag, key=lambda token: (counts[token], token))[:size]
