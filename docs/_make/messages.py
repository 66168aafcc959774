"""What every error says, and its cure: read from the code that raises it.

A text is shown as it stands in the source, with an ellipsis for what is filled in.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("UserError", "DataError", "TemplateError", "ModelError", "RunError", "RowError")
_PLACE = {**dict.fromkeys((*KINDS, "Problem"), 1), "RowError": 2, "problem_at": 2}
"""What is called -> the place of `what` among its arguments; `cure` is next to it."""
FILLED = "…"
_Names = dict[str, list[tuple[int, ast.expr]]]
"""Name -> lines on which it is bound, and to what. Around a function the line is 0: that holds everywhere in it."""
_ENDS = (ast.Raise, ast.Return, ast.Continue, ast.Break)


@dataclass(frozen=True, order=True)
class Message:
    """What is wrong and how to mend it, and in which folder of llmkit/ that is said."""

    room: str
    kind: str
    what: str
    cure: str


@cache
def messages() -> tuple[Message, ...]:
    """All of them, each once."""
    found: set[Message] = set()
    for path in sorted((ROOT / "llmkit").rglob("*.py")):
        room = path.relative_to(ROOT / "llmkit").parts[0].removesuffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {Message(room, *each) for each in _in_scope(tree, {})}
    return tuple(sorted(found))


def as_markdown() -> str:
    """A table for each room."""
    rooms = sorted({message.room for message in messages()})
    return "\n\n".join(f"### In {room}\n\n{_table(each for each in messages() if each.room == room)}" for room in rooms)


def _table(listed: Iterable[Message]) -> str:
    rows = [f"| {_cell(each.what)} | {_cell(each.cure)} | {each.kind} |" for each in listed]
    return "\n".join(["| it says | cure | error |", "| --- | --- | --- |", *rows])


def _cell(text: str) -> str:
    """As it is, in a cell: nothing of it is markdown."""
    plain = " ".join(text.split()).replace("`", "")
    return re.sub(r"[|<*_{\[]", lambda mark: f"&#{ord(mark[0])};", plain)


def _in_scope(scope: ast.AST, outer: _Names) -> Iterator[tuple[str, str, str]]:
    """Messages in a module or function, with the names that are bound in it and around it."""
    bound = _bound(scope)
    inside = {**outer, **{name: [(0, value) for _, value in values] for name, values in bound.items()}}
    ends = [node.lineno for node in _own(scope) if isinstance(node, _ENDS)]
    for node in _own(scope):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from _in_scope(node, inside)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _PLACE:
            yield from _message(node, outer | _before(bound, ends, node.lineno))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_TEXTS":
            yield from (found for pair in _pairs_in(node.value) for found in _found(pair, {}))
        elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            yield from _found(node.value, outer | _before(bound, ends, node.lineno))


def _before(bound: _Names, ends: list[int], line: int) -> _Names:
    """What names may mean on a line: what they were bound to since the last branch that ended, else just before."""
    since = max((end for end in ends if end < line), default=0)
    found: _Names = {}
    for name, values in bound.items():
        earlier = [value for value in values if value[0] <= line]
        found[name] = [value for value in earlier if value[0] > since] or earlier[-1:]
    return found


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a scope; of those inside that are scopes themselves only the head."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from _own(node)


def _bound(scope: ast.AST) -> _Names:
    names: _Names = {}
    for node in _own(scope):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                _bind(names, target, node.value)
    return names


def _bind(names: _Names, target: ast.expr, value: ast.expr) -> None:
    if isinstance(target, ast.Name):
        names.setdefault(target.id, []).append((target.lineno, value))
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for each, of in zip(target.elts, value.elts, strict=True):
            _bind(names, each, of)


def _message(call: ast.Call, names: _Names) -> Iterator[tuple[str, str, str]]:
    """Of `DataError(where, what, cure)`, `Problem(where, what, cure)` and their like."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    at = _PLACE[name]
    if len(call.args) > at:
        kind = name if name in KINDS else ""
        yield from _pairs(kind, call.args[at], call.args[at + 1] if len(call.args) > at + 1 else None, names)


def _pairs_in(table: ast.expr) -> Iterator[ast.Tuple]:
    """Of `_TEXTS`, a table of (what, cure): as if a place stood before them."""
    for value in table.values if isinstance(table, ast.Dict) else ():
        if isinstance(value, ast.Tuple):
            yield ast.Tuple([value.elts[0], *value.elts])


def _found(parts: ast.Tuple, names: _Names) -> Iterator[tuple[str, str, str]]:
    """Of `yield loc, what, cure`, as the checks of recipes say it."""
    if len(parts.elts) == 3:
        yield from _pairs("", parts.elts[1], parts.elts[2], names)


def _pairs(kind: str, what: ast.expr, cure: ast.expr | None, names: _Names) -> Iterator[tuple[str, str, str]]:
    cures = " / ".join(_texts(cure, names)) if cure else ""
    for text in _texts(what, names):
        if text.strip(f" {FILLED}:;,()"):
            yield kind, text, "" if cures == FILLED else cures


def _texts(node: ast.expr | None, names: _Names, depth: int = 0) -> list[str]:
    """The texts that an expression may be."""
    if isinstance(node, ast.Constant):
        return [str(node.value)] if node.value else []
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(part.value) if isinstance(part, ast.Constant) else FILLED for part in node.values)]
    if isinstance(node, ast.IfExp):
        return _texts(node.body, names, depth) + _texts(node.orelse, names, depth)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = (_texts(each, names, depth) or [FILLED] for each in (node.left, node.right))
        return [a + b for a in left for b in right]
    if isinstance(node, ast.Name) and node.id in names and depth < 3:
        return list(dict.fromkeys(text for _, each in names[node.id] for text in _texts(each, names, depth + 1)))
    return [FILLED]
