"""How numbers are written, everywhere in a report: three significant figures, a percentage for a share."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SPACE = "\u202f"  # narrow no-break space
_MINUS = "\u2212"
_DASH = "\u2013"


def number(value: float) -> str:
    """Three significant figures: 2.31, 0.0312, 1 230, 2e-05 as 2e-5."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{_MINUS if value < 0 else ''}infinite"
    if value == int(value) and abs(value) < 1e15:
        return count(int(value))
    size = abs(value)
    if size < 1e-3 or size >= 1e9:
        return _scientific(value)
    if size >= 100:
        return count(round(value))
    decimals = 2 - math.floor(math.log10(size))
    return _signed(f"{value:.{decimals}f}")


def axis(ticks: Sequence[float]) -> list[str]:
    """Evenly spaced ticks with equally many decimals; small ones as 1e-3."""
    largest = max((abs(tick) for tick in ticks), default=0.0)
    if not 1e-2 <= largest < 1e6:
        return [_scientific(tick) if tick else "0" for tick in ticks]
    decimals = next((d for d in range(6) if all(math.isclose(tick, round(tick, d)) for tick in ticks)), 6)
    return [_signed(f"{tick:,.{decimals}f}".replace(",", _SPACE)) for tick in ticks]


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return _signed(f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}")


def count(value: int) -> str:
    """Every digit, in groups of three."""
    return _signed(f"{value:,}".replace(",", _SPACE))


def short_count(value: float) -> str:
    """950, 12.3k, 1.24M: for pictures."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return count(int(value))


def percent(value: float) -> str:
    """A share of one as a percentage with one decimal."""
    return f"{_signed(_tenths(100 * value))}{_SPACE}%"


def value(value: float, is_share: bool) -> str:
    return percent(value) if is_share else number(value)


def interval(low: float | None, high: float | None, is_share: bool) -> str:
    """`91.2-97.0` with an en dash, `-0.3 to 0.1` where a sign and a dash would meet; empty where there is none."""
    if low is None or high is None:
        return ""
    between = " to " if low < 0 else _DASH
    ends = [_signed(_tenths(100 * end)) if is_share else number(end) for end in (low, high)]
    return between.join(ends)


def difference(value: float, is_share: bool) -> str:
    """With its sign; a difference of shares is in percentage points."""
    sign = "+" if value > 0 else ""
    return f"{sign}{_signed(_tenths(100 * value))} points" if is_share else f"{sign}{number(value)}"


def difference_interval(low: float | None, high: float | None, is_share: bool) -> str:
    """`+1.2 to +4.0`: signs and a dash do not go together."""
    if low is None or high is None:
        return ""
    return " to ".join(difference(bound, is_share).removesuffix(" points") for bound in (low, high))


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f}{_SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{_SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{_SPACE}min {whole % 60}{_SPACE}s"
    return f"{whole // 3600}{_SPACE}h {whole % 3600 // 60:02d}{_SPACE}min"


def size(num_bytes: float) -> str:
    for limit, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if num_bytes >= limit:
            return f"{number(num_bytes / limit)}{_SPACE}{unit}"
    return f"{int(num_bytes)}{_SPACE}B"


def number_of(number: float, noun: str) -> str:
    """`1 prompt`, `1 000 prompts`."""
    return f"{count(int(number))} {noun}" if number == 1 else f"{count(int(number))} {noun}s"


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`"""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def _tenths(value: float) -> str:
    text = f"{value:.1f}"
    return {"0.0": "0", "-0.0": "0", "100.0": "100"}.get(text, text)


def _signed(text: str) -> str:
    return text.replace("-", _MINUS, 1) if text.startswith("-") else text
