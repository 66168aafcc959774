"""Exact arithmetic as a tool. An expression is parsed and computed with fractions; nothing is ever evaluated as code.

Known: + - * / // % ** ^ ( ), comparisons, abs, round, min, max, sum, sqrt. Whole numbers and decimals are exact; a
result that has no end, such as 1/3, is rounded to 20 digits.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction
from math import isqrt
from typing import Any

from llmkit.chat.schemas import calculator_schema
from llmkit.tools.tool import CallFailed, Tool

MAX_CHARS = 500
MAX_BITS = 8192
"""Of a numerator or denominator, about 2,466 digits."""
_DIGITS = Context(prec=20)
_ROOTS = Context(prec=50)
_WRITTEN = str.maketrans({"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-", "^": "**"})
_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARED: dict[type[ast.cmpop], Callable[[Fraction, Fraction], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def calculator_tool() -> Tool:
    """The tool `calculator(expression)`."""
    return Tool("calculator", calculator_schema(), lambda arguments: calculate(arguments["expression"]), 4 * MAX_BITS)


def calculate(expression: str) -> str:
    """The value as text. Raises CallFailed for what is no arithmetic, or grows too large."""
    text = expression.strip().removesuffix("=").translate(_WRITTEN).strip()
    if len(text) > MAX_CHARS:
        raise CallFailed(f"the expression is longer than {MAX_CHARS} characters")
    try:
        tree = ast.parse(text, mode="eval").body
        return _written(_compare(tree, text) if isinstance(tree, ast.Compare) else _value(tree, text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CallFailed(f"{expression[:80]!r} is no arithmetic expression") from None
    except ZeroDivisionError:
        raise CallFailed("division by zero") from None


def _value(node: ast.expr, text: str) -> Fraction:
    if isinstance(node, ast.Constant):
        return _number(node, text)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        value = _value(node.operand, text)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _power(_value(node.left, text), _value(node.right, text))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _small(Fraction(_BINARY[type(node.op)](_value(node.left, text), _value(node.right, text))))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _called(node.func.id, [_value(argument, text) for argument in node.args])
    raise CallFailed(f"{(ast.get_source_segment(text, node) or text)[:80]!r} is no arithmetic")


def _number(node: ast.Constant, text: str) -> Fraction:
    """A number as it is written: a float would not be exact."""
    if type(node.value) not in (int, float):
        raise CallFailed(f"{node.value!r} is no number"[:120])
    if type(node.value) is int:
        return _small(Fraction(node.value))
    value = Decimal((ast.get_source_segment(text, node) or "").replace("_", ""))
    if abs(value.adjusted()) > MAX_BITS // 4:
        raise CallFailed("the number is too large or too small")
    return _small(Fraction(value))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator == 2 and base >= 0:
        return _power(_root(base), Fraction(exponent.numerator))
    if exponent.denominator != 1:
        raise CallFailed("a power takes whole or half exponents")
    if abs(base) == 1:
        return base ** (exponent.numerator % 2)
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * (size - 1) > MAX_BITS:
        raise CallFailed("the result is too large")
    return Fraction(base**exponent.numerator)


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise CallFailed("the root of a negative number is no real number")
    exact = Fraction(isqrt(value.numerator), isqrt(value.denominator))
    if exact * exact == value:
        return exact
    return Fraction(_ROOTS.sqrt(_ROOTS.divide(Decimal(value.numerator), Decimal(value.denominator))))


def _called(name: str, values: list[Fraction]) -> Fraction:
    if name in ("min", "max", "sum") and values:
        return _small({"min": min, "max": max, "sum": sum}[name](values) + Fraction(0))  # type: ignore[operator]
    if name == "abs" and len(values) == 1:
        return abs(values[0])
    if name == "sqrt" and len(values) == 1:
        return _root(values[0])
    if name == "round" and len(values) in (1, 2):
        places = values[1] if len(values) == 2 else Fraction(0)
        if places.denominator != 1 or abs(places) > 100:
            raise CallFailed("round takes a whole number of places, at most 100")
        return Fraction(round(values[0], int(places)))
    raise CallFailed(
        f"there is no function {name[:40]}({', '.join('x' * len(values))}); there are abs, max, min, round, sqrt, sum"
    )


def _compare(node: ast.Compare, text: str) -> bool:
    values = [_value(each, text) for each in (node.left, *node.comparators)]
    if any(type(sign) not in _COMPARED for sign in node.ops):
        raise CallFailed("numbers are compared by <, <=, >, >=, == and !=")
    pairs = zip(node.ops, values, values[1:], strict=False)
    return all(_COMPARED[type(sign)](left, right) for sign, left, right in pairs)


def _small(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise CallFailed("the result is too large")
    return value


def _written(value: Fraction | bool) -> str:
    if isinstance(value, bool):
        return str(value)
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest, count = rest // prime, count + 1
        places = max(places, count)
    if rest == 1 and places <= 40:
        return f"{Context(prec=MAX_BITS).divide(Decimal(value.numerator), Decimal(value.denominator)):f}"
    return f"{_DIGITS.divide(Decimal(value.numerator), Decimal(value.denominator))}"
