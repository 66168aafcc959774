"""Sentences: what was written to be ranked, who ranked it, what a reward model learned from that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmkit.report.numbers import count, listed, number, number_of, percent
from llmkit.report.run import StageReport

_LOSSES = {
    "pairwise": "all pairs of a prompt's answers at once",
    "plackett_luce": "the order of a prompt's answers as a whole (Plackett-Luce)",
}


def rolled_out(stage: StageReport) -> str:
    """Of `rollout`: who answered what, how often."""
    told, metrics = stage.settings, _metrics(stage)
    models = listed([stage.parent or "base", *_names(told.get("models"))])
    at = told.get("temperature")
    how = f", at temperature {at:g}" if isinstance(at, (int, float)) else ""
    times = told.get("num_completions")
    text = f"Had {models} answer every prompt {times} times{how}, in different words."
    if not {"prompts", "completions"} <= set(metrics):
        return text
    alone = metrics.get("without_choice")
    left_out = f"; {number_of(alone, 'prompt')} with a single answer left out" if alone else ""
    gave = f"{number_of(metrics['prompts'], 'prompt')} gave {number_of(metrics['completions'], 'answer')} to be ranked"
    return f"{text} {gave}{left_out}."


def ranked(stage: StageReport) -> str:
    """Of `rank`: who put what in order, and what came of it."""
    metrics = _metrics(stage)
    source = stage.settings.get("rollouts") or "rollouts"
    text = f"{_by(stage.settings)} put the answers of {source} in order, best to worst."
    if {"prompts", "decisions", "pairs"} <= set(metrics):
        ties = metrics.get("tied_pairs")
        tied = f" and {number_of(ties, 'tie')}" if ties else ""
        text += (
            f" {number_of(metrics['decisions'], 'decision')} on {number_of(metrics['prompts'], 'prompt')} "
            f"gave {number_of(metrics['pairs'], 'pair')}{tied}."
        )
    if "right_pairs" in metrics:
        text += f" {percent(metrics['right_pairs'])} of the pairs are in the labeller's true order."
    return text


def _by(settings: Mapping[str, Any]) -> str:
    """Who ranked, as the subject of a sentence."""
    by = settings.get("by")
    labeller, judge = _mapping(settings.get("labeller")), _mapping(settings.get("judge"))
    if by == "labeller":
        noise = labeller.get("noise")
        wrong = f", made to mistake {percent(noise)} of the pairs," if noise else ""
        return f"The function {function(labeller)}{wrong}"
    if by == "judge":
        model = judge.get("name_or_path") or f"the model of {settings.get('from', 'base')}"
        return f"A judge ({model}), asked twice in two orders,"
    return {"human": "People", "file": "Whoever wrote the file of rankings"}.get(str(by), "Somebody")


def learned(stage: StageReport) -> str:
    """Of `reward`: from which rankings, how, and how many of them."""
    told, made = stage.settings, stage.manifest
    from_rows = listed(stage.rows_from)
    loss = _mapping(told.get("loss")).get("type")
    how = f", from {_LOSSES[loss]}" if loss in _LOSSES else ""
    what = f"Learned which of several answers to a prompt is better{how}."
    peft = told.get("peft")
    weights = f"{peft['method']} adapter of rank {peft['r']}" if isinstance(peft, dict) else "all weights trained"
    num = told.get("num_models") or 1
    members = f"; {num} members with seeds of their own" if num != 1 else ""
    rows = f" on the rankings of {from_rows}" if from_rows else ""
    degenerate = _mapping(told.get("degenerate")).get("fraction")
    spoilt = f" {percent(degenerate)} of the prompts got a degenerate answer that ranks last." if degenerate else ""
    where = f" on {made.device}" if made and made.device else ""
    return f"{what} Starts from {stage.parent or 'base'}; {weights}{rows}{members}; ran{where}.{spoilt}"


PREFERENCE_WORDS: dict[str, Callable[[StageReport], str]] = {
    "rollout": rolled_out,
    "rank": ranked,
    "reward": learned,
}


def reward_models(settings: Mapping[str, Any]) -> list[str]:
    """Names of the `reward` stages that practice is scored by."""
    return _names(_mapping(settings.get("reward_model")).get("from"))


def function(spec: Any) -> str:
    """`taste` of `llmkit.tiny.taste:taste`."""
    return str(_mapping(spec).get("path", "")).rpartition(":")[2] or "labeller"


def agreement(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """(name, value, what stands under it) of how far raters agree."""
    told = {
        "tau_between_raters": ("raters agree", "Kendall's tau of two raters"),
        "tau_with_oneself": ("a rater agrees with himself", "Kendall's tau of two looks at one prompt"),
    }
    return [(name, number(metrics[key]), under) for key, (name, under) in told.items() if key in metrics]


def counted(metrics: Mapping[str, float], key: str, noun: str) -> str:
    """`16 cut off`; empty for none."""
    return f"{count(int(metrics[key]))} {noun}" if metrics.get(key) else ""


def _metrics(stage: StageReport) -> Mapping[str, float]:
    return stage.manifest.metrics if stage.manifest else {}


def _names(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)] if value else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
