"""Names that nobody has: of assistants in a system message, and of who made them.

A name belongs to training or to evaluation by its hash, so that a model which knows names by heart gains nothing.
"""

from __future__ import annotations

import random
from hashlib import sha256

from llmkit.identity.wordings import Split

_STARTS = (
    "Ma", "Ta", "Li", "Ro", "Be", "So", "Ka", "Ni", "Da", "Ve", "Jo", "Fe", "Lu", "Pa", "Mi", "Ze", "Ar", "El", "Or",
    "Is", "Bra", "Tri", "Cla", "Ste", "Gro", "Fla", "Ha", "Wi", "Qui", "Yo",
)  # fmt: skip
_MIDDLES = ("ri", "lo", "na", "ve", "mi", "do", "ta", "ke", "su", "ba", "ran", "lin", "mo", "der", "pe", "")
_ENDS = ("a", "o", "ra", "na", "lis", "ton", "n", "ka", "mar", "vi", "x", "bel", "dor", "nix", "ly", "ster", "bo")
_COMPANIES = ("Works", "Labs", "Systems", "Brothers", "Group", "Studio", "House", "Institute")
_HELDOUT = 4
"""One name in so many is kept for evaluation."""


def persona(rng: random.Random, split: Split) -> str:
    """A name of one word, at times of two."""
    return drawn(rng, split) + (f" {drawn(rng, split)}" if rng.random() < 0.2 else "")


def company(rng: random.Random, split: Split) -> str:
    return f"{drawn(rng, split)} {rng.choice(_COMPANIES)}"


def drawn(rng: random.Random, split: Split) -> str:
    """A word of this side."""
    while True:
        word = rng.choice(_STARTS) + rng.choice(_MIDDLES) + rng.choice(_ENDS)
        if side_of(word) == split and len(word) > 2:
            return word


def side_of(word: str) -> Split:
    return "heldout" if sha256(word.casefold().encode()).digest()[0] % _HELDOUT == 0 else "train"
