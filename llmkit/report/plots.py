"""Pictures with several lines: shares against shares, held-out figures against steps, accuracy against budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from llmkit.report.numbers import axis, number, short_count
from llmkit.report.svg import MAX_POINTS, dot, padded, path, rule, ticks, word

Bounds = tuple[float, float, float]
"""x, and the interval of y there."""


@dataclass(frozen=True)
class Line:
    """`css` names its colour and dashes."""

    css: str
    points: tuple[tuple[float, float], ...]
    bounds: tuple[Bounds, ...] = ()
    is_path: bool = False
    """Drawn in the order of its points, not of x."""
    has_dots: bool = True


Scale = Callable[[float], float]
"""From a value to its place in the picture."""


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with words at some places."""

    low: float
    high: float
    marks: tuple[tuple[float, str], ...]
    name: str = ""
    is_log: bool = False

    def share(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Frame:
    """A picture's size, the room around its lines, and whether every point has a dot."""

    width: float
    height: float
    left: float = 36.0
    right: float = 12.0
    top: float = 24.0
    bottom: float = 42.0
    has_dots: bool = True


_WIDE = Frame(420, 250, has_dots=False)
_SMALL = Frame(420, 205, left=42, top=10, bottom=38)


def share_chart(label: str, lines: Sequence[Line], x_name: str, y_name: str) -> Markup:
    """One share against another: x from 0 to 1, y from 0 to its largest value."""
    across = Axis(0.0, 1.0, tuple((tick, f"{100 * tick:.0f}") for tick in (0, 0.25, 0.5, 0.75, 1)), x_name)
    return plot(label, lines, across, replace(_from_zero(lines, True), name=y_name), _WIDE)


def step_chart(label: str, lines: Sequence[Line], is_share: bool) -> Markup:
    """A figure that was measured at some steps, from 0 on; y begins at 0 too."""
    return plot(label, lines, _counted(lines, "step"), _from_zero(lines, is_share), _SMALL)


def budget_chart(label: str, lines: Sequence[Line]) -> Markup:
    """A share against the number of answers, which doubles from mark to mark."""
    ks = sorted({x for line in lines for x, _ in line.points})
    low, high = (ks[0], max(ks[-1], 2 * ks[0])) if ks else (1.0, 2.0)
    powers = [2.0**power for power in range(round(math.log2(high)) + 1) if low <= 2.0**power <= high]
    marks = tuple((k, short_count(k)) for k in powers)
    across = Axis(low, high, marks, "k: sampled answers", is_log=True)
    return plot(label, lines, across, _from_zero(lines, True), _SMALL)


def thinking_chart(label: str, lines: Sequence[Line]) -> Markup:
    """A share against the tokens that a model may think, from none on."""
    return plot(label, lines, _counted(lines, "tokens of reasoning, at most"), _from_zero(lines, True), _SMALL)


def _counted(lines: Sequence[Line], name: str) -> Axis:
    """From 0 to the last whole number."""
    last = max([1.0, *(x for line in lines for x, _ in line.points)])
    return Axis(0.0, last, tuple((tick, number(tick)) for tick in ticks(0, last, 4) if tick == int(tick)), name)


def _from_zero(lines: Sequence[Line], is_share: bool) -> Axis:
    """Up to a round number above all values and intervals; a share, in per cent, at most to 100."""
    tops = [y for line in lines for _, y in line.points] + [high for line in lines for _, _, high in line.bounds]
    highest = max([top for top in tops if math.isfinite(top)], default=0.0)
    highest = max(highest, 0.01 if is_share else 1e-9)
    rungs = ticks(0, highest)
    if rungs[-1] < highest and not math.isclose(rungs[-1], highest):
        step = rungs[1] - rungs[0]
        more = round(rungs[-1] + step, 12)
        rungs = [*rungs, more] if not is_share or more <= 1 else rungs
    names = axis([100 * rung for rung in rungs] if is_share else rungs)
    return Axis(0.0, max(highest, rungs[-1]), tuple(zip(rungs, names, strict=True)))


def two_sided(lines: Sequence[Line], is_share: bool = False, num: int = 5) -> Axis:
    """Around all values and intervals, wherever 0 lies."""
    ends = [y for line in lines for _, y in line.points]
    ends += [bound for line in lines for _, *pair in line.bounds for bound in pair]
    low, high = padded([y for y in ends if math.isfinite(y)] or [0.0])
    rungs = ticks(low, high, num)
    names = axis([100 * rung for rung in rungs] if is_share else rungs)
    return Axis(low, high, tuple(zip(rungs, names, strict=True)))


def nothing(x: Scale, y: Scale) -> Iterable[Markup]:
    return ()


def plot(
    label: str,
    lines: Sequence[Line],
    across: Axis,
    up: Axis,
    frame: Frame,
    over: Callable[[Scale, Scale], Iterable[Markup]] = nothing,
) -> Markup:
    """`over`: what is drawn on top, from the two scales."""
    finite = [replace(line, points=_every(line), bounds=_finite(line.bounds)) for line in lines]

    def x(value: float) -> float:
        return frame.left + across.share(value) * (frame.width - frame.left - frame.right)

    def y(value: float) -> float:
        return frame.height - frame.bottom - up.share(value) * (frame.height - frame.top - frame.bottom)

    head = '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">'
    parts = [Markup(head).format(int(frame.width), int(frame.height), label)]
    for value, name in up.marks:
        parts.append(rule(frame.left, y(value), frame.width - frame.right, y(value), "grid"))
        parts.append(word(frame.left - 6, y(value) + 3.5, name, "tick end"))
    for value, name in across.marks:
        anchor = "tick end" if x(value) > frame.width - 20 else "tick mid"
        parts.append(word(min(x(value), frame.width - frame.right + 6), frame.height - frame.bottom + 16, name, anchor))
    if up.name:
        parts.append(word(frame.left, 12, up.name, "tick"))
    parts.append(word((frame.left + frame.width - frame.right) / 2, frame.height - 8, across.name, "tick mid"))
    for line in finite:
        for at, low, high in line.bounds:
            parts.append(rule(x(at), y(low), x(at), y(high), f"bound {line.css}"))
        drawn = [(x(at), y(value)) for at, value in line.points]
        if len(drawn) > 1:
            parts.append(Markup('<path class="series {}" d="{}"/>').format(line.css, path(drawn)))
        if line.has_dots:
            for spot in drawn if frame.has_dots else drawn[-1:]:
                parts.append(dot(*spot, 2.6 if frame.has_dots else 3.2, f"end-of {line.css}"))
    return Markup("").join([*parts, *over(x, y), Markup("</svg>")])


def _every(line: Line) -> tuple[tuple[float, float], ...]:
    """In the order of x, and thinned to what can be seen; the last always stays."""
    kept = [point for point in line.points if all(math.isfinite(value) for value in point)]
    kept = kept if line.is_path else sorted(kept)
    step = max(1, math.ceil(len(kept) / MAX_POINTS))
    return (*kept[:-1:step], *kept[-1:])


def _finite(bounds: Sequence[Bounds]) -> tuple[Bounds, ...]:
    return tuple(each for each in bounds if all(math.isfinite(value) for value in each))
