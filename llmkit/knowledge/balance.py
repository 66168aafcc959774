"""Whether the wording of a question gives its label away, and how to take both sides evenly so that it does not.

A model that is taught to refuse from questions of one wording and to answer those of another learns the wording, not
the feeling of knowing. So names are masked, questions are sorted into kinds of wording, and `surface_accuracy` measures
how well a linear classifier that sees nothing but the masked wording tells both sides apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]

SLOT = "{}"
COMMON_KIND = 10
"""Questions that share a wording before it is a kind of its own; rarer ones go by their first two words, then one."""
NUM_LEVELS = 3
SURFACE_ROWS = 10_000
"""Rows of each side that the wording is measured on, at most."""
NUM_FOLDS = 5
FEWEST = 4 * NUM_FOLDS
"""Rows of each side below which nothing is measured."""

_WORD = re.compile(r"\w+(?:['\u2019.,-]\w+)*")
# Words that neither name a thing nor say which fact is asked for: English, German, French, Spanish.
FUNCTION_WORDS = frozenset(
    word
    for line in (
        "who what when where which whose whom why how many much long in on at of the a an is was were are be and or",
        "did does do has have had can could will would for by from with to that this it its he she they his her their",
        "as about after before during under you me tell name give please",
        "wer wen wem was wann wo wie viele viel warum welche welcher welches welchen im in an am auf aus von vom der",
        "die das den dem des ist sind war waren hat haben wurde und oder nenne",
        "qui que quoi quand où comment combien pourquoi quel quelle quels quelles dans en à au de du des le la les est",
        "sont était ont et ou",
        "quién qué cuándo dónde cómo cuántos cuántas cuál cuáles por del el los las es son fue han y o",
    )
    for word in line.split()
)


def digest64(*parts: str) -> int:
    """64 bits of a hash, the same on every machine."""
    data = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def plain(text: str) -> str:
    """Without case, compatibility forms, punctuation between words and blanks: "Where  was Li?" -> "where was li"."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def masked(question: str, entity: str = "") -> str:
    """The wording alone: the entity is `{}`. Without an entity in it, runs of capitalised words and numbers are."""
    text = unicodedata.normalize("NFKC", question)
    name = unicodedata.normalize("NFKC", entity).strip()
    if name:
        without, found = re.subn(rf"(?<!\w){re.escape(name)}(?!\w)", f" {SLOT} ", text, flags=re.IGNORECASE)
        if found:
            return " ".join(without.casefold().split())
    parts, end = [], 0
    for start, stop in _name_runs(text):
        parts += [text[end:start], f" {SLOT} "]
        end = stop
    return " ".join("".join([*parts, text[end:]]).casefold().split())


def names_in(question: str) -> frozenset[str]:
    """Words that are capitalised or hold a digit: what the question is about, where nothing else says so."""
    text = unicodedata.normalize("NFKC", question)
    return frozenset(plain(word) for start, stop in _name_runs(text) for word in _WORD.findall(text[start:stop]))


def numbers_in(question: str) -> frozenset[str]:
    return frozenset(word for word in plain(question).split() if any(char.isdigit() for char in word))


def _name_runs(text: str) -> list[tuple[int, int]]:
    """[start, end) of each unbroken run of names and numbers. The first word needs a second name behind it, since
    every question begins with a capital."""
    words = list(_WORD.finditer(text))
    is_name = [word[0][0].isupper() or any(char.isdigit() for char in word[0]) for word in words]
    if words and not any(char.isdigit() for char in words[0][0]):
        follows = len(words) > 1 and is_name[1]
        is_name[0] = is_name[0] and follows and words[0][0].casefold() not in FUNCTION_WORDS
    runs = []
    for named, group in groupby(range(len(words)), key=is_name.__getitem__):
        numbers = list(group)
        if named:
            runs.append((words[numbers[0]].start(), words[numbers[-1]].end()))
    return runs


def levels(wording: str) -> tuple[int, int, int]:
    """Hashes of a masked question at three depths: the whole, its first two words, its first word."""
    words = wording.split()
    return digest64(wording), digest64("2", *words[:2]), digest64("1", *words[:1])


def kinds(levels_NL: np.ndarray) -> np.ndarray:
    """The kind of wording of each of N questions: its deepest level that at least `COMMON_KIND` questions share.

    Args:
        levels_NL: hashes of `levels`, N rows of `NUM_LEVELS`.

    Returns:
        N numbers from 0, equal for the same kind. What is rare at every level is one kind.
    """
    kind_N = np.zeros(len(levels_NL), dtype=np.uint64)
    open_N = np.ones(len(levels_NL), dtype=bool)
    for level in range(levels_NL.shape[1]):
        values, where, counts = np.unique(levels_NL[open_N, level], return_inverse=True, return_counts=True)
        common = counts[where] >= COMMON_KIND
        rows = np.flatnonzero(open_N)[common]
        kind_N[rows] = values[where][common]
        open_N[rows] = False
    return np.unique(kind_N, return_inverse=True)[1]


class Surface(NamedTuple):
    """What the wording alone told a classifier about rows that it was not fitted on."""

    right_refused: int
    num_refused: int
    right_answered: int
    num_answered: int

    @property
    def accuracy(self) -> float:
        """Balanced: the mean of both sides' shares. 0.5: the wording says nothing."""
        return (self.right_refused / self.num_refused + self.right_answered / self.num_answered) / 2


def surface(wordings: Sequence[str], refused: Sequence[bool], abouts: Sequence[int], seed: int) -> Surface | None:
    """Fits a logistic regression on words, word pairs, first word and length of masked questions, and counts what it
    gets right on held-out ones. All questions of an entity fall into one fold, if there are enough of them.

    Returns:
        None where a side has fewer than `FEWEST` rows.
    """
    refused_N = np.asarray(refused, dtype=bool)
    if min(refused_N.sum(), (~refused_N).sum()) < FEWEST:
        return None
    classifier = make_pipeline(
        CountVectorizer(analyzer=_features, max_features=20_000),
        LogisticRegression(class_weight="balanced", max_iter=1000, solver="liblinear", random_state=seed % 2**32),
    )
    folds = _folds(refused_N, np.asarray(abouts), seed % 2**32)
    guessed_N = cross_val_predict(classifier, list(wordings), refused_N, cv=folds)
    right_N = guessed_N == refused_N
    return Surface(
        int(right_N[refused_N].sum()),
        int(refused_N.sum()),
        int(right_N[~refused_N].sum()),
        int((~refused_N).sum()),
    )


def _folds(refused_N: np.ndarray, abouts_N: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(fitted on, held out). By entity; by row where a side has too few entities to be in every fold."""
    if len(np.unique(abouts_N)) >= NUM_FOLDS:
        by_entity = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=seed)
        folds = list(by_entity.split(refused_N, refused_N, abouts_N))
        if all(0 < refused_N[fitted].sum() < len(fitted) for fitted, _ in folds):
            return folds
    return list(StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed).split(refused_N, refused_N))


def _features(wording: str) -> list[str]:
    words = wording.split()
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return [*words, *pairs, f"first={words[0] if words else ''}", f"length={len(words)}", f"chars={len(wording) // 10}"]
