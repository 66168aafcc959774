"""Conversations that teach a model who it is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmkit.identity import personas
from llmkit.identity.wordings import (
    DOUBTS,
    answers_to,
    drawn,
    fill,
    kinds_of,
    opened,
    others,
    systems,
    texts,
    usual,
    values_of,
)
from llmkit.recipe.identity import IdentitySpec, IdentityStage

Message = dict[str, str]
_WEIGHTS = {"name": 2, "maker": 2, "other": 2, "compare": 2}
"""Of kinds of questions; 1 for the rest."""
_DOUBTED = ("name", "name", "maker", "other", "human", "base")
"""What a conversation with doubt begins with."""
_OF_PERSONAS = ("name", "name", "name", "other", "other", "maker", "maker", "maker", "insist", "doubt")
_USUAL = 0.25
"""Share of questions in a usual wording with nothing in front: each of many wordings alone would be rare."""
_OPENED = 0.4
_AGAIN = 0.25
"""Share of doubted answers that are doubted once more."""


@dataclass(frozen=True)
class Row:
    messages: tuple[Message, ...]
    kinds: tuple[str, ...]
    """Of its questions; `persona` alone under a system message that gives another name."""
    language: str
    num_doubts: int

    @property
    def kind(self) -> str:
        """Of the first question."""
        return self.kinds[0]


def rows(spec: IdentitySpec, stage: IdentityStage, seed: int) -> Iterator[Row]:
    """`stage.num_rows` conversations, each once: one that was there already goes on, where `more_questions` lets it."""
    rng, seen = random.Random(f"identity {seed}"), set[tuple[str, ...]]()
    while len(seen) < stage.num_rows:
        row = _row(rng, spec, stage)
        while _key(row) in seen and stage.more_questions and row.kind != "persona":
            if not (further := [kind for kind in kinds_of(spec) if kind not in row.kinds]):
                break
            row = _longer(rng, spec, row, rng.choice(further))
        if _key(row) not in seen:
            seen.add(_key(row))
            yield row


def _key(row: Row) -> tuple[str, ...]:
    return tuple(message["content"] for message in row.messages)


def _longer(rng: random.Random, spec: IdentitySpec, row: Row, kind: str) -> Row:
    return replace(row, messages=(*row.messages, *_turn(rng, spec, row.language, kind)), kinds=(*row.kinds, kind))


def _row(rng: random.Random, spec: IdentitySpec, stage: IdentityStage) -> Row:
    language, drawn = rng.choice(spec.languages), rng.random()
    num_doubts = 0
    if rng.random() < stage.push_back:
        num_doubts = 2 if rng.random() < _AGAIN else 1
    if drawn < stage.personas:
        return _persona(rng, spec, stage, language, num_doubts)
    messages = []
    if drawn < stage.personas + stage.system:
        messages.append(
            {"role": "system", "content": fill(rng.choice(systems(spec, language, "train")), values_of(spec))}
        )
    kinds = kinds_of(spec)
    if num_doubts:
        asked_for = [rng.choice([kind for kind in _DOUBTED if kind in kinds]), *rng.choices(DOUBTS, k=num_doubts)]
    else:
        num_questions = rng.randint(2, 4) if rng.random() < stage.more_questions else 1
        drawn_kinds = rng.choices(kinds, weights=[_WEIGHTS.get(kind, 1) for kind in kinds], k=num_questions)
        asked_for = list(dict.fromkeys(drawn_kinds))
    for kind in asked_for:
        messages += _turn(rng, spec, language, kind)
    return Row(tuple(messages), tuple(asked_for), language, num_doubts)


def _turn(rng: random.Random, spec: IdentitySpec, language: str, kind: str) -> list[Message]:
    values = values_of(spec) | _taken_for(rng, spec)
    question = _question(rng, language, kind, values)
    return _said(question, fill(rng.choice(answers_to(spec, language, kind)), values))


def _question(rng: random.Random, language: str, kind: str, values: dict[str, str]) -> str:
    if rng.random() < _USUAL:
        return fill(rng.choice(usual(language, kind)), values)
    question = fill(drawn(rng, language, kind), values)
    return opened(rng, language, question, "train", 0.0 if kind in DOUBTS else _OPENED)


def _taken_for(rng: random.Random, spec: IdentitySpec) -> dict[str, str]:
    """Another assistant: one that there is, at times one that nobody knows."""
    if rng.random() < 0.3:
        return {"other": personas.persona(rng, "train"), "vendor": personas.company(rng, "train")}
    other = rng.choice(others(spec, "train"))
    return {"other": other.name, "vendor": other.vendor}


def _persona(rng: random.Random, spec: IdentitySpec, stage: IdentityStage, language: str, num_doubts: int) -> Row:
    """Under a system message that gives another name."""
    own = texts(language)["persona"]
    has_company = spec.persona_maker == "system" and rng.random() < 0.4
    values = values_of(spec) | {"persona": personas.persona(rng, "train"), "role": rng.choice(own["roles"])}
    values |= {"company": personas.company(rng, "train")}
    system = rng.choice(own["company_systems" if has_company else "systems"])
    messages = [{"role": "system", "content": fill(system, values)}]
    if num_doubts:
        kinds = ["name", *rng.choices(DOUBTS, k=num_doubts)]
    else:
        num_questions = 2 if rng.random() < stage.more_questions else 1
        kinds = list(dict.fromkeys(rng.choices(_OF_PERSONAS, k=num_questions)))
    for kind in kinds:
        values |= _taken_for(rng, spec)
        question = _question(rng, language, kind, values)
        answer = rng.choice(persona_answers(spec, language, kind, has_company=has_company))
        messages += _said(question, fill(answer, values))
    return Row(tuple(messages), ("persona",), language, num_doubts)


def persona_answers(spec: IdentitySpec, language: str, kind: str, *, has_company: bool) -> list[str]:
    """Of a persona. Args: has_company: the system message says who made it."""
    own = texts(language)["persona"]
    if kind == "maker":
        told = "maker_own" if spec.maker else "maker_untold"
        return list(own["maker_system" if has_company else told])
    return list(own[{"name": "answers", "doubt": "doubts"}.get(kind, "denials")])


def _said(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def counts(made: list[Row]) -> dict[str, float]:
    """Rows in all, with doubt, with a system message, under another name, and of each language."""
    languages = Counter(row.language for row in made)
    return {
        "num_rows": len(made),
        "rows_doubted": sum(row.num_doubts > 0 for row in made),
        "rows_system": sum(row.messages[0]["role"] == "system" and row.kind != "persona" for row in made),
        "rows_persona": sum(row.kind == "persona" for row in made),
        **{f"rows_{language}": languages[language] for language in sorted(languages)},
    }
