"""Small charts as inline SVG. Pure functions from numbers to markup; colours come from the page's classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from llmkit.report.numbers import axis, number

MAX_POINTS = 200


@dataclass(frozen=True)
class Point:
    """A bucket of neighbouring steps: mean, smallest and largest value. NaN where none was finite."""

    step: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Whisker:
    """A value with its interval at one place of the chain."""

    name: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Part:
    """A piece of a bar; `css` names its colour."""

    css: str
    num: float


def thin(steps: Sequence[int], values: Sequence[float], max_points: int = MAX_POINTS) -> list[Point]:
    """At most `max_points` buckets that together keep every extreme."""
    width = max(1, math.ceil(len(steps) / max_points))
    points = []
    for start in range(0, len(steps), width):
        finite = [v for v in values[start : start + width] if math.isfinite(v)] or [math.nan]
        bucket = steps[start : start + width]
        points.append(Point(sum(bucket) / len(bucket), sum(finite) / len(finite), min(finite), max(finite)))
    return points


def ticks(low: float, high: float, num: int = 4) -> list[float]:
    """About `num` round numbers within [low, high]."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / num
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def line_chart(label: str, points: Sequence[Point], is_share: bool = False) -> Markup:
    """Value against step: a line through the means, and a band from low to high where steps were merged."""
    finite = [p for p in points if math.isfinite(p.mean)]
    if not finite:
        return Markup('<p class="muted">No finite value was logged.</p>')
    width, height, left, right, top, bottom = 340.0, 168.0, 46.0, 8.0, 8.0, 24.0
    low, high = padded([b for p in finite for b in (p.low, p.high)])
    if is_share:
        low, high = max(0.0, low), min(1.0, high)
    first, last = points[0].step, max(points[-1].step, points[0].step + 1)

    def x(step: float) -> float:
        return left + (step - first) / (last - first) * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - low) / (high - low) * (height - top - bottom)

    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(int(width), int(height), label)]
    rungs = ticks(low, high)
    for tick, name in zip(rungs, axis([100 * rung for rung in rungs] if is_share else rungs), strict=True):
        parts.append(rule(left, y(tick), width - right, y(tick), "grid"))
        parts.append(word(left - 6, y(tick) + 3.5, name, "tick end"))
    for tick in _whole(ticks(first, last, 4)):
        anchor = "tick end" if x(tick) > width - 24 else "tick mid"
        parts.append(word(min(x(tick), width - right), height - 7, number(tick), anchor))
    for run in _runs(points):
        if any(p.high > p.low for p in run):
            band = [(x(p.step), y(p.high)) for p in run] + [(x(p.step), y(p.low)) for p in reversed(run)]
            parts.append(Markup('<path class="band" d="{}Z"/>').format(path(band)))
        if len(run) == 1:
            parts.append(dot(x(run[0].step), y(run[0].mean), 1.5))
        else:
            parts.append(Markup('<path class="line" d="{}"/>').format(path([(x(p.step), y(p.mean)) for p in run])))
    parts.append(dot(x(finite[-1].step), y(finite[-1].mean), 2.5))
    return Markup("").join([*parts, Markup("</svg>")])


def whisker_chart(label: str, marks: Sequence[Whisker | None], is_share: bool) -> Markup:
    """A dot with its interval per stage, left to right. Shares stand on a scale from 0 to 100 %."""
    step, height, pad = min(46.0, 210.0 / max(len(marks), 1)), 70.0, 6.0
    found = [(index, mark) for index, mark in enumerate(marks) if mark]
    bounds = [b for _, m in found for b in (m.value, m.low, m.high) if b is not None]
    low, high = (0.0, 1.0) if is_share else padded(bounds)
    width = step * max(len(marks), 2)

    def y(value: float) -> float:
        return height - pad - (value - low) / (high - low) * (height - 2 * pad)

    def x(index: int) -> float:
        return step * (index + 0.5)

    parts = [Markup('<svg class="whisker" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img" aria-label="{2}">')]
    parts[0] = parts[0].format(int(width), int(height), label)
    if is_share:
        parts += [rule(0, y(bound), width, y(bound), "grid") for bound in (0.0, 1.0)]
    if len(found) > 1:
        parts.append(Markup('<path class="thread" d="{}"/>').format(path([(x(i), y(m.value)) for i, m in found])))
    for index, mark in found:
        if mark.low is not None and mark.high is not None:
            parts.append(rule(x(index), y(mark.low), x(index), y(mark.high), "reach"))
        parts.append(dot(x(index), y(mark.value), 2.6, "dot last" if index == len(marks) - 1 else "dot"))
    return Markup("").join([*parts, Markup("</svg>")])


def stacked_bar(label: str, parts: Sequence[Part]) -> Markup:
    """Shares of a whole, side by side, as wide as the place it stands in."""
    whole = sum(part.num for part in parts) or 1.0
    head = '<svg class="stack" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="{}">'
    drawn, x = [Markup(head).format(label)], 0.0
    for part in parts:
        width = 1000 * part.num / whole
        if width:
            drawn.append(
                Markup('<rect class="{}" x="{:.2f}" y="0" width="{:.2f}" height="10"/>').format(part.css, x, width)
            )
        x += width
    return Markup("").join([*drawn, Markup("</svg>")])


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis with some room around all values."""
    low, high = min(values), max(values)
    if high > low:
        return low - 0.04 * (high - low), high + 0.04 * (high - low)
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def _whole(values: Sequence[float]) -> list[float]:
    return [value for value in values if value == int(value)]


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """Stretches of finite points: a line has a gap where the value was NaN."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point.mean):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def rule(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return Markup(f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')


def dot(x: float, y: float, radius: float, css: str = "dot last") -> Markup:
    return Markup(f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')


def word(x: float, y: float, text: str, css: str) -> Markup:
    return Markup(f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')
