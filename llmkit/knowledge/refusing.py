"""Refusals: recognising them in answers, and the wordings that llmkit ships for teaching them.

Recognition is by patterns over clauses, many in English, German, French and Spanish, and unmistakable ones in Italian,
Portuguese, Dutch, Russian, Chinese and Japanese: an answer is a refusal if some clause
says that the speaker does not know, and no clause gives a value. What each clause is:

    refusal    "I don't know", "keine Ahnung", "aucune information", "no lo sé"
    filler     courtesy, advice, a question, the speaker about itself: "Sorry", "you could look it up", "As an AI model"
    value      anything else: "..., but he was born in Paris"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from llmkit.errors import DataError
from llmkit.knowledge.tokens import plain, text_file
from llmkit.recipe.knowledge import LANGUAGES, RefusalTexts

_REPEATS = 5
_PERIOD = 8


@lru_cache
def patterns(name: str) -> re.Pattern[str]:
    """One alternative a line of `texts/<name>.txt`; `#` begins a comment, `= NAME ...` what <NAME> stands for."""
    lines = [line for line in text_file(name).splitlines() if line.strip() and not line.startswith("#")]
    named = {name: value for name, _, value in (line[2:].partition(" ") for line in lines if line[:2] == "= ")}
    source = "|".join(f"(?:{line})" for line in lines if line[:2] != "= ")
    return re.compile(re.sub(r"<([A-Z]+)>", lambda found: named[found[1]], source))


_TURN = re.compile(
    r"\b(?:but|however|though|although|aber|jedoch|mais|cependant|pero|sin embargo|porem|maar|echter|но|однако)\b"
    r"|, *(?:ma|mas)\b|但是?|不过|不過|しかし|ですが"  # `ma` and `mas` are other words in French and Spanish
)
_GUESS = re.compile(
    r"^(?:i (?:think|believe|guess|suppose|would (?:say|guess)|heard|know (?:that|he|she|it))|my (?:best )?guess|maybe|"
    r"perhaps|probably|possibly|it|its|he|she|they|hes|shes|this|that|the|in|on|at|there|"
    r"ich (?:glaube|denke|vermute)|vielleicht|vermutlich|wahrscheinlich|er|sie|es|das|der|die|"
    r"je (?:crois|pense)|peut etre|probablement|il|elle|cest|ce|le|la|"
    r"creo|pienso|quizas?|tal vez|probablemente|fue|es|era|el|"
    r"credo|penso|forse|probabilmente|acho|talvez|provavelmente|ik (?:denk|geloof)|misschien|waarschijnlijk|het|hij|"
    r"(?:я )?думаю|возможно|наверное|может быть|он|она|это)\b"
)

_ASKED = re.compile(
    r"^(?:who|what|where|when|which|whether|wer|wo|wann|warum|ob|qui|quand|quien|donde|cuando|chi|dove|quando|quem|onde|"
    r"wie|wat|waar|wanneer|кто|что|где|когда|какои|какая|какое)\b"
)
"""What begins a clause that only repeats the question."""


def is_empty(text: str) -> bool:
    """No letter and no digit, or the same one to eight words (or characters) at least five times and nothing else."""
    words = re.findall(r"\w+", plain(text).casefold())
    if not words:
        return True
    if len(words) == 1:
        return len(words[0]) >= 10 and _repeats(words[0], period=2)
    return len(words) >= _REPEATS and _repeats(words, period=_PERIOD)


def _repeats(items: Sequence[str], period: int) -> bool:
    return any(
        len(items) >= _REPEATS * size and items[size:] == items[:-size]  # equal to itself, moved by one period
        for size in range(1, period + 1)
    )


def is_refusal(text: str, extra: Sequence[str] = ()) -> bool:
    """Whether an answer says that it does not know, and gives no value.

    Args:
        extra: refusals in wordings of one's own.
    """
    refused = False
    for sentence in re.split(r"[.!;\n。]+|(?<=\?)", folded_with(text, extra)):
        opened = False
        for raw in re.split(r"[,:()、]|--", _TURN.sub(", but ", sentence)):
            turned = raw.strip().startswith("but ")
            clause = re.sub(r"[^\w ?]+", " ", raw).strip().removeprefix("but ").strip()
            clause = re.sub(r" +", " ", clause)
            if not re.search(r"\w", clause) or (clause.endswith("?") and not opened):
                continue
            if patterns("refusal_patterns").search(clause):
                refused = opened = True
            elif patterns("filler_patterns").fullmatch(clause.strip(" ?")):
                continue
            elif not opened or turned or _gives_value(clause):
                return False
    return refused


def informative(text: str, extra: Sequence[str] = ()) -> bool:
    """Whether an answer says something about what was asked, right or wrong."""
    return not is_empty(text) and not is_refusal(text, extra)


def _gives_value(clause: str) -> bool:
    """A clause behind a refusal's comma: a guess or a short value, not a subordinate clause about the question."""
    if _ASKED.match(clause):
        return False
    return bool(_GUESS.match(clause)) or len(clause.split()) <= 2


def folded_with(text: str, extra: Sequence[str]) -> str:
    """The text as patterns take it, with refusals of one's own as one that they know."""
    folded = _folded(text)
    for own in sorted(map(_folded, extra), key=len, reverse=True):
        if own.strip():
            folded = folded.replace(own.strip(". !"), " i do not know ")
    return folded


def _folded(text: str) -> str:
    """Casefolded, without accents and apostrophes, `I'm` written out; runs of spaces are one."""
    folded = plain(text).casefold()
    for short, long in (("m", "am"), ("ve", "have"), ("d", "would"), ("ll", "will")):
        folded = re.sub(rf"\b(i|you|we)'{short}\b", rf"\1 {long}", folded)
    return re.sub(r"[ \t\r]+", " ", folded.replace("'", ""))


def refusals(spec: RefusalTexts, language: str = "") -> tuple[str, ...]:
    """The refusals that a recipe asks for: its own, or the shipped ones of its tone.

    Args:
        language: of the question. Default: the recipe's.

    Raises:
        DataError: nothing is shipped for the language.
    """
    language = language or spec.language
    return tuple(spec.own.get(language, ())) or shipped_texts(language, spec.tone)


@lru_cache
def shipped_texts(language: str, kind: str) -> tuple[str, ...]:
    """The lines of `texts/<language>_<kind>.txt`. Raises DataError: there is no such file."""
    if language not in LANGUAGES:
        cure = f"give 'texts' of your own ({{{language}: [...]}}), or one of {', '.join(LANGUAGES)}"
        raise DataError("refusals.language", f"no texts are shipped for '{language}'", cure)
    return tuple(line.strip() for line in text_file(f"{language}_{kind}").splitlines() if line.strip())
