"""The words by which a text is found."""

from __future__ import annotations

import re
import unicodedata

# letters, digits, and the signs of vowels of Indic scripts; of scripts that write no blanks, every sign is a word
_NO_BLANKS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f"
_MARKS = "".join(char for char in map(chr, range(0x700, 0xAC00)) if unicodedata.category(char)[0] == "M")
_SIGNS = re.sub(f"[{_NO_BLANKS}]", "", _MARKS)
_WORD = re.compile(rf"[{_NO_BLANKS}]|(?:[^\W_{_NO_BLANKS}]|[{_SIGNS}])+")
# of Latin, Greek, Cyrillic, Hebrew and Arabic, which are read without them too
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff]+"
)


def words(text: str) -> list[str]:
    """In their order, without case and accents."""
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text).casefold())
    return _WORD.findall(unicodedata.normalize("NFC", plain))
