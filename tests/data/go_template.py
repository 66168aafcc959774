"""As much of Go's text/template as the Modelfiles of tests use: range, if/else if with eq, fields, `{{-` and `-}}`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

_TAG = re.compile(r"(\s*)\{\{(-)?\s*(.*?)\s*(-)?\}\}(\s*)", re.S)
Node = tuple[str, Any]


def render(source: str, data: dict[str, Any]) -> str:
    """Raises ValueError for what it does not know."""
    nodes, rest = _parse(iter([*_tokens(source), ("end", "")]))
    assert rest == "end"
    return _write(nodes, data)


def _tokens(source: str) -> Iterator[tuple[str, str]]:
    """("text", ...) and ("tag", ...)."""
    place = 0
    for found in _TAG.finditer(source):
        before, left, tag, right, after = found.groups()
        yield "text", source[place : found.start()] + ("" if left else before)
        yield "tag", tag
        place = found.end() if right else found.end() - len(after)
    yield "text", source[place:]


def _parse(tokens: Iterator[tuple[str, str]]) -> tuple[list[Node], str]:
    """Up to the tag that ends the block, and that tag."""
    nodes: list[Node] = []
    for kind, text in tokens:
        if kind == "text":
            nodes.append(("text", text))
        elif kind == "end" or text == "end" or text.startswith("else"):
            return nodes, text or "end"
        elif text.startswith("range "):
            body, ended = _parse(tokens)
            assert ended == "end"
            nodes.append(("range", (text.split()[1], body)))
        elif text.startswith("if "):
            branches, ended = [], text
            while ended != "end":
                body, following = _parse(tokens)
                branches.append((ended.removeprefix("else").strip().removeprefix("if").strip(), body))
                ended = following
            nodes.append(("if", branches))
        else:
            nodes.append(("value", text))
    return nodes, "end"


def _write(nodes: list[Node], data: dict[str, Any]) -> str:
    written = []
    for kind, what in nodes:
        if kind == "text":
            written.append(what)
        elif kind == "value":
            written.append(str(_value(what, data)))
        elif kind == "range":
            written += [_write(what[1], each) for each in _value(what[0], data)]
        else:
            chosen = next((body for condition, body in what if not condition or _is(condition, data)), [])
            written.append(_write(chosen, data))
    return "".join(written)


def _is(condition: str, data: dict[str, Any]) -> bool:
    words = shlex.split(condition, posix=False)
    if words[0] == "eq":
        return bool(_value(words[1], data) == _value(words[2], data))
    return bool(_value(condition, data))


def _value(word: str, data: dict[str, Any]) -> Any:
    if word.startswith('"'):
        return word[1:-1]
    if not re.fullmatch(r"\.\w+", word):
        raise ValueError(f"{word} is not known here")
    return data[word[1:]]
