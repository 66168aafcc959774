"""Evaluations of preferences: how good the answers are, what a reward model's choice is worth, whether RLHF can pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmkit.artifacts.manifest import EvalRow
from llmkit.recipe.preference import best_of_n_kl
from llmkit.report.beside import Column, MetricLine, held_against, metric_line, models_of, verdicts
from llmkit.report.metrics import DIFFERENCE, GOLD, JUDGED_WINS, SELF_GAP, WINS
from llmkit.report.numbers import interval, listed, number, percent
from llmkit.report.readings_preference import best_of, preference_words
from llmkit.report.run import RunReport, StageReport
from llmkit.report.words_preference import function, reward_models

_MAIN = (GOLD, WINS, JUDGED_WINS, "judge_undecided", "degenerate_rate", "truncated", "num_tokens")
KNOWS = ("reward_pair_accuracy", "writes_better", DIFFERENCE, "judges_better", SELF_GAP)


@dataclass(frozen=True)
class BestOf:
    """Gold of the reward model's choice among n answers, of every model."""

    n: int
    kl: str
    """Of choosing from taking any, nats per answer."""
    cells: tuple[tuple[str, str], ...]
    """(value, interval)"""


@dataclass(frozen=True)
class Preference:
    """One evaluation of preferences."""

    task: str
    columns: tuple[Column, ...]
    how: str
    """Who judges, and what is compared with what."""
    main: tuple[MetricLine, ...]
    rest: tuple[MetricLine, ...]
    verdicts: tuple[str, ...]
    gaps: tuple[str, ...]
    """A sentence for each model of which the gap was measured."""
    knows: tuple[MetricLine, ...]
    best: tuple[BestOf, ...]


def preferences(report: RunReport) -> list[Preference]:
    """One of each evaluation that some model was measured on."""
    return [found for task in report.preference_tasks if (found := _preference(report, task))]


def _preference(report: RunReport, task: str) -> Preference | None:
    columns = models_of(report, task)
    chain = [column for column in columns if not column.is_control]
    if not chain:
        return None
    after = chain[-1]
    before = held_against(chain, report.untaught(after.name, _is_preferred))
    shown = [*chain, *(column for column in columns if column.is_control)]
    metrics = list(dict.fromkeys(metric for column in shown for metric in column.rows))
    rest = [metric for metric in metrics if metric not in (*_MAIN, *KNOWS) and not best_of(metric)]
    return Preference(
        task=task,
        columns=tuple(shown),
        how=_how(report, task, before),
        main=_lines([metric for metric in _MAIN if metric in metrics], shown),
        rest=_lines(rest, shown),
        verdicts=verdicts(shown, after, GOLD, "gold"),
        gaps=tuple(_gap(column) for column in chain if KNOWS[0] in column.rows and KNOWS[1] in column.rows),
        knows=_lines([metric for metric in KNOWS if metric in metrics], shown),
        best=_best(shown, metrics),
    )


def _is_preferred(stage: StageReport) -> bool:
    return stage.kind == "rlhf"


def _lines(metrics: Sequence[str], columns: Sequence[Column]) -> tuple[MetricLine, ...]:
    return tuple(_line(metric, columns) for metric in metrics)


def _line(metric: str, columns: Sequence[Column]) -> MetricLine:
    name, says = preference_words(metric)
    return metric_line(metric, columns, says, name)


def _how(report: RunReport, task: str, before: Column | None) -> str:
    """Who judges; which model's answers are compared with whose."""
    spec = report.preference_spec(task)
    told: list[str] = []
    if spec:
        if spec.get("gold") or spec.get("labeller"):
            told.append(f"Gold: {_judge(spec)}.")
        if isinstance(judge := spec.get("judge"), Mapping):
            told.append(f"The judge: {judge.get('name_or_path')}, asked in both orders.")
    if models := reward_models(spec):
        told.append(f"The reward model whose choice is measured: {listed(models)}.")
    if baseline := _baselines(report, task) or (before.name if before else ""):
        told.append(f"Wins are against {baseline}, answer by answer.")
    return " ".join(told)


def _judge(spec: Mapping[str, Any]) -> str:
    if spec.get("gold"):
        return f"the reward model {spec['gold']}, that no policy is trained on"
    return f"the function {function(spec.get('labeller'))}"


def _baselines(report: RunReport, task: str) -> str:
    """The one that all measured models have in common; for several, that each has its own."""
    found: dict[str, None] = {}
    for stage in report.evaluations:
        rows = stage.manifest.evals if stage.manifest else []
        if any(row.task == task and row.metric == WINS for row in rows):
            own = [each for each in stage.settings.get("evals") or [] if isinstance(each, dict)]
            own = [each for each in own if str(each.get("name") or each.get("task")) == task]
            found |= {str(each.get("baseline") or stage.parent or "base"): None for each in own}
    return next(iter(found)) if len(found) == 1 else "the model that each started from" if found else ""


def _gap(column: Column) -> str:
    """Whether RLHF can pay: only where judging is easier than writing is there something to learn from the judge."""
    knows, writes = column.rows[KNOWS[0]], column.rows[KNOWS[1]]
    told = (
        f"{column.name}: the reward model picks the better of two answers in {percent(knows.value)} of the pairs, "
        f"the policy itself in {percent(writes.value)}"
    )
    gap = column.rows.get(DIFFERENCE)
    low, high = (gap.low, gap.high) if gap else (None, None)
    if low is not None and low > 0:
        return f"{told}: RLHF can pay here."
    if high is not None and high <= 0:
        return f"{told}: RLHF cannot pay here, for the policy knows as much."
    return f"{told}: not clearly apart, so nobody can say whether RLHF pays here."


def _best(columns: Sequence[Column], metrics: Sequence[str]) -> tuple[BestOf, ...]:
    """From one answer on; nothing where no choice was measured."""
    budgets = sorted(n for metric in metrics if (n := best_of(metric)))
    if not budgets:
        return ()
    names = {1: GOLD} | {n: f"gold_best_of_{n}" for n in budgets}
    return tuple(
        BestOf(n, number(best_of_n_kl(n)), tuple(_told(column.rows.get(name)) for column in columns))
        for n, name in names.items()
    )


def _told(row: EvalRow | None) -> tuple[str, str]:
    return (number(row.value), interval(row.low, row.high, False)) if row else ("", "")
