"""Text of models as people may be shown it."""

from __future__ import annotations


def visible(text: str) -> str:
    """Control characters as their pictures, so that no model's text steers a terminal or a page."""
    return "".join(_picture(char) for char in text).encode("utf-8", "replace").decode("utf-8")


def _picture(char: str) -> str:
    code = ord(char)
    if code < 0x20 and char not in "\n\t":
        return chr(0x2400 + code)
    return "\ufffd" if 0x7F <= code <= 0x9F or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 else char
