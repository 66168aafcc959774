"""The wordings that llmkit ships for questions about oneself: `texts/<language>.toml`, and `texts/others.toml`.

Of a kind's `train` and `heldout` wordings none is in both: rows are made of the first, evaluations of the second.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

from llmkit.recipe.identity import IdentitySpec

Split = Literal["train", "heldout"]
FACTS = ("maker", "version", "base", "cut_off", "license", "website", "purpose")
"""Kinds of questions that ask for the field of the same name."""
KINDS = ("name", *FACTS, "browse", "human", "feelings", "compare", "other")
"""Kinds of questions that a conversation can begin with."""
DOUBTS = ("insist", "doubt")
"""Kinds of what can be said to an answer: that the model is another, and that the answer is not believed."""
_FIELD = re.compile(r"\{(\w+)\}")
_FRAMED, _NAMED = 0.3, 0.2
"""Shares of questions inside of a sentence, and of those that name what they ask for."""
_NUM_USUAL = 2
"""Wordings stand in their list in the order of how often people say them."""
_SPACED = ("en", "de", "fr", "es", "it", "pt")


@dataclass(frozen=True)
class Other:
    """Another assistant, for which the model is taken."""

    name: str
    vendor: str


@lru_cache
def texts(language: str) -> dict[str, Any]:
    """Of `texts/<language>.toml`."""
    return tomllib.loads((files("llmkit.identity") / "texts" / f"{language}.toml").read_text(encoding="utf-8"))


def asked(language: str, kind: str, split: Split) -> list[str]:
    """Wordings of a kind of question."""
    return list(texts(language)[kind][split])


def drawn(rng: random.Random, language: str, kind: str) -> str:
    """A wording for a row, at times inside of a sentence: "I forgot who made you.", "Your version, please."."""
    own, share = texts(language), rng.random()
    for frames, field, up_to in (("frames", "indirect", _FRAMED), ("noun_frames", "nouns", _FRAMED + _NAMED)):
        if share < up_to and (parts := own[kind].get(field)):
            text = fill(rng.choice(own[frames]), {field.removesuffix("s"): rng.choice(parts)})
            return text[0].upper() + text[1:]
    wordings: list[str] = own[kind]["train"]
    return rng.choice(wordings)


def usual(language: str, kind: str) -> list[str]:
    """What most people say: "Who are you?"."""
    wordings: list[str] = texts(language)[kind]["train"]
    return wordings[:_NUM_USUAL]


def kinds_of(spec: IdentitySpec) -> list[str]:
    """Kinds of questions that this model is asked."""
    return [kind for kind in KINDS if spec.untold == "say" or is_told(spec, kind)]


def is_told(spec: IdentitySpec, kind: str) -> bool:
    """Whether the recipe says what a question of this kind asks for."""
    if kind == "browse":
        return spec.can_browse is not None
    return kind not in FACTS or getattr(spec, kind) is not None


def answers_to(spec: IdentitySpec, language: str, kind: str, *, is_doubted: bool = False) -> list[str]:
    """Answers whose fields the recipe gives. Args: is_doubted: the question names another assistant."""
    if kind in ("other", "insist"):
        return _filled(texts(language)["denials"], spec, {"other"})
    own = texts(language)[kind]
    if not is_told(spec, kind):
        return _filled(own["untold"], spec)
    return _filled(own["answers_yes" if kind == "browse" and spec.can_browse else "answers"], spec, {"other"})


def _filled(templates: Sequence[str], spec: IdentitySpec, further: Collection[str] = ()) -> list[str]:
    """Those of which every field is given."""
    have = {*values_of(spec), *further}
    return [text for text in templates if set(_FIELD.findall(text)) <= have]


def systems(spec: IdentitySpec, language: str, split: Split) -> list[str]:
    """System messages that give no other name."""
    return _filled(texts(language)["systems" if split == "train" else "systems_heldout"], spec)


def values_of(spec: IdentitySpec) -> dict[str, str]:
    """Field -> what the recipe says."""
    return {field: value for field in ("name", *FACTS) if (value := getattr(spec, field)) is not None}


def fill(template: str, values: Mapping[str, str]) -> str:
    """A field's own text is put in as it is, braces and all."""
    return _FIELD.sub(lambda found: values[found[1]], template)


@lru_cache
def _others() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files("llmkit.identity") / "texts" / "others.toml").read_text(encoding="utf-8"))


def others(spec: IdentitySpec, split: Split) -> list[Other]:
    """Assistants that this one is taken for: none of its own maker, and not the one that it is based on."""
    own = {value.casefold() for value in (spec.name, spec.maker) if value}
    base = (spec.base or "").casefold()
    every = [Other(name, vendor) for name, vendor in _others()[split].items()]
    return [
        other
        for other in every
        if not {other.name.casefold(), other.vendor.casefold()} & own and other.name.casefold() not in base
    ]


def mentions() -> list[str]:
    """All names of other assistants and their makers, longest first."""
    known = _others()
    found = {*known["train"], *known["train"].values(), *known["heldout"], *known["heldout"].values()}
    found |= {*known["mentions"]["names"], *known["mentions"]["makers"]}
    return sorted(found, key=lambda name: (-len(name), name))


def opened(rng: random.Random, language: str, text: str, split: Split, share: float) -> str:
    """The question, at times with an opening in front of it, or as people type who are in a hurry."""
    if rng.random() < share:
        openings = texts(language)["openers" if split == "train" else "openers_heldout"]
        text = f"{rng.choice(openings)}{' ' if language in _SPACED else ''}{text}"
    typed = rng.random()
    if typed < 0.1 and language in _SPACED:
        return text.lower()
    return text.rstrip(".?!\u3002\uff1f\uff01") if 0.1 <= typed < 0.18 else text


def plain(text: str) -> str:
    """Letters and digits alone, in small letters: how wordings are told apart."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()
