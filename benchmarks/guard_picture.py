"""`study.html`: of every run the proxy and true taste, and under the guard gold, against the square root of KL. Drawn
as the report draws them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from common import ROOT
from guard_outcomes import Outcome

from llmkit.preference.watch import Evaluation, fit
from llmkit.report.guard_plots import GaoFit, Track, distance_chart, scaled

STYLES = ROOT / "llmkit" / "report" / "templates"
SCORES = (("proxy", "reward model"), ("gold", "gold, the guard's model"), ("true", "true taste"))


def page(
    rows: Sequence[tuple[Outcome, Mapping[str, Sequence[Evaluation]]]],
    summary: Mapping[str, Any],
    kinds: Sequence[str],
) -> str:
    style = "".join((STYLES / name).read_text() for name in ("palette.css", "style.css"))
    head = f"<!doctype html><meta charset=utf-8><title>The guard over many runs</title><style>{style}</style>"
    parts = [head, "<main style='max-width:1180px;margin:0 auto;padding:24px'><h1>The guard over many runs</h1>"]
    parts.append(f"<pre>{html.escape(_lines(summary))}</pre>")
    parts.append(
        "<p class=note>Gains since the start against &radic;KL: dashed the reward model's score, solid gold, dotted "
        "the true taste, broad Gao's curve fitted to gold. The ring is what was kept, numbers are steps.</p>"
    )
    for outcome, found in rows:
        made = f"{outcome.rankings} prompts ranked, layers: {outcome.layers}, learning rate {outcome.learning_rate:g}"
        parts.append(f"<h3>{outcome.run}: {made}</h3><p class=note>{told(outcome)}</p>")
        parts.append("<div class='curves held'>")
        for kind in kinds:
            if kind in found:
                kept = outcome.restored if kind == "guarded" else None
                parts.append(f"<figure><figcaption>{kind}</figcaption>{_chart(kind, found[kind], kept)}</figure>")
        parts.append("</div>")
    return "\n".join([*parts, "</main>"])


def told(outcome: Outcome) -> str:
    """One run in a sentence."""
    over = "falls" if outcome.over_optimised else "does not fall"
    stop = f"stopped at step {outcome.stopped}, {outcome.late} looks later," if outcome.stopped else "did not stop"
    return (
        f"Without the guard true taste peaks at step {outcome.peak} and {over} (at the end {outcome.last_true:.2f}). "
        f"The guard {stop} and kept step {outcome.restored}: {outcome.restored_true:.2f}, best {outcome.best_true:.2f}."
    )


def _chart(kind: str, looks: Sequence[Evaluation], kept: int | None) -> str:
    distance = {float(look.step): look.kl**0.5 for look in looks}
    tracks = [
        Track(score, name, {float(look.step): float(np.mean(_scores(look, score))) for look in looks})
        for score, name in SCORES
        if score != "gold" or kind == "guarded"
    ]
    found = fit(looks) if kind == "guarded" else None
    curve = GaoFit(found.alpha, found.beta, found.peak) if found else None
    return str(distance_chart(f"{kind}, against the distance", scaled(tracks), distance, curve, kept))


def _scores(look: Evaluation, name: str) -> list[float]:
    values: list[float] = getattr(look, name)
    return values


def _lines(summary: Mapping[str, Any]) -> str:
    return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in summary.items())
