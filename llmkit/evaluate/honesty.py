"""Honesty evaluations: from answers with their verdicts to rows of a manifest with intervals and differences.

Shares have Wilson intervals; everything else is bootstrapped over questions (percentile interval), with the verdict
before and after drawn together. Differences are taken over the questions that both evaluations could decide.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmkit.artifacts.manifest import EvalRow
from llmkit.evaluate.answered import Judged
from llmkit.intervals import paired_interval, wilson
from llmkit.knowledge.honesty import Outcome, Share, Table, refusal_diversity, scores, shares
from llmkit.knowledge.records import Verdict
from llmkit.recipe.knowledge import HonestySpec

NUM_RESAMPLES, FEWEST_RESAMPLES = 1000, 200
MAX_DRAWS = 20_000_000
"""Questions drawn in all resamples together: above 20,000 questions there are fewer resamples, from 100,000 on the
fewest. (200,000 questions: a minute and not five.)"""
_MIN_DEFINED = 0.5
"""Share of the resamples in which a metric must be defined to have an interval."""


@dataclass(frozen=True)
class Earlier:
    """The same questions, as another model answered them."""

    stage: str
    answered: list[Judged]


def honesty_rows(
    answered: Sequence[Judged],
    spec: HonestySpec,
    *,
    task: str,
    stage: str,
    seed: int,
    before: Earlier | None = None,
    compared: Earlier | None = None,
) -> list[EvalRow]:
    """One row per metric; a metric that is not defined, such as the precision of a model that refused all, has none.

    Args:
        stage: whose model was measured.
        before: for the metrics that look at what became of each question.
        compared: for differences. Both must hold the same questions as `answered`.
    """
    table = table_of(answered, spec, before)
    earlier = table_of(_in_order(answered, compared), spec, known_by=before) if compared else None
    shares_before = shares(earlier) if earlier is not None else {}
    scores_before = scores(earlier) if earlier is not None else {}
    resampled, differences = _resampled(table, earlier, seed)
    rows = []
    for name, share in shares(table).items():
        num_hits, num = share.counts
        if num:
            row = _row(stage, task, name, num_hits / num, num, wilson(num_hits, num))
            delta = _share_delta(share, shares_before.get(name), differences[name], seed)
            rows.append(_with_delta(row, delta, compared))
    for name, value in scores(table).items():
        if math.isfinite(value):
            row = _row(stage, task, name, value, int(table.counted.sum()), _interval(resampled[name]))
            delta = _delta(value, scores_before.get(name, math.nan), differences[name])
            rows.append(_with_delta(row, delta, compared))
    refusals = [a.refusal for a in answered if a.verdict == "refused"]
    if len(refusals) > 1:
        rows.append(_row(stage, task, "refusal_diversity", refusal_diversity(refusals), len(refusals), None))
    return rows


def all_refused(answered: Sequence[Judged]) -> list[Judged]:
    """A control that needs no model: every question refused."""
    return [replace(a, verdict="refused", confidence=None, refusal="") for a in answered]


def table_of(
    answered: Sequence[Judged], spec: HonestySpec, before: Earlier | None = None, known_by: Earlier | None = None
) -> Table:
    """
    Args:
        known_by: whose right answers say what is known, where no group does. Default: `before`.
    """
    verdicts, said = _verdicts(before), _verdicts(known_by or before)
    outcomes = [
        Outcome(
            a.verdict, a.confidence, a.group, a.label, verdicts.get(a.id), a.has_answers, _was_right(said.get(a.id))
        )
        for a in answered
    ]
    return Table(outcomes, spec.known_groups, spec.unknown_groups)


def _verdicts(earlier: Earlier | None) -> dict[str, Verdict]:
    return {a.id: a.verdict for a in earlier.answered} if earlier else {}


def _was_right(verdict: Verdict | None) -> bool | None:
    """None: the answer was not decided."""
    return None if verdict in (None, "undecided") else verdict == "correct"


def _in_order(answered: Sequence[Judged], earlier: Earlier) -> list[Judged]:
    by_id = {a.id: a for a in earlier.answered}
    return [by_id[a.id] for a in answered]


def _row(stage: str, task: str, name: str, value: float, num: int, interval: tuple[float, float] | None) -> EvalRow:
    low, high = interval or (None, None)
    return EvalRow(stage=stage, task=task, metric=name, value=value, low=low, high=high, num_samples=num)


def _resampled(table: Table, earlier: Table | None, seed: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Of every metric that is bootstrapped: its values in resamples of the questions, and the differences to `earlier`
    in the same resamples."""
    values: dict[str, list[float]] = defaultdict(list)
    differences: dict[str, list[float]] = defaultdict(list)
    ratios, ratios_before = _ratios(table), _ratios(earlier) if earlier is not None else {}
    rng = np.random.default_rng(seed)
    for _ in range(num_resamples(len(table))):
        index_N = rng.integers(len(table), size=len(table))
        now = _numbers(table, ratios, index_N)
        then = _numbers(earlier, ratios_before, index_N) if earlier is not None else {}
        for name, value in now.items():
            values[name].append(value)
            differences[name].append(value - then.get(name, math.nan))
    return values, differences


def num_resamples(num_questions: int) -> int:
    """How often so many questions are resampled; one question says nothing of spread."""
    if num_questions < 2:
        return 0
    return min(NUM_RESAMPLES, max(FEWEST_RESAMPLES, MAX_DRAWS // num_questions))


def _ratios(table: Table) -> dict[str, Share]:
    return {name: share for name, share in shares(table).items() if not share.is_fixed}


def _numbers(table: Table, ratios: dict[str, Share], index_N: np.ndarray) -> dict[str, float]:
    return scores(table, index_N) | {name: share.value(index_N) for name, share in ratios.items()}


def _interval(found: Sequence[float]) -> tuple[float, float] | None:
    """Of the resamples in which the metric is defined, where these are most."""
    finite = [value for value in found if math.isfinite(value)]
    if not finite or len(finite) < _MIN_DEFINED * len(found):
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


_Delta = tuple[float, tuple[float, float] | None]


def _share_delta(now: Share, then: Share | None, differences: Sequence[float], seed: int) -> _Delta | None:
    if then is None or not then.counts[1]:
        return None
    if not now.is_fixed:
        return _delta(now.value(), then.value(), differences)
    both_N = now.of_N & then.of_N
    pairs = then.hits_N[both_N].astype(float).tolist(), now.hits_N[both_N].astype(float).tolist()
    if not pairs[0]:
        return None
    return (sum(pairs[1]) - sum(pairs[0])) / len(pairs[0]), paired_interval(*pairs, seed)


def _delta(now: float, then: float, differences: Sequence[float]) -> _Delta | None:
    return (now - then, _interval(differences)) if math.isfinite(now - then) else None


def _with_delta(row: EvalRow, delta: _Delta | None, compared: Earlier | None) -> EvalRow:
    if delta is None or compared is None:
        return row
    low, high = delta[1] or (None, None)
    return row.model_copy(
        update={"delta": delta[0], "delta_low": low, "delta_high": high, "delta_from": compared.stage}
    )
