"""What the guard of `rlhf` saw and did: the reward model's score and gold, as the model moves away from its start."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from llmkit.report.guard_plots import GaoFit, Track, distance_chart, gain_chart, scaled
from llmkit.report.numbers import count, difference, listed, number, number_of, percent, value
from llmkit.report.plots import Line, step_chart
from llmkit.report.practice import Picture, Points, is_control_of, measured
from llmkit.report.run import RunReport, StageReport
from llmkit.report.words_preference import function, reward_models

_PREFIX = "guard/"
_SCORES = ("reward_model", "gold", "true")
_BESIDE = {
    "kl": ("KL from the start, nats per answer", False),
    "degenerate": ("degenerate answers, %", True),
    "distinct_2": ("pairs of words that are different, %", True),
    "compression": ("compression: bytes to one of zlib's", False),
    "tokens": ("answer length, tokens", False),
    "unlikely": ("such as the start hardly ever gave, %", True),
    "too_likely": ("likelier for the start than nearly all of its own, %", True),
    "disagreement": ("disagreement of the members", False),
}
_STOPPED = re.compile(r"step (\d+): stopped: (.*)", re.DOTALL)
_TOLD = ("the guard is off", "no step was better than the start")


@dataclass(frozen=True)
class Watch:
    """One training under a guard, or without one. `css`: how loud its words are."""

    name: str
    css: str
    title: str
    told: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    """(css, words) of the lines of its pictures."""
    pictures: tuple[tuple[str, str, Markup], ...]
    """(title, first and last value, picture)"""
    warnings: tuple[str, ...]
    """Of the stage's, what `told` says already."""


@dataclass(frozen=True)
class Guarded:
    """`rows`: every evaluation, in words; `controls`: (css, stage) of the small pictures' lines."""

    own: Watch
    twins: tuple[Watch, ...]
    small: tuple[Picture, ...]
    controls: tuple[tuple[str, str], ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def guarded(report: RunReport, stage: StageReport) -> Guarded | None:
    """None for a stage that trains against no reward model, or was not looked at yet."""
    if stage.kind != "rlhf" or not _points(stage, "reward_model"):
        return None
    twins = [each for each in report.chain if each.kind == "rlhf" and is_control_of(report, each, stage)]
    twins = [each for each in twins if _points(each, "reward_model")]
    kept = _kept(stage)
    at = (kept, f"step {count(int(kept))} kept by {stage.name}") if kept is not None else None
    css = {stage.name: "after"} | {each.name: f"other-{place % 3}" for place, each in enumerate(twins)}
    head, rows = _table(stage)
    return Guarded(
        own=_watch(stage, None),
        twins=tuple(_watch(each, at) for each in twins),
        small=tuple(picture for metric in _BESIDE if (picture := _small(metric, stage, twins, css))),
        controls=tuple((css[each.name], each.name) for each in (stage, *twins)) if twins else (),
        head=head,
        rows=rows,
    )


def _points(stage: StageReport, metric: str) -> Points:
    """Step -> value, where it is a number."""
    found = measured(stage).get(f"{_PREFIX}{metric}", {})
    return {step: y for step, y in sorted(found.items()) if math.isfinite(y)}


def is_off(stage: StageReport) -> bool:
    return stage.settings.get("guard") in ("off", False)


def _kept(stage: StageReport) -> float | None:
    """The step whose weights the stage left, where a guard chose it."""
    return stage.manifest.metrics.get("guard_best_step") if stage.manifest else None


def _watch(stage: StageReport, twin: tuple[float, str] | None) -> Watch:
    """`twin`: what to mark of the guarded stage, in the pictures of a control."""
    tracks = _tracks(stage)
    distance = {step: max(kl, 0.0) ** 0.5 for step, kl in _points(stage, "kl").items()}
    fit, kept = _fit(stage), _kept(stage)
    marks = [twin] if twin else [(kept, f"step {count(int(kept))} kept")] if kept is not None else []
    told = ", ".join(f"{track.name} {_ends(track)}" for track in tracks)
    judged = [track for track in tracks if track.css == "gold"]
    order = [*(track for track in tracks if track not in judged), *judged]  # gold lies on top, and bears the numbers
    pictures = [("against the step", told, gain_chart(f"Gain against the step, {stage.name}: {told}", order, marks))]
    if len(distance) > 1:
        chart = distance_chart(f"Gain against the distance, {stage.name}: {told}", order, distance, fit, kept)
        pictures.insert(0, ("against the distance from the start", told, chart))
    css, title, words = _verdict(stage, {track.css: track for track in tracks})
    keys = [(track.css, track.key) for track in tracks] + ([("fit", "Gao's curve, fitted to gold")] if fit else [])
    warnings = tuple(text for text in stage.warnings if _STOPPED.match(text) or text.startswith(_TOLD))
    return Watch(stage.name, css, title, (*words, *_fitted(fit, distance)), tuple(keys), tuple(pictures), warnings)


def _tracks(stage: StageReport) -> list[Track]:
    """The reward model's score, gold and the true taste, as far as they are measured."""
    names = {
        "reward_model": f"reward model {listed(reward_models(stage.settings))}".strip(),
        "gold": f"gold, by {_gold(stage.settings.get('guard'))}",
        "true": f"true score, by {function(stage.settings.get('measured_by'))}",
    }
    css = {"reward_model": "proxy", "gold": "gold", "true": "true"}
    found = [Track(css[key], names[key], points) for key in _SCORES if (points := _points(stage, key))]
    return scaled(found)


def _gold(guard: Any) -> str:
    if not isinstance(guard, Mapping):
        return str(guard or "nobody")
    judge = guard.get("judge")
    if isinstance(judge, Mapping):
        return f"{judge.get('name_or_path') or 'a judge'}, share better than the start's"
    return str(guard.get("gold") or function(guard.get("labeller")))


def _fit(stage: StageReport) -> GaoFit | None:
    """Of gold: without a guard nothing measures gold, and what is fitted is not that."""
    metrics = stage.manifest.metrics if stage.manifest else {}
    if "gao_alpha" not in metrics or "gao_beta" not in metrics or not _points(stage, "gold"):
        return None
    return GaoFit(metrics["gao_alpha"], metrics["gao_beta"], metrics.get("gao_peak"))


def _fitted(fit: GaoFit | None, distance: Mapping[float, float]) -> list[str]:
    """Where the curve says that gold is highest."""
    if fit is None or not distance:
        return []
    reached, curve = max(distance.values()), "Gao's curve d (\u03b1 \u2212 \u03b2 ln d), d = \u221aKL, fitted to gold,"
    if fit.peak is None:
        return [f"{curve} never falls."]
    where = "beyond" if fit.peak > reached else "within"
    return [f"{curve} is highest at d = {number(fit.peak)}, {where} what was reached ({number(reached)})."]


def _verdict(stage: StageReport, tracks: Mapping[str, Track]) -> tuple[str, str, list[str]]:
    """(css, title, sentences): what the guard did, and what became of the scores."""
    proxy = tracks["proxy"]
    last = proxy.steps[-1]
    if is_off(stage):
        title = f"The guard was off: nothing watched whether the answers got worse; last step {number(last)}"
        return "bad", title, [_moves(each) for each in tracks.values()]
    kept = _kept(stage)
    if kept is None:
        num = len(proxy.values)
        return "", f"{count(num)} evaluation{'s' if num > 1 else ''} so far, the last at step {number(last)}", []
    found = next((match for text in stage.warnings if (match := _STOPPED.match(text))), None)
    told = [f"{found[2][:1].upper()}{found[2][1:].rstrip('.')}."] if found else []
    stopped = found is not None or bool(stage.manifest and stage.manifest.metrics.get("guard_stopped"))
    told.append(_what_was_kept(kept, tracks.get("gold")))
    told += [_moves(each) for each in (proxy, *([tracks["gold"]] if "gold" in tracks else []))]
    if "true" in tracks:
        told.append(_against_truth(kept, tracks["true"]))
    told += _what_it_cost(stage)
    at = number(float(found[1])) if found else number(last)
    if stopped:
        return "warn", f"Stopped at step {at}; step {number(kept)} was kept", told
    return "", f"Went to its end, step {number(last)}, without an alarm; step {number(kept)} was kept", told


def _what_was_kept(kept: float, gold: Track | None) -> str:
    if kept == 0:
        return "No step was better than the start: the stage's model is its input."
    gain = gold.gains.get(kept) if gold else None
    above = f" Its gold is {difference(gain, False)} since the start." if gain is not None else ""
    return f"No look behind step {number(kept)} had better gold by more than its error, within the limits.{above}"


def _what_it_cost(stage: StageReport) -> list[str]:
    metrics = stage.manifest.metrics if stage.manifest else {}
    if "guard_share" not in metrics:
        return []
    looks = number_of(metrics["guard_evaluations"], "evaluation")
    return [f"{looks} took {percent(metrics['guard_share'])} of the training's time."]


def _moves(track: Track) -> str:
    """From where to where, and the best between."""
    best, last = track.best, track.steps[-1]
    between = "" if best == last else f", highest at step {number(best)} with {number(track.values[best])}"
    name = f"{track.name[:1].upper()}{track.name[1:]}"
    return f"{name}: {_ends(track)} at step {number(last)}{between}."


def _against_truth(kept: float, true: Track) -> str:
    """How much of what could be had is kept, by a measure that decides nothing."""
    gains, best = true.gains, true.best
    name = f"{true.name[:1].upper()}{true.name[1:]}, which decides nothing,"
    where = f"{name} was highest at step {number(best)} ({difference(gains[best], False)} since the start)"
    if kept not in gains or gains[best] <= 0:
        return f"{where}."
    return f"{where}; what was kept has {difference(gains[kept], False)}, {percent(gains[kept] / gains[best])} of that."


def _ends(track: Track) -> str:
    return " \u2192 ".join(number(track.values[step]) for step in (track.steps[0], track.steps[-1]))


def _small(metric: str, stage: StageReport, twins: Sequence[StageReport], css: Mapping[str, str]) -> Picture | None:
    """One of the numbers beside; None where it was not measured, or where a single member cannot disagree."""
    points, (name, shares) = _points(stage, metric), _BESIDE[metric]
    if not points or (metric == "disagreement" and not any(points.values())):
        return None
    drawn = [each for each in (*reversed(twins), stage) if _points(each, metric)]
    lines = [Line(css[each.name], tuple(_points(each, metric).items())) for each in drawn]
    told = f"{value(points[min(points)], shares)} \u2192 {value(points[max(points)], shares)}"
    return Picture(metric, name, told, step_chart(f"{name} against step: {told}", lines, shares))


def _table(stage: StageReport) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Every evaluation; columns are what was measured."""
    shares = {metric: is_share for metric, (_, is_share) in _BESIDE.items()}
    names = {"reward_model": "reward model", "distinct_2": "distinct pairs", "kl": "KL"}
    order = ["kl", *_SCORES, *(metric for metric in _BESIDE if metric != "kl")]
    found = {metric: points for metric in order if (points := _points(stage, metric))}
    steps = sorted({step for points in found.values() for step in points})
    cells = {
        metric: {step: value(y, shares.get(metric, False)) for step, y in points.items()}
        for metric, points in found.items()
    }
    head = ("step", *(names.get(metric, metric) for metric in found))
    return head, tuple((number(step), *(each.get(step, "") for each in cells.values())) for step in steps)
