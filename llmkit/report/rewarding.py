"""How good a reward model is: held-out rankings, what could be reached, what length alone would reach, how much more
rankings would bring."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from llmkit.artifacts.manifest import EvalRow, Manifest
from llmkit.report.beside import Column, MetricLine, metric_line
from llmkit.report.numbers import count, interval, percent, short_count
from llmkit.report.plots import Axis, Frame, Line, Scale, plot, two_sided
from llmkit.report.readings_preference import is_member, ranking_words
from llmkit.report.run import RunReport, StageReport
from llmkit.report.svg import Part, stacked_bar, word

HELDOUT = "heldout"
_CURVE = "rankings"
_NUM = ("num_prompts", "num_pairs")
_MAIN = (
    "accuracy",
    "ceiling",
    "top1",
    "tau",
    "longer_wins",
    "longer_scores",
    "length_correlation",
    "calibration_error",
)
_KNOWN_BY = {
    "right_pairs": "so many of the ranked pairs are in the labeller's true order",
    "ceiling_between_raters": "reckoned from how far raters agree with each other",
    "ceiling_with_oneself": "reckoned from how far raters agree with themselves",
}
"""Metrics of a `rank` stage, the surest first, as the `reward` stage takes them."""
_GAP = re.compile(r"accuracy_gap_(\d+)")
_FRAME = Frame(420, 205, left=42, top=10, bottom=38)


@dataclass(frozen=True)
class Gap:
    """Pairs so many places apart."""

    places: str
    share: str
    bounds: str
    bar: Markup


@dataclass(frozen=True)
class Rewarding:
    """Of one stage; a column is a set of rankings that it was measured on."""

    columns: tuple[Column, ...]
    main: tuple[MetricLine, ...]
    rest: tuple[MetricLine, ...]
    told: tuple[str, ...]
    gaps: tuple[tuple[str, tuple[Gap, ...]], ...]
    """(set, its pairs by the places between them)"""
    points: tuple[tuple[str, str], ...]
    """(prompts ranked, pair accuracy)"""
    chart: Markup | None


def rewarding(report: RunReport, stage: StageReport) -> Rewarding | None:
    """None for a stage that makes no reward model, or has measured nothing."""
    made = stage.manifest
    columns = _columns(made) if made and stage.kind == "reward" else []
    if not made or not columns:
        return None
    metrics = list(dict.fromkeys(metric for column in columns for metric in column.rows if not _GAP.fullmatch(metric)))
    rest = [metric for metric in metrics if is_member(metric)]
    main = [*(metric for metric in _MAIN if metric in metrics)]
    main += [metric for metric in metrics if metric not in (*main, *rest)]
    found = ceiling(report, stage)
    points = next((each.points for each in made.curves if each.name == _CURVE), [])
    points = [point for point in points if all(map(math.isfinite, point)) and point[0] > 0]
    return Rewarding(
        columns=tuple(columns),
        main=tuple(_line(metric, columns) for metric in main),
        rest=tuple(_line(metric, columns) for metric in rest),
        told=tuple(_told(columns[0], found, points)),
        gaps=tuple((column.name, gaps) for column in columns if (gaps := _gaps(column))),
        points=tuple((count(int(x)), percent(y)) for x, y in points),
        chart=_chart(points, found[0] if found else None) if len(points) > 1 else None,
    )


def _columns(made: Manifest) -> list[Column]:
    """What is held out of the stage's own rankings first."""
    names = [key.rpartition("/")[0] for key in made.metrics if key.endswith("/accuracy")]
    names.sort(key=lambda name: name != HELDOUT)
    return [Column("held out" if name == HELDOUT else name, "", False, _rows(made, name)) for name in names]


def _rows(made: Manifest, name: str) -> dict[str, EvalRow]:
    own = {key[len(name) + 1 :]: value for key, value in made.metrics.items() if key.startswith(f"{name}/")}
    num = int(own.get("num_prompts", 0))
    return {
        key: EvalRow(
            stage=made.stage,
            task=name,
            metric=key,
            value=value,
            low=own.get(f"{key}_low"),
            high=own.get(f"{key}_high"),
            num_samples=num,
        )
        for key, value in own.items()
        if "/" not in key and not key.endswith(("_low", "_high")) and key not in _NUM
    }


def _line(metric: str, columns: Sequence[Column]) -> MetricLine:
    name, says = ranking_words(metric)
    return metric_line(metric, columns, says, name)


def ceiling(report: RunReport, stage: StageReport) -> tuple[float, str] | None:
    """Share of pairs that a perfect model would put in the raters' order, and how that is known."""
    most = stage.manifest.metrics.get(f"{HELDOUT}/ceiling") if stage.manifest else None
    if most is None:
        return None
    ranks = [each for each in report.chain if each.name in stage.rows_from and each.kind == "rank" and each.manifest]
    metrics = [each.manifest.metrics for each in ranks if each.manifest]
    ways = dict.fromkeys(next((words for name, words in _KNOWN_BY.items() if name in own), "") for own in metrics)
    return most, "; ".join(way for way in ways if way)


def _told(column: Column, found: tuple[float, str] | None, points: Sequence[tuple[float, float]]) -> list[str]:
    """What it comes to, in words; `column`: the set that stands for the stage."""
    rows = column.rows
    accuracy = rows["accuracy"]
    bounds = _bounds(accuracy)
    told = [
        f"Puts {percent(accuracy.value)}{f' ({bounds})' if bounds else ''} of the pairs of "
        f"{count(accuracy.num_samples)} held-out prompts in the raters' order."
    ]
    if found:
        told.append(f"About {percent(found[0])} can be reached: {found[1]}.")
    if "longer_wins" in rows and "longer_scores" in rows:
        told.append(_on_length(rows))
    if "degenerate_last" in rows:
        told.append(f"{percent(rows['degenerate_last'].value)} of the degenerate answers score below all others.")
    if len(points) > 1:
        ends = [f"{percent(y)} with {count(int(x))}" for x, y in (points[0], points[-1])]
        told.append(f"Pair accuracy by prompts ranked: {ends[0]}, {ends[1]}.")
    return told


def _on_length(rows: Mapping[str, EvalRow]) -> str:
    """Whether it likes length more than the raters do: clear where the intervals do not overlap."""
    wins, scores = rows["longer_wins"], rows["longer_scores"]
    told = f"Taking the longer answer alone would get {percent(wins.value)} right"
    how = f"it scores the longer one higher in {percent(scores.value)}"
    if scores.low is not None and wins.high is not None and scores.low > wins.high:
        return f"{told}; {how}: it likes length more than the raters do."
    return f"{told}; {how}."


def _gaps(column: Column) -> tuple[Gap, ...]:
    found = [(int(match[1]), row) for key, row in column.rows.items() if (match := _GAP.fullmatch(key))]
    return tuple(_gap(places, row) for places, row in sorted(found, key=lambda item: item[0]))


def _gap(places: int, row: EvalRow) -> Gap:
    told = f"{places} {'place' if places == 1 else 'places'} apart"
    bar = stacked_bar(f"{told}: {percent(row.value)} right", [Part("right", row.value), Part("none", 1 - row.value)])
    return Gap(told, percent(row.value), _bounds(row), bar)


def _bounds(row: EvalRow) -> str:
    return interval(row.low, row.high, True)


def _chart(points: Sequence[tuple[float, float]], most: float | None) -> Markup:
    """Against the prompts ranked, which double from mark to mark; `most`: what can be reached, as a level line."""
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    high = max(high, 2 * low)
    marks = tuple((x, short_count(x)) for x, _ in points)
    lines = [Line("after", tuple(points))]
    if most is not None:
        lines.insert(0, Line("other-2", ((low, most), (high, most)), has_dots=False))
    told = ", ".join(f"{count(int(x))}: {percent(y)}" for x, y in points)
    across = Axis(low, high, marks, "prompts ranked", is_log=True)

    def over(x: Scale, y: Scale) -> list[Markup]:
        return [] if most is None else [word(x(high), y(most) + 13, "can be reached", "tick end")]

    return plot(f"Pair accuracy against prompts ranked: {told}", lines, across, two_sided(lines, True), _FRAME, over)
