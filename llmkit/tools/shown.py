"""What a program's last line is worth: a program is changed so that it prints that, as an interactive interpreter does.

Its words are only looked at, by a scanner that does not recurse: nothing in a program can crash us.
"""

from __future__ import annotations

import io
import keyword
import tokenize

_MAX_SCANNED = 2**14
"""Of a longer program, only what it prints is shown: the scanner takes up to five milliseconds for a kilobyte."""
_BLOCKS = {"if", "elif", "else", "for", "while", "def", "class", "with", "try", "except", "finally", "async"}
"""What begins a line whose `;` end no statement of the program's own level."""
_SHOW = "(lambda value: None if value is None else print(repr(value)))"
"""Leaves no name behind that a program could have or miss."""
_EXPRESSIONS = {"None", "True", "False", "not", "lambda", "await"}
_STATEMENTS = {*keyword.kwlist} - _EXPRESSIONS
_ASSIGN = {"=", "+=", "-=", "*=", "/=", "//=", "%=", "@=", "&=", "|=", "^=", ">>=", "<<=", "**=", ":="}


def shown(source: str) -> str:
    """The program, made to print its last line's value where that is an expression, all lines where they were."""
    span = _last_expression(source)
    if span is None:
        return f"{source}\nNone"
    start, end = span
    return f"{source[:start]}{_SHOW}(({source[start:end]})){source[end:]}\nNone"


def _last_expression(source: str) -> tuple[int, int] | None:
    """Where the last statement begins and ends, if it is an expression and stands in no block."""
    if len(source) > _MAX_SCANNED:
        return None
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return None
    statement: list[tokenize.TokenInfo] = []
    last: list[tokenize.TokenInfo] = []
    indent = depth = 0
    in_block = False
    for token in tokens:
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            indent += 1 if token.type == tokenize.INDENT else -1
        elif token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            depth += _opened(token)
            if indent:
                last = []
            elif token.type == tokenize.NEWLINE or (token.string == ";" and depth == 0 and not in_block):
                last, statement = statement or last, []
                in_block = False
            else:
                in_block = in_block or (not statement and token.string in _BLOCKS)
                statement.append(token)
    if not last or not _is_expression(last):
        return None
    lines = [0]
    for line in io.StringIO(source):
        lines.append(lines[-1] + len(line))
    (row, column), (end_row, end_column) = last[0].start, last[-1].end
    return lines[row - 1] + column, lines[end_row - 1] + end_column


def _is_expression(tokens: list[tokenize.TokenInfo]) -> bool:
    if (tokens[0].type == tokenize.NAME and tokens[0].string in _STATEMENTS) or tokens[0].string == "@":
        return False
    depth = lambdas = 0
    for token in tokens:
        depth += _opened(token)
        if depth == 0 and lambdas <= 0 and token.string in _ASSIGN:
            return False
        if depth == 0:
            lambdas += (token.string == "lambda") - (token.string == ":")
    return lambdas >= 0


def _opened(token: tokenize.TokenInfo) -> int:
    """1 for a bracket that opens, -1 for one that closes."""
    return (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
