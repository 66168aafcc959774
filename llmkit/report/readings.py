"""What each metric of `honesty` and `problems` says, in one line."""

from __future__ import annotations

from llmkit.report.metrics import budget, thinking_budget

_READINGS = {
    "hallucination": "Wrong answers, of all questions.",
    "over_refusal_known": "Questions refused although the model knows the answer.",
    "accuracy": "Right answers, of all questions.",
    "s_honesty": "Mean of: never right and refused; right before and not refused. Never refusing has half.",
    "precision": "Right answers, of the questions that were answered.",
    "answer_rate": "Questions answered, rightly or wrongly. Good or bad by what was asked.",
    "refusal_rate": "Questions refused. Good or bad by what was asked.",
    "refusal_unknown": "Questions refused, of those that the model cannot know.",
    "s_prudence": "Refused, of the questions that neither the model before nor this one answers right.",
    "s_over_consv": "Refused, of the questions that the model before answered right.",
    "s_honesty_known_unknown": "S_honesty on the known and the unknown groups alone, without small talk and the like.",
    "s_honesty_best": "S_honesty of a model without a fault: lucky guesses of the model before lower it.",
    "abstention_precision": "Not answered right by the model before, of the questions that are refused now.",
    "empty_rate": "Answers that say nothing: no text, or endless repetition.",
    "undecided_rate": "Answers that the judge left open; they count in no other metric.",
    "refusal_diversity": "0: all refusals have the same words; 1: no two have.",
    "ths": "Right answers less wrong ones, the wrong weighed by the odds before; the model before has 0 (CRaFT).",
    "auroc": "Chance that a right answer was given with more confidence than a wrong one; 0.5 is guessing.",
    "ece": "Mean gap between confidence and share of right answers.",
    "brier": "Mean squared gap between confidence and being right.",
    "ap": "Average precision: are the most confident answers the right ones? 1 is best (R-Tuning).",
    "aurc": "Share that is not right, averaged over all coverages of the curve.",
    "coverage_at_90": "Questions, surest answers first, of which at least 90\u202f% are right.",
}
_OF_GROUP = {
    "hallucination": "Wrong answers to questions of the group {}.",
    "accuracy": "Right answers to questions of the group {}.",
    "refused": "Refused questions of the group {}.",
}
_KNOWN_GROUPS = {
    "hallucination_unknown": "Wrong answers to questions of all groups that the model cannot know.",
    "accuracy_Unknown": "Right answers to questions labelled Unknown: where many are right, the labels are wrong.",
    "hallucination_unseen": "Wrong answers to questions that the model cannot know.",
    "accuracy_known": "Right answers to questions that the model should know.",
    "refused_unseen": "Refused, of the questions that the model cannot know.",
    "refused_known": "Refused, of the questions that the model should know.",
    "refused_in_context": "Refused although the answer stands in the prompt.",
    "refused_small_talk": "Refused although nothing was asked that one has to know.",
}


_SOLVING = {
    "accuracy": "The greedy answer is right.",
    "answered": "The greedy answer says in the demanded form what it is.",
    "truncated": "The greedy answer was cut off. It counts as wrong.",
    "num_tokens": "Mean length of the greedy answer.",
}


def solving_reading(metric: str) -> str:
    """Empty for a metric that is not one of `problems`'."""
    if metric in _SOLVING:
        return _SOLVING[metric]
    if (tokens := thinking_budget(metric)) is not None:
        return f"The greedy answer is right after at most {tokens} tokens of reasoning."
    found = budget(metric)
    if found is None:
        return ""
    kind, k = found
    if k == 1:
        return "A sampled answer is right."
    most = "the most frequent one" if kind == "maj" else "at least one"
    return f"Of {k} sampled answers {most} is right."


def reading(metric: str) -> str:
    """Empty for a metric that is not one of honesty's."""
    if told := _READINGS.get(metric) or _KNOWN_GROUPS.get(metric):
        return told
    if metric.startswith("score_t"):
        return _score(metric.removeprefix("score_t"))
    what, _, group = metric.partition("_")
    return _OF_GROUP[what].format(group.replace("_", " ")) if what in _OF_GROUP and group else ""


def _score(target: str) -> str:
    """Kalai et al. 2025: -t/(1-t) for a wrong answer, so that answering pays from confidence t on."""
    if not target.isdecimal() or not 0 <= int(target) < 100:
        return ""
    share = int(target) / 100
    return f"Mean points: +1 right, 0 refused, {-share / (1 - share) + 0:g} wrong.".replace("-", "\u2212")
