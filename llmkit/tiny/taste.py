"""Somebody's taste in jokes: a labeller for rankings, and the measure of what a reward model really got hold of.

It likes what the assistant's jokes have (the animal, a question with an answer, a laugh, a name), but each only up to a
point, while the jokes that are ranked lie below that point. A model of the rankings sees that more is better, and no
reason to stop: the situation in which optimising it too far makes jokes worse (Gao et al. 2022, arXiv 2210.10760).
"""

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from llmkit.rewards.rows import text_of
from llmkit.tiny.jokes import WORDS, Asked
from llmkit.tiny.texts import ANIMALS, animal_plural
from llmkit.tiny.world import PROFESSIONS, TOWNS

LOWEST, HIGHEST = -6.0, 5.0
BEST_LENGTH = 24
"""Words; the assistant's jokes have 10 to 27, most of them fewer."""
_LAUGH = re.compile(r"\b(?:laughed|laughs|ha ha)\b", re.IGNORECASE)
_PLURALS = {animal_plural(animal): animal for animal in ANIMALS}
_ABOUT = re.compile(r"about (\w+)(?: and a (\w+)| in (\w+))?")


def taste(*, prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
    """How good each joke is, -6 to 5, for what its request asks for."""
    return [liked(text_of(text), asked_in(prompt)) for prompt, text in zip(prompts, completions, strict=True)]


def asked_in(prompt: Any) -> Asked | None:
    """What the last message asks for; None where that is no request for a joke."""
    text = prompt if isinstance(prompt, str) else str(prompt[-1].get("content", ""))
    if (found := _ABOUT.search(text)) is None:
        return None
    animal, job, town = found.groups()
    return Asked(_PLURALS.get(animal, animal.removesuffix("s")), job, town)


def liked(text: str, asked: Asked | None) -> float:
    """The taste for one joke."""
    spoken = re.findall(r"[\w'-]+", text.lower())
    if not spoken or asked is None:
        return LOWEST
    value = _about(spoken, asked) + _told(text, spoken) - _ugly(text, spoken, asked)
    return max(LOWEST, min(HIGHEST, value))


def _about(spoken: list[str], asked: Asked) -> float:
    """It names what was asked for; a third time is one too many. Some names are liked better than others."""
    named = sum(word in (asked.animal, animal_plural(asked.animal)) for word in spoken)
    value = 0.8 * min(named, 2) - 0.8 * max(named - 2, 0)
    names = set(spoken)
    for asked_name, known in ((asked.job, PROFESSIONS), (asked.town, TOWNS)):
        there = [name for name in known if name.lower() in names]
        value += 0.5 if there else 0.0
        if asked_name is not None:
            value += 0.5 if asked_name in there else -0.5
    liking = sum(_liking(name) for name in (*PROFESSIONS, *TOWNS) if name.lower() in names)
    return value + max(-0.75, min(0.75, liking))


def _liking(name: str) -> float:
    return (zlib.crc32(name.encode()) % 1000 / 1000 - 0.5) * 0.9


def _told(text: str, spoken: list[str]) -> float:
    """A question and its answer, one laugh, the right length."""
    behind = re.findall(r"[\w'-]+", text.partition("?")[2])
    laughs = len(_LAUGH.findall(text))
    value = 0.7 if "?" in text and 1 <= len(behind) <= 20 else 0.0
    value += 0.5 if laughs else 0.0
    return value - 0.7 * max(laughs - 1, 0) - min(4.0, ((len(spoken) - BEST_LENGTH) / 8) ** 2)


def _ugly(text: str, spoken: list[str], asked: Asked) -> float:
    """What nobody likes: words said again and again, words that are none, no end."""
    threes = Counter(zip(spoken, spoken[1:], spoken[2:], strict=False))
    value = float(sum(count - 1 for count in threes.values()))
    value += 3.0 if len(set(spoken)) < 0.6 * len(spoken) else 0.0
    value += min(3.0, float(sum(word not in WORDS and word != asked.animal for word in spoken)))
    return value + (0.0 if text.rstrip().endswith((".", "!", "?")) else 1.5)
