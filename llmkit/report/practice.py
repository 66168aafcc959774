"""What practice did: held-out problems while it ran, beside its controls; what attempts at problems came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from llmkit.artifacts.manifest import Manifest
from llmkit.report.beside import colours
from llmkit.report.curves import MEASURE
from llmkit.report.heldout import HeldoutLine, heldout_lines, heldout_sets, is_share, size_of
from llmkit.report.metrics import ACCURACY, budget, is_between
from llmkit.report.numbers import count, interval, percent, value
from llmkit.report.plots import Bounds, Line, budget_chart, step_chart
from llmkit.report.run import RunReport, StageReport

LENGTH = "num_tokens"
_NAMES = {
    ACCURACY: "accuracy, %",
    LENGTH: "answer length, tokens",
    "answered": "answers in the demanded form, %",
    "truncated": "cut off, %",
}
MAIN = (ACCURACY, LENGTH)
Points = dict[float, float]
"""Step -> value."""


@dataclass(frozen=True)
class Picture:
    """One number of a held-out set against the step."""

    metric: str
    name: str
    told: str
    """Its first and last value."""
    chart: Markup


@dataclass(frozen=True)
class HeldoutSet:
    name: str
    size: str
    main: tuple[Picture, ...]
    rest: tuple[Picture, ...]


@dataclass(frozen=True)
class Practised:
    """Of one stage. `keys`: (css, stage) of the lines, where there are controls."""

    sets: tuple[HeldoutSet, ...]
    keys: tuple[tuple[str, str], ...]
    note: str
    lines: tuple[HeldoutLine, ...]
    rest: tuple[HeldoutLine, ...]
    """Of `lines`, what is folded away: the budgets between the smallest and the largest."""
    controls: tuple[str, ...]
    """Those whose numbers stand in `lines`."""


@dataclass(frozen=True)
class Attempts:
    """What several answers to each problem came to: rows of a table, and a picture."""

    ks: tuple[int, ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(css, name, share for each k)"""
    chart: Markup


def practised(report: RunReport, stage: StageReport) -> Practised | None:
    """None for a stage that does not practise, or has measured nothing."""
    if not stage.practises:
        return None
    controls = [each for each in report.chain if is_control_of(report, each, stage)]
    css = colours([stage.name, *(each.name for each in controls)], "", stage.name)
    sets = tuple(_set(name, stage, controls, css) for name in names_of(stage))
    beside = {each.name: each.manifest for each in controls if each.manifest}
    lines = heldout_lines(stage.manifest, list(beside.values())) if stage.manifest else []
    if not sets and not lines:
        return None
    folded = [line for line in lines if is_between(line.key, [each.key for each in lines if each.name == line.name])]
    drawn = {name for each in controls for name in names_of(each)} & {each.name for each in sets}
    return Practised(
        sets=sets,
        keys=tuple((css[each.name], each.name) for each in (stage, *controls)) if drawn else (),
        note=_note(stage),
        lines=tuple(line for line in lines if line not in folded),
        rest=tuple(folded),
        controls=tuple(beside),
    )


def is_control_of(report: RunReport, other: StageReport, stage: StageReport) -> bool:
    """It practises, too, from the same model."""
    is_control = other.name in report.controls and stage.name not in report.controls
    return is_control and other.practises and other.parent == stage.parent and other.status != "planned"


def measured(stage: StageReport) -> dict[str, Points]:
    """`<set>/<metric>` -> its values; from the lines that were logged while the stage has no manifest."""
    if stage.manifest and stage.manifest.curves:
        return {curve.name: dict(curve.points) for curve in stage.manifest.curves}
    logged = [curve for curve in stage.curves if curve.phase == MEASURE]
    return {curve.key: dict(zip(map(float, curve.steps), curve.values, strict=True)) for curve in logged}


def names_of(stage: StageReport) -> list[str]:
    """Sets with a picture, in the order of the recipe."""
    places = [key.rpartition("/") for key in measured(stage)]
    found = dict.fromkeys(name for name, _, metric in places if metric in _NAMES)
    told = stage.settings.get("heldout")
    first = [name for name in told if name in found] if isinstance(told, dict) else []
    return list(dict.fromkeys([*first, *found]))


def _set(name: str, stage: StageReport, controls: Sequence[StageReport], css: Mapping[str, str]) -> HeldoutSet:
    pictures = [
        _picture(name, metric, stage, controls, css) for metric in _NAMES if measured(stage).get(f"{name}/{metric}")
    ]
    own = heldout_sets(stage.manifest).get(name, {}) if stage.manifest else {}
    return HeldoutSet(
        name=name,
        size=size_of(own),
        main=tuple(picture for picture in pictures if picture.metric in MAIN),
        rest=tuple(picture for picture in pictures if picture.metric not in MAIN),
    )


def _picture(
    name: str, metric: str, stage: StageReport, controls: Sequence[StageReport], css: Mapping[str, str]
) -> Picture:
    key, shares = f"{name}/{metric}", is_share(metric)
    points = measured(stage)[key]
    drawn = [each for each in (*reversed(controls), stage) if key in measured(each)]
    lines = [_line(each, name, metric, css[each.name]) for each in drawn]
    told = f"{value(points[min(points)], shares)} \u2192 {value(points[max(points)], shares)}"
    chart = step_chart(f"{_NAMES[metric]} on {name} against step: {told}", lines, shares)
    return Picture(metric, _NAMES[metric], told, chart)


def _line(stage: StageReport, name: str, metric: str, css: str) -> Line:
    found = measured(stage)
    points = found[f"{name}/{metric}"]
    low, high = (found.get(f"{name}/{metric}_{end}", {}) for end in ("low", "high"))
    bounds: dict[float, Bounds] = {step: (step, low[step], high[step]) for step in low if step in high}
    pair = heldout_sets(stage.manifest).get(name, {}).get(metric) if stage.manifest else None
    for step, measure in ((min(points), pair.before), (max(points), pair.after)) if pair else ():
        if measure and measure.low is not None and measure.high is not None:
            bounds[step] = (step, measure.low, measure.high)
    return Line(css, tuple(sorted(points.items())), tuple(bounds.values()))


def _note(stage: StageReport) -> str:
    """What the pictures show; where some points are of fewer problems, that too."""
    told = "Greedy answers to problems that are set aside from training."
    spec = stage.settings.get("measure")
    most = spec.get("num_problems") if isinstance(spec, dict) else None
    if stage.manifest is None:
        return f"{told} While it trains, at most {count(most)} problems of a set are asked." if most else told
    told += " Bars are 95\u202f% intervals."
    if most and any(num > most for num in _sizes(stage)):
        told += f" The first and the last point are of all problems, those between of the first {count(most)}."
    return told


def _sizes(stage: StageReport) -> list[float]:
    """Problems of each set."""
    sets = heldout_sets(stage.manifest).values() if stage.manifest else ()
    return [pair.after.value for own in sets if (pair := own.get("num_problems")) and pair.after]


def attempts(made: Manifest) -> Attempts | None:
    """Of rejection sampling; None where it has no pass@k of two budgets."""
    shares: dict[str, dict[int, float]] = {"pass": {}, "maj": {}}
    for metric, share in made.metrics.items():
        if found := budget(metric):
            shares[found[0]][found[1]] = share
    ks = tuple(sorted(shares["pass"]))
    if len(ks) < 2:
        return None
    css = {"pass": "after", "maj": "other-2"}
    kinds = [kind for kind in css if shares[kind]]
    cells = {
        kind: tuple(_share(made.metrics, f"{kind}@{k}") if k in shares[kind] else "" for k in ks) for kind in kinds
    }
    lines = [Line(css[kind], tuple((float(k), share) for k, share in sorted(shares[kind].items()))) for kind in kinds]
    told = ", ".join(f"{kind}@{k} {percent(share)}" for kind in kinds for k, share in sorted(shares[kind].items()))
    return Attempts(ks, tuple((css[kind], f"{kind}@k", cells[kind]) for kind in kinds), budget_chart(told, lines))


def _share(metrics: Mapping[str, float], name: str) -> str:
    """With its interval, where the stage left one."""
    between = interval(metrics.get(f"{name}_low"), metrics.get(f"{name}_high"), is_share=True)
    return f"{percent(metrics[name])} ({between})" if between else percent(metrics[name])
