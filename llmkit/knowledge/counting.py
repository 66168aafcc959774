"""Counts of nothing that are said without a number: `none`, `there is no "b"`, `it does not occur`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmkit.knowledge.tokens import Token, words

_ASKS = re.compile(r"\b(?:how (?:many|often)|count)\b", re.IGNORECASE)
_TIMES = words("once twice thrice")
_NONE = re.compile(
    r"^none\b|\b(?:there (?:is|are)|has|have|contains?) (?:none|no (?!(?:way|idea)\b)\w)"
    r"|\b(?:(?:does|do) not|doesnt|dont|never) (?:occur|appear|contain|have|show)"
    r"|\b(?:(?:is|are) not|isnt|arent) (?:in|found|present|there|part)\b"
)


def says_none(said: Sequence[Token], question: str) -> bool:
    """Whether an answer to how many there are names no number, but says that there are none. English."""
    if not _ASKS.search(question) or any(token.number or token.text in _TIMES for token in said):
        return False
    return _NONE.search(" ".join(token.text for token in said)) is not None
