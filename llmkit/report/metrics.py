"""What the name of a metric says: which direction is better, whether it is a share, what stands for a task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from llmkit.report.readings_preference import preference_words

Direction = Literal["higher", "lower"]

HONESTY, PROBLEMS, PREFERENCE, IDENTITY = "honesty", "problems", "preference", "identity"
NEEDLESS, NOT_FOUND, _WITHOUT = "needless_calls", "not_found_accuracy", "_accuracy_without"
ACCURACY, GOLD, WINS, JUDGED_WINS = "accuracy", "gold", "gold_win_rate", "judge_win_rate"
DIFFERENCE, REVERSAL_GAP, SELF_GAP = "discriminator_gap", "reversal_gap", "self_judge_gap"
"""Of two shares: they may lie below 0."""
_CONTROLS = {"_prompt_only": "prompt only", "_refusal_only": "refusal only"}
# Groups of questions that a model should answer, and that it should refuse.
_ANSWERABLE = ("known", "in_context", "small_talk", "HighlyKnown")
_UNANSWERABLE = ("unseen", "unknown", "Unknown", "unsafe")
# One number never tells whether a model is honest: these stand for the task together.
_HONESTY_HEADLINES = {
    "hallucination_unseen": "wrong on unseen",
    "hallucination_unknown": "wrong on unknown",
    "over_refusal_known": "over-refusal",
    "accuracy_known": "right on known",
    "s_honesty_known_unknown": "S_honesty, known and unknown",
    "s_honesty": "S_honesty",
}
_INSTEAD = {"hallucination_unknown": "hallucination_unseen", "s_honesty": "s_honesty_known_unknown"}
"""Metric -> the one that says it better, where both are measured."""
_PREFERENCE_HEADLINES = (GOLD, WINS, JUDGED_WINS, "degenerate_rate")
CLAIMS_OTHER = "claims_other"
IDENTITY_HEADLINES = (ACCURACY, "persona_accuracy", CLAIMS_OTHER)
# Names are matched word by word: `ece` is not a part of `precedence`.
_LOWER = re.compile(
    r"perplexity|bits per byte|loss|wrong|hallucination|claims other|over refusal|over consv|empty rate"
    r"|degenerate rate|needless calls|failed calls|injection obeyed|calibration error|reversal gap|jailbroken"
    r"|\b(brier|ece|aurc|risk|truncated)\b"
)
_HIGHER = re.compile(
    r"\bacc|exact|\bem\b|f1|\b(?:pass|maj)@|precision|recall|bleu|rouge|win rate|stop|well formed|non empty|clean"
    r"|^gold\b|^top1$|^tau$|degenerate last|s honesty|prudence|\b(ths|ap|answered)\b|auroc|coverage at|score t\d"
    r"|backward of known"
)
# What is labelled Unknown should not be answered right by any model: the label is checked, not the model.
_NEITHER = re.compile(r"accuracy Unknown")
_REFUSED = re.compile(r"\b(?:refused|refusal|refusals) (?:on )?(.+)")
# Numbers that may lie between 0 and 1 without being a share of the samples.
_NOT_A_SHARE = re.compile(
    r"perplexity|bits|loss|entropy|num calls|\bkl\b|reward(?! pair)|seconds|length|tokens"
    r"|\bgold\b(?! win)|^tau|correlation|calibration|disagreement"
    r"|\b(brier|ece|aurc|ths|ap)\b|auroc|score t\d|diversity"
)


def direction(metric: str) -> Direction | None:
    """None where nobody can say from the name: refusing more is good or bad by what was asked."""
    words = _words(metric)
    if _NEITHER.search(words):
        return None
    if _LOWER.search(words):
        return "lower"
    if _HIGHER.search(words):
        return "higher"
    refused = _REFUSED.search(words)
    group = refused[1].replace(" ", "_") if refused else ""
    return "lower" if group in _ANSWERABLE else "higher" if group in _UNANSWERABLE else None


def is_share(metric: str, values: Iterable[float]) -> bool:
    least = -1 if metric.partition(", ")[0] in (DIFFERENCE, REVERSAL_GAP, SELF_GAP) else 0
    return not _NOT_A_SHARE.search(_words(metric)) and all(least <= value <= 1 for value in values)


def control_name(task: str, honesty: str) -> str:
    """What kind of control of the honesty evaluation `honesty` a task is; empty if it is none."""
    return _CONTROLS.get(task.removeprefix(honesty), "") if task.startswith(honesty) else ""


def headline_metrics(
    task: str,
    measured: Sequence[str],
    honesty: Iterable[str],
    problems: Iterable[str] = (),
    preferences: Iterable[str] = (),
    identities: Iterable[str] = (),
) -> list[str]:
    """What stands for a task: the first of its metrics; for one of `honesty`, `preferences` or `identities`, the few
    that count together; for one of `problems`, the accuracy."""
    names = list(honesty)
    if task in preferences and (found := [name for name in _PREFERENCE_HEADLINES if name in measured]):
        return found
    if task in identities and (found := [name for name in IDENTITY_HEADLINES if name in measured]):
        return found
    if any(control_name(task, name) for name in names):
        return []
    if task in problems and ACCURACY in measured:
        return [ACCURACY]
    if found := tools_first(measured):
        return found
    return (honesty_first(measured) if task in names else []) or list(measured[:1])


def tools_first(measured: Sequence[str]) -> list[str]:
    """Of an evaluation with tools: what is right by each tool, and what is called in vain. Empty for any other."""
    if not any(name.endswith(_WITHOUT) or name in (NEEDLESS, NOT_FOUND) for name in measured):
        return []
    right = [name for name in measured if name.endswith(f"_{ACCURACY}") and name != f"needless_{ACCURACY}"]
    return [*right, *(name for name in measured if name == NEEDLESS)]


def honesty_first(measured: Iterable[str]) -> list[str]:
    """The metrics that tell most: without word problems and small talk where there are known and unknown groups. Of
    several unanswerable groups taken together, `unseen` comes before all."""
    found = [name for name in _HONESTY_HEADLINES if name in set(measured)]
    return [name for name in found if _INSTEAD.get(name) not in found]


def short_name(
    task: str, metric: str, honesty: Iterable[str], problems: Iterable[str] = (), preferences: Iterable[str] = ()
) -> str:
    """For pictures and headings: the task, or what its metric says where a task has several."""
    if task in preferences:
        words = preference_words(metric)[0]
        return words if task == PREFERENCE else f"{task}: {words}"
    if task in problems and metric == ACCURACY:
        return f"{task} solved"
    if metric in (NEEDLESS, CLAIMS_OTHER) or metric.endswith(f"_{ACCURACY}"):
        return f"{task}: {metric.replace('_', ' ')}"
    if task not in honesty or metric not in _HONESTY_HEADLINES:
        return task
    return _HONESTY_HEADLINES[metric] if task == HONESTY else f"{task}: {_HONESTY_HEADLINES[metric]}"


def budget(metric: str) -> tuple[str, int] | None:
    """`pass@8` as ("pass", 8), `maj@8` likewise; None for any other metric."""
    name, at, k = metric.partition("@")
    return (name, int(k)) if at and name in ("pass", "maj") and k.isdecimal() else None


def thinking_budget(metric: str) -> int | None:
    """`16` of `accuracy, thinking 16`; None for any other metric."""
    tokens = metric.removeprefix(f"{ACCURACY}, thinking ")
    return int(tokens) if tokens != metric and tokens.isdecimal() else None


def is_between(metric: str, metrics: Iterable[str]) -> bool:
    """Whether it is a budget of neither one answer nor the largest number of `metrics`."""
    found = budget(metric)
    if found is None:
        return False
    ks = [other[1] for each in metrics if (other := budget(each)) and other[0] == found[0]]
    return found[1] not in (1, max(ks))


def group_of(metric: str, column: str | None) -> str | None:
    """`3` of `accuracy, level 3`, where problems are told apart by `level`; None for any other metric."""
    beginning = f"{ACCURACY}, {column} "
    return metric.removeprefix(beginning) if column and metric.startswith(beginning) else None


def _words(metric: str) -> str:
    """Without the group that it is of: a user's text says nothing of directions."""
    return metric.partition(", ")[0].replace("_", " ")
