"""Metrics of preferences in words: of the evaluation `preference`, and of a reward model on rankings."""

from __future__ import annotations

import re

_EVALUATED = {
    "gold": ("gold", "How good the first answer to each prompt is, by whoever judges."),
    "gold_win_rate": ("wins by gold", "First answers that are better than the baseline's; as good counts half."),
    "judge_win_rate": ("wins by judge", "First answers that it likes better than the baseline's; a tie counts half."),
    "judge_undecided": ("undecided by judge", "Prompts on which the judge's replies cannot be read."),
    "degenerate_rate": ("degenerate answers", "Empty, repeating themselves, or the prompt again."),
    "truncated": ("cut off", "Answers that reached the longest length."),
    "num_tokens": ("tokens", "Mean length of the first answer."),
    "reward_pair_accuracy": (
        "reward model picks the better",
        "Of the model's own answers, two at a time, where one is better.",
    ),
    "writes_better": ("model writes the better", "Of the same pairs: the better one is the likelier one to the model."),
    "judges_better": ("model says the better", "Asked which of two of its own answers is better, in both orders."),
    "self_judge_gap": ("self-judge gap", "The difference to how often it writes the better one of the same pairs."),
    "discriminator_gap": ("discriminator-generator gap", "The difference: what the reward model could still teach."),
}
_RANKED = {
    "accuracy": ("pair accuracy", "Pairs of answers that it puts in the raters' order."),
    "ceiling": ("can be reached", "Pairs that a perfect model would put in the order of raters who err or disagree."),
    "longer_wins": ("longer wins", "Pairs that taking the longer answer, and nothing else, would get right."),
    "longer_scores": ("longer scores", "Pairs of which the longer answer has the higher score."),
    "top1": ("top 1", "Prompts whose highest-scored answer is ranked first."),
    "tau": ("Kendall's tau", "Of scores and ranks, prompt by prompt: 1 the same order, 0 no relation."),
    "calibration_error": ("calibration error", "Mean gap between the chance that it gives a pair and the share right."),
    "length_correlation": ("correlation with length", "Of scores and lengths within a prompt: 0 is none."),
    "loss": ("loss", "Mean over pairs, in nats; 0.693 is guessing."),
    "degenerate_last": ("degenerate come last", "Degenerate answers that score below all others of their prompt."),
    "disagreement": ("members disagree", "Mean deviation of the members' scores of one answer."),
}
_BEST_OF = re.compile(r"gold_best_of_(\d+)")
_MEMBER = "accuracy_of_"


def preference_words(metric: str) -> tuple[str, str]:
    """(name, what it says); the metric itself and nothing where it is not one of `preference`'s."""
    if n := best_of(metric):
        return f"gold, best of {n}", f"Gold of the answer that the reward model likes best of {n}."
    return _EVALUATED.get(metric, (metric, ""))


def ranking_words(metric: str) -> tuple[str, str]:
    """(name, what it says) of a reward model's measures."""
    if metric.startswith(_MEMBER):
        return f"pair accuracy of member {metric.removeprefix(_MEMBER)}", "One member alone."
    return _RANKED.get(metric, (metric.replace("_", " "), ""))


def is_member(metric: str) -> bool:
    return metric.startswith(_MEMBER)


def best_of(metric: str) -> int:
    """8 of `gold_best_of_8`; 0 for any other metric."""
    found = _BEST_OF.fullmatch(metric)
    return int(found[1]) if found else 0
