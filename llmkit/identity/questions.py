"""What an evaluation asks a model of itself: wordings, openings, system messages and names that no training row has."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle

from llmkit.identity import personas
from llmkit.identity.wordings import DOUBTS, asked, fill, kinds_of, opened, others, systems, texts, values_of
from llmkit.recipe.identity import IdentitySpec

_DOUBTED = ("name", "maker", "other", "human")
"""What a conversation with doubt begins with."""
_OF_PERSONAS = (("name",), ("other",), ("name", "insist"), ("name",), ("name", "doubt"), ("maker",))
_OPENED = 0.3


@dataclass(frozen=True)
class Turn:
    """One question, and what a right answer depends on."""

    text: str
    kind: str
    persona: str = ""
    """Name that the system message gives; empty without one."""
    company: str = ""
    """Who made the persona, by the system message; empty where it does not say, or where the model's maker counts."""
    other: str = ""
    vendor: str = ""
    """Whom the question takes the model for; empty where it does not."""


@dataclass(frozen=True)
class Asked:
    """One conversation, of one question or two."""

    key: str
    kind: str
    """Of the last question; `persona` where the system message gives a name."""
    language: str
    system: str
    """Empty: none."""
    turns: tuple[Turn, ...]


def questions(spec: IdentitySpec, num_personas: int) -> list[Asked]:
    """All of an evaluation: the same for every model and seed."""
    return [one for language in spec.languages for one in _of_language(spec, language, num_personas)]


def _of_language(spec: IdentitySpec, language: str, num_personas: int) -> Iterator[Asked]:
    rng = random.Random(f"identity questions {language}")
    messages = cycle(["", *_spread(systems(spec, language, "heldout"))])
    taken = cycle(others(spec, "heldout") + others(spec, "train"))
    single: list[tuple[str, ...]] = [(kind,) for kind in kinds_of(spec) for _ in asked(language, kind, "heldout")]
    firsts = cycle([kind for kind in _DOUBTED if kind in kinds_of(spec)])
    double: list[tuple[str, ...]] = [
        (next(firsts), doubt) for doubt in DOUBTS for _ in asked(language, doubt, "heldout")
    ]
    wordings = {
        kind: cycle(asked(language, kind, "heldout")) for kind in {k for kinds in single + double for k in kinds}
    }
    for place, kinds in enumerate(single + double):
        other, values = next(taken), values_of(spec)
        values |= {"other": other.name, "vendor": other.vendor}
        turns = tuple(_turn(rng, language, kind, next(wordings[kind]), values) for kind in kinds)
        yield Asked(f"{language} {place}", kinds[-1], language, fill(next(messages), values), turns)
    for place in range(num_personas):
        kinds = _OF_PERSONAS[place % len(_OF_PERSONAS)]
        yield _persona(rng, spec, language, f"{language} persona {place}", kinds, wordings, asdict(next(taken)))


def _spread(messages: list[str]) -> Iterator[str]:
    """Every second question has no system message."""
    for place, message in enumerate(messages):
        yield from (message, "") if place + 1 < len(messages) else (message,)


def _turn(rng: random.Random, language: str, kind: str, wording: str, values: dict[str, str], **expected: str) -> Turn:
    text = opened(rng, language, fill(wording, values), "heldout", 0.0 if kind in DOUBTS else _OPENED)
    named = {field: values[field] for field in ("other", "vendor")} if kind in ("other", "insist") else {}
    return Turn(text, kind, **named, **expected)


def _persona(
    rng: random.Random, spec: IdentitySpec, language: str, key: str, kinds: tuple[str, ...], wordings: dict, other: dict
) -> Asked:
    own = texts(language)["persona"]
    has_company = spec.persona_maker == "system" and "maker" in kinds
    values = values_of(spec) | {"persona": personas.persona(rng, "heldout"), "role": rng.choice(own["roles"])}
    values |= {"company": personas.company(rng, "heldout"), "other": other["name"], "vendor": other["vendor"]}
    system = rng.choice(own["company_systems_heldout" if has_company else "systems_heldout"])
    expected = {"persona": values["persona"], "company": values["company"] if has_company else ""}
    turns = []
    for kind in kinds:
        wording = next(wordings[kind]) if kind in wordings else rng.choice(asked(language, kind, "heldout"))
        turns.append(_turn(rng, language, kind, wording, values, **expected))
    return Asked(key, "persona", language, fill(system, values), tuple(turns))
