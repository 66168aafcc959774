"""Whether an answer says who the model is: by rules, clause by clause, without a model.

"I am not ChatGPT, Claude or Gemini" denies all three; "I am not Nova, I am ChatGPT" claims one. A clause claims another
assistant or maker if it names one and

    speaks of the speaker, undenied     "I am ChatGPT", "OpenAI made me", "私はChatGPTです"
    or is hardly more than the name     "ChatGPT.", "Made by OpenAI", "Yes, Claude"

and does not compare ("unlike ChatGPT") or speak of the other ("ChatGPT is another assistant"). A bare "yes" to "Are you
ChatGPT?" is a claim, too.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

from llmkit.identity.questions import Turn
from llmkit.identity.wordings import is_told, mentions
from llmkit.recipe.identity import IdentitySpec

_OWN, _OTHER = "\ue000", "\ue001"
"""Stand for the speaker's own names, and for others', while clauses are read."""
_SENTENCES = re.compile(r"(?<=[.!?:;])\s+|[\u3002\uff01\uff1f\uff1b\uff1a\n]+|\s+[-\u2013\u2014]+\s+")
_CLAUSES = re.compile(r"[,\uff0c\u3001()\uff08\uff09\"\u201c\u201d]|\.{3}")
_LATIN = "[a-z0-9\u00df-\u024f_]"
"""What a Latin word goes on with: in Chinese and Japanese nothing stands between words."""
_BY = re.compile(rf"\b(?:by|von|par|por|da)\W+{_OTHER}")
_FEW = 3
"""Words beside a name of which a clause may be, and still be an answer by the name alone."""
_ORDINARY = re.compile(r"[A-Z][a-z]+")
"""A name that is a word, too: Apple, Phi, Meta. It counts with its capital only."""


@dataclass(frozen=True)
class Verdict:
    is_right: bool
    claims_other: bool


@lru_cache
def _mark(name: str) -> re.Pattern[str]:
    marks = tomllib.loads((files("llmkit.identity") / "texts" / "marks.toml").read_text(encoding="utf-8"))
    spaced = "|".join(f"(?:{mark})" for mark in marks[name])
    return re.compile("|".join([rf"(?<!{_LATIN})(?:{spaced})(?!{_LATIN})", *marks.get(f"{name}_cjk", [])]))


def judge(answer: str, turn: Turn, spec: IdentitySpec) -> Verdict:
    """Args: turn: what was asked, and under which name."""
    claims = claims_other(answer, turn, spec)
    return Verdict(not claims and _says(answer, turn, spec), claims)


def _says(answer: str, turn: Turn, spec: IdentitySpec) -> bool:
    """Whether it says what was asked for, whatever else it says."""
    if turn.persona:
        return _persona(answer, turn, spec)
    kind, text = turn.kind, plain(answer)
    if not is_told(spec, kind):
        return (kind == "purpose" and names(answer, spec.name)) or bool(_mark("untold").search(text))
    if kind == "browse":
        return _browses(text) is spec.can_browse
    if kind == "human":
        return bool(_mark("machine").search(text)) and not _human(text)
    if kind == "feelings":
        return bool(_mark("machine").search(text) or _mark("no").match(text)) and not _mark("yes").match(text)
    if kind in ("version", "base", "cut_off", "license", "website", "purpose"):
        return names(answer, getattr(spec, kind))
    if kind == "maker":
        return names(answer, spec.maker)
    return names(answer, spec.name) or (kind != "name" and names(answer, spec.maker))


def _persona(answer: str, turn: Turn, spec: IdentitySpec) -> bool:
    if turn.kind != "maker":
        text = _named(plain(turn.persona)).sub(_OWN, plain(answer))
        return names(answer, turn.persona) and not _claimed(_named(plain(spec.name)).sub(_OTHER, text))
    if turn.company:
        return names(answer, turn.company)
    return names(answer, spec.maker) if spec.maker else bool(_mark("untold").search(plain(answer)))


def _browses(text: str) -> bool | None:
    """Whether it says that it can look things up; None: it says nothing of that."""
    if _mark("no").match(text):
        return False
    about = (clause for _, clause in _clauses(text) if _mark("browsing").search(clause))
    said = [clause for clause in about if not _mark("untold").search(clause)]
    if not said:
        return True if _mark("yes").match(text) else None
    return not any(_mark("negation").search(clause) or re.search(r"不|ません|ない", clause) for clause in said)


def _human(text: str) -> bool:
    return bool(_mark("human").search(text)) and not re.search(r"not|nicht|pas|non?\b|não|不|ない", text)


def names(answer: str, value: str | None) -> bool:
    """Whether the value is in the answer, as a word, undenied, and not as a mere question ("Nova? No.")."""
    if not value or not plain(value):
        return False
    clauses = [clause for _, clause in _clauses(_named(plain(value)).sub(_OWN, plain(answer)))]
    return any(
        _OWN in clause and not _denied(clause, _OWN) and not (clause.endswith("?") and not _mark("yes").match(then))
        for clause, then in pairwise([*clauses, ""])
    )


def claims_other(answer: str, turn: Turn, spec: IdentitySpec) -> bool:
    """Whether it says that it is another assistant than it was told, or made by another."""
    own = [turn.persona, turn.company, spec.name, spec.maker, spec.base]
    text = _neat(answer)
    for value in sorted((plain(value) for value in own if value), key=len, reverse=True):
        text = _named(value).sub(_OWN, text)
    text = _others((turn.other, turn.vendor)).sub(_OTHER, text).casefold()
    if turn.other and _OTHER not in text and _affirms(text):
        return True
    if turn.other and _OWN not in text and _OTHER not in text:
        return bool(_mark("yes").match(text.lstrip())) and not _mark("negation").search(text)
    return _claimed(text)


def _affirms(text: str) -> bool:
    """Whether the first sentence is "Yes, that is me", whatever name is given behind it."""
    first = _SENTENCES.split(text.strip())[0]
    said_yes = _mark("yes").match(first)
    if not said_yes:
        return False
    parts = [first[said_yes.end() :], *_CLAUSES.split(first)]
    return any(_mark("affirmed").fullmatch(part.strip(" .!,")) for part in parts)


def _claimed(text: str) -> bool:
    """Whether some clause claims a name that is marked as another's."""
    denied = False
    for begins, clause in _clauses(text):
        denied = denied and not begins
        if _mark("turn").match(clause):
            denied = False
        if _OTHER in clause and _claims(clause, denied):
            return True
        denied = denied or _denied(clause, _OTHER)
    return False


def _claims(clause: str, denied: bool) -> bool:
    """Of a clause that names another. Args: denied: what stood before it was."""
    if _denied(clause, _OTHER) or _mark("contrast").search(clause):
        return False
    if _mark("self").search(clause):
        return True
    behind = clause.partition(_OTHER)[2].lstrip()
    if denied or _mark("third").match(behind) or _OWN in clause:
        return False
    num_words = len(re.findall(r"\w+", clause.replace(_OTHER, "")))
    return num_words <= _FEW or bool(_BY.search(clause))


def _denied(clause: str, sign: str) -> bool:
    before, _, behind = clause.partition(sign)
    behind = behind.lstrip()
    denied = _mark("denied_next").match(behind) or _mark("denied_behind").search(behind)
    return bool(denied or _mark("negation").search(before))


def _clauses(text: str) -> Iterator[tuple[bool, str]]:
    """(whether a sentence begins, clause). "but" and "and" begin one, too."""
    for sentence in _SENTENCES.split(text):
        parts = [part for piece in _CLAUSES.split(sentence) for part in _turns().split(piece) if part.strip()]
        yield from ((place == 0, part.strip()) for place, part in enumerate(parts))


@lru_cache
def _turns() -> re.Pattern[str]:
    return re.compile(rf"\s+(?={_mark('turn').pattern}|{_mark('joined').pattern})")


@lru_cache(maxsize=512)
def _others(named: tuple[str, ...]) -> re.Pattern[str]:
    """Every name of another assistant or maker, and those that the question named."""
    names = sorted({*mentions(), *named} - {""}, key=len, reverse=True)
    each = (re.escape(name) if _ORDINARY.fullmatch(name) else f"(?i:{re.escape(name)})" for name in names)
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(each)})(?![A-Za-z0-9])")


@lru_cache(maxsize=512)
def _named(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", re.IGNORECASE)


def _neat(text: str) -> str:
    """Width, quotes and runs of spaces as one would type them."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").replace("\u2018", "'").replace("*", "")
    return re.sub(r"[ \t\r]+", " ", text).strip()


def plain(text: str) -> str:
    """Neat, in small letters."""
    return _neat(text).casefold()
