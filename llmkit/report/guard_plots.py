"""Pictures of a guarded training: what its answers gained, against their distance from the start and the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from llmkit.report.numbers import axis, count, number
from llmkit.report.plots import Axis, Frame, Line, Scale, plot, two_sided
from llmkit.report.svg import dot, rule, ticks, word

_FRAME = Frame(420, 270, left=44, right=14, top=26, bottom=42)
_GAIN = "gain since the start"
_CURVE_POINTS = 60
_APART = 30.0
"""Pixels between two numbered points."""
_FAR = 4.0
"""Times the span of the first track from which on another one is drawn on a scale of its own."""


@dataclass(frozen=True)
class Track:
    """One score of the answers against the step. `factor`: by which its gains are drawn smaller or larger."""

    css: str
    name: str
    values: Mapping[float, float] = field(default_factory=dict)
    factor: float = 1.0

    @property
    def steps(self) -> list[float]:
        return sorted(self.values)

    @property
    def gains(self) -> dict[float, float]:
        """Step -> gain since the first evaluation."""
        return {step: self.values[step] - self.values[self.steps[0]] for step in self.steps}

    @property
    def best(self) -> float:
        """The step with the highest value."""
        return max(self.steps, key=lambda step: self.values[step])

    @property
    def key(self) -> str:
        """Its name with its factor."""
        return self.name if self.factor == 1 else f"{self.name}, \u00d7\u202f{self.factor:g}"


@dataclass(frozen=True)
class GaoFit:
    """R(d) = d (alpha - beta ln d), the gain of gold at the distance d = sqrt(KL) (Gao et al. 2022)."""

    alpha: float
    beta: float
    peak: float | None = None

    def at(self, distance: float) -> float:
        return distance * (self.alpha - self.beta * math.log(distance)) if distance > 0 else 0.0


def scaled(tracks: Sequence[Track]) -> list[Track]:
    """Tracks in units of their own are drawn smaller or larger by a power of ten, as long as they are far apart."""
    first = _span(tracks[0]) if tracks else 0.0
    return [replace(track, factor=_factor(first, _span(track))) for track in tracks]


def _span(track: Track) -> float:
    return max((abs(gain) for gain in track.gains.values()), default=0.0)


def _factor(first: float, own: float) -> float:
    if not first or not own or 1 / _FAR <= own / first <= _FAR:
        return 1.0
    return float(10 ** round(math.log10(first / own)))


def distance_chart(
    label: str, tracks: Sequence[Track], distance: Mapping[float, float], fit: GaoFit | None, marked: float | None
) -> Markup:
    """Against the square root of KL, in the order of the steps; `tracks[-1]` bears the numbers of its steps."""
    lines = [_line(track, distance) for track in tracks]
    longest = max(distance.values(), default=0.0) or 1.0
    curve = _curve(fit, longest, tracks[-1].factor) if fit and tracks else None
    marks = tuple(zip(found := ticks(0.0, longest, 4), axis(found), strict=True))
    across = Axis(0.0, 1.04 * longest, marks, "\u221aKL: distance from the start, \u221anats")
    drawn = [*([curve] if curve else []), *lines]
    over = _numbers(tracks[-1], distance, marked) if tracks else None
    return plot(label, drawn, across, replace(two_sided(drawn), name=_GAIN), _FRAME, *([over] if over else []))


def gain_chart(label: str, tracks: Sequence[Track], marks: Sequence[tuple[float, str]]) -> Markup:
    """Against the step, with words at some steps."""
    lines = [
        Line(track.css, tuple((step, gain * track.factor) for step, gain in track.gains.items())) for track in tracks
    ]
    last = max([1.0, *(step for track in tracks for step in track.values)])
    names = tuple((tick, number(tick)) for tick in ticks(0, last, 4) if tick == int(tick))
    up = two_sided(lines)

    def over(x: Scale, y: Scale) -> Iterable[Markup]:
        for step, text in marks:
            if 0 <= step <= last:
                yield rule(x(step), _FRAME.top - 8, x(step), y(up.low), "kept")
                css = "tick end" if x(step) > _FRAME.width / 2 else "tick"
                yield word(x(step) + (-4 if css.endswith("end") else 4), _FRAME.top, text, f"{css} kept-word")

    return plot(label, lines, Axis(0.0, last, names, "step"), replace(up, name=_GAIN), _FRAME, over)


def _line(track: Track, distance: Mapping[float, float]) -> Line:
    points = tuple((distance[step], gain * track.factor) for step, gain in track.gains.items() if step in distance)
    return Line(track.css, points, is_path=True)


def _curve(fit: GaoFit, longest: float, factor: float) -> Line:
    places = [longest * index / _CURVE_POINTS for index in range(_CURVE_POINTS + 1)]
    return Line("fit", tuple((place, factor * fit.at(place)) for place in places), has_dots=False)


def _numbers(
    track: Track, distance: Mapping[float, float], marked: float | None
) -> Callable[[Scale, Scale], Iterable[Markup]]:
    """Steps beside the points of a track, as many as there is room for, and a ring around the marked one."""
    gains = {step: gain * track.factor for step, gain in track.gains.items() if step in distance}
    first = [step for step in (marked, *track.steps[-1:]) if step in gains]

    def over(x: Scale, y: Scale) -> Iterable[Markup]:
        placed: list[tuple[float, float]] = []
        for step in dict.fromkeys([*first, *gains]):
            at = x(distance[step]), y(gains[step])
            if step == marked:
                yield dot(*at, 6.5, "ring")
            if all(math.dist(at, other) >= _APART for other in placed):
                placed.append(at)
                below = at[1] + 17 < _FRAME.height - _FRAME.bottom
                yield word(at[0], at[1] + (17 if below else -9), count(int(step)), "tick mid step-of")

    return over
