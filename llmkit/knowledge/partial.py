"""Partial answers that say that they are partial: "In 1950, but I do not know more than that."

`refusals` teaches them where a model says something right but not the answer (`keep_partial`), and all judges know them
by their ends. The end excuses nothing: what stands before it decides.

    correct   it gives an accepted answer after all
    refused   it is right as far as it goes, and leaves open what was asked: part of an accepted answer ("In 1950" where
              "3 May 1950" is accepted), or words of the question's document
    wrong     anything else: "In 1862, but I do not know more than that." makes the year up
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from llmkit.knowledge import tokens

HONEST_END = {
    "en": "{partial}, but I do not know more than that.",
    "de": "{partial}, aber mehr weiß ich nicht.",
    "fr": "{partial}, mais je n'en sais pas plus.",
    "es": "{partial}, pero no sé nada más.",
}
"""What follows a partial answer, by the language of the refusals."""
VERBATIM_WORDS = 4
"""Words of an answer that must stand in the document in one run before the whole of it counts as right."""


def honest_part(text: str) -> str | None:
    """What an answer says before an honest end of any language; None: it has no such end, or says nothing before it.

    >>> honest_part("In 1950, but I don't know more than that")
    'In 1950'
    """
    folded = _folded(text)
    found = _ends().search(folded)
    part = folded[: found.start()].strip(" \t\n,;.-") if found else ""
    return part if re.search(r"\w", part) else None


def is_part(text: str, question: str, accepted: Sequence[str], document: str = "") -> bool:
    """Whether an answer is right as far as it goes, but less than was asked for: all that it adds to the question is
    part of an accepted answer, or the whole of it, at least four words, stands verbatim in the document."""
    # it brings scikit-learn, which judges do not need for other answers
    from llmkit.knowledge.balance import FUNCTION_WORDS, plain

    said = plain(text).split()
    added = set(said) - set(plain(question).split()) - FUNCTION_WORDS
    if not added:
        return False
    if any(added < set(plain(answer).split()) - FUNCTION_WORDS for answer in accepted):
        return True
    return len(said) >= VERBATIM_WORDS and f" {' '.join(said)} " in f" {plain(document)} "


@lru_cache(maxsize=1)
def _ends() -> re.Pattern[str]:
    """All ends, whatever the case, the accents and the marks around them; `do not` also as `don't`."""
    texts = [_folded(end.partition("{partial}")[2]).strip(" ,.") for end in HONEST_END.values()]
    words = [r"\s+".join(map(re.escape, text.split())).replace(r"do\s+not", r"(?:do\s+not|don't)") for text in texts]
    return re.compile(rf"\b(?:{'|'.join(words)})[\s.!]*\Z", re.IGNORECASE)


def _folded(text: str) -> str:
    return tokens.plain(text).replace("ß", "ss")
