"""Units of measurement: their names, and whether values in two of them are the same."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal

from llmkit.knowledge.tokens import plain

UNITS = {
    name: names.split()[0]
    for names in (
        "m meter meters metre metres",
        "km kilometer kilometers kilometre kilometres kms",
        "cm centimeter centimeters centimetre centimetres",
        "mm millimeter millimeters millimetre millimetres",
        "ft foot feet",
        "inch inches",
        "yd yard yards",
        "mi mile miles",
        "kg kilogram kilograms kilogramme kilos kgs",
        "g gram grams gramme",
        "lb lbs",
        "oz ounce ounces",
        "t ton tons tonne tonnes",
        "l liter liters litre litres",
        "gal gallon gallons",
        "sec secs second seconds",
        "min minute minutes mins",
        "h hr hrs hour hours",
        "d day days",
        "wk week weeks",
        "month months",
        "yr yrs year years",
        "% percent pct prozent",
        "$ dollar dollars usd",
        "€ euro euros eur",
        "£ gbp sterling",
        "¥ yen jpy",
        "°c celsius",
        "°f fahrenheit",
        "kelvin",
        "acre acres",
        "ha hectare hectares",
        "mph",
        "kmh",
    )
    for name in names.split()
}
"""Name -> canonical name."""
_SIZES = {
    unit: (base, Decimal(size))
    for base, sizes in (
        ("sec", {"sec": "1", "min": "60", "h": "3600", "d": "86400", "wk": "604800"}),
        ("month", {"month": "1", "yr": "12"}),
        ("mm", {"mm": "1", "cm": "10", "m": "1000", "km": "1000000"}),
        ("mm", {"inch": "25.4", "ft": "304.8", "yd": "914.4", "mi": "1609344"}),
        ("g", {"g": "1", "kg": "1000", "oz": "28.349523125", "lb": "453.59237"}),
    )
    for unit, size in sizes.items()
}
"""Canonical unit -> the unit that it is measured in, and how many of it."""
_FEWEST_DIGITS = 3
"""Significant digits that a rounded value must have to be taken for another in other units: 2 m are not 6 feet."""


def same_measure(one: Decimal, unit: str, other: Decimal, other_unit: str) -> bool:
    """Whether two values in different units are the same: exactly, or one of them is the other to its last digit.

    >>> same_measure(Decimal(120), "min", Decimal(2), "h")
    True
    >>> same_measure(Decimal(29029), "ft", Decimal(8848), "m")
    True
    """
    if unit not in _SIZES or other_unit not in _SIZES or _SIZES[unit][0] != _SIZES[other_unit][0]:
        return False
    size, other_size = _SIZES[unit][1], _SIZES[other_unit][1]
    if one * size == other * other_size:
        return True
    return _is_rounded(one * size / other_size, other) or _is_rounded(other * other_size / size, one)


def _is_rounded(value: Decimal, to: Decimal) -> bool:
    digits = to.as_tuple()
    exact = len(digits.digits) >= _FEWEST_DIGITS and isinstance(digits.exponent, int)
    if not exact or value.adjusted() > to.adjusted() + 1:
        return False
    return value.quantize(to, rounding=ROUND_HALF_UP) == to


def unit_asked_for(question: str) -> str:
    """`How many metres ...?` and `... in metres?` -> m; "" without a unit."""
    asked = plain(question).casefold()
    found = re.search(r"\bhow many (\w+)", asked) or re.search(r"\bin (?:degrees )?(\w{2,})\W*\Z", asked)
    return UNITS.get(found[1], "") if found else ""
