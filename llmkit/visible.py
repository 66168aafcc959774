"""Text of models as people may be shown it."""

from __future__ import annotations

_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def visible(text: str) -> str:
    """Control characters as their pictures, so that no model's text steers a terminal or a page."""
    return as_utf8("".join(_picture(char) for char in text))


def as_utf8(text: str) -> str:
    """With a question mark for each half of a character, which no tokenizer and no file takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def is_control(char: str) -> bool:
    """Whether it could move a cursor, recolour or rename a terminal, or turn text round; line breaks and tabs may."""
    code = ord(char)
    return (code < 0x20 and char not in "\n\t") or 0x7F <= code <= 0x9F or code in _BIDI


def _picture(char: str) -> str:
    if not is_control(char):
        return char
    return chr(0x2400 + ord(char)) if ord(char) < 0x20 else "\ufffd"
