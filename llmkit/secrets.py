"""Tokens and passwords in text: found, and hidden before anybody reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

HIDDEN = "<hidden>"
_FORMS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{16,}\b",
    "an API key (sk-...)": r"\bsk-(?:[a-z]{2,8}-)?[A-Za-z0-9_-]{20,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{20,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'<>]*:[^\s/@\"'<>]+@(?=[\w.-])",
}
_ANY = re.compile("|".join(f"(?P<k{index}>{form})" for index, form in enumerate(_FORMS.values())))
LONGEST = 512
"""Characters within which each of them can be told for what it is."""


def secrets(text: str, known: Iterable[str] = ()) -> Iterator[tuple[int, str]]:
    """(place, what it is) of each. `known`: values that are secret whatever they look like."""
    names = list(_FORMS)
    for found in _ANY.finditer(text):
        yield found.start(), names[int((found.lastgroup or "k0")[1:])]
    for value in known:
        if len(value) >= 8 and (place := text.find(value)) >= 0:
            yield place, "the token that you are logged in with"


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """`text` with every secret hidden."""
    for value in known:
        text = text.replace(value, HIDDEN) if len(value) >= 4 else text
    return _ANY.sub(HIDDEN, text)
