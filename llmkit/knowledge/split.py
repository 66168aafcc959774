"""Training and evaluation share no entity: which side an entity falls on is a hash of its name."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Literal

# Letters that Unicode does not decompose into a base letter and a mark.
_PLAIN_LETTERS = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "\u0131": "i", "æ": "ae", "œ": "oe"})

# Scripts that put no spaces between words: every character counts as one.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def split_of(about: str, heldout: float, seed: int) -> Literal["train", "heldout"]:
    """The side of an entity. Stable across runs and machines; a larger `heldout` only adds entities to "heldout".

    Args:
        about: name of the entity (`Question.about`). Spellings that differ in case, accents, spaces or punctuation
            fall together.
        heldout: share of entities that are held out, from 0 to 1.
    """
    digest = hashlib.sha256(f"{seed}\n{entity_key(about)}".encode("utf-8", "backslashreplace")).digest()
    return "heldout" if int.from_bytes(digest[:8], "big") < heldout * 2**64 else "train"


def entity_key(about: str) -> str:
    """Letters and digits of a name, folded. A name without any, such as "!!!", is its own key."""
    return "".join(char for char in fold(about) if char.isalnum()) or about.strip()


def fold(text: str) -> str:
    """Lower case without accents: compatibility forms are unified (NFKD) and combining marks dropped."""
    apart = unicodedata.normalize("NFKD", text.casefold()).casefold()
    bare = "".join(char for char in apart if unicodedata.category(char) != "Mn")
    return unicodedata.normalize("NFC", bare).translate(_PLAIN_LETTERS)


def words(text: str) -> list[str]:
    """Runs of letters and digits; characters of scripts that put no spaces between words one by one."""
    return WORD.findall(text)


def is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON can spell and neither UTF-8 nor tokenizers can."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
