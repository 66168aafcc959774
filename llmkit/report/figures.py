"""A stage's plain numbers for readers: counts that belong together in one place, and nothing that stands elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmkit.artifacts.manifest import Manifest
from llmkit.recipe.trainer_keys import PRACTICE
from llmkit.report.heldout import PREFIX
from llmkit.report.knowledge import why_left_out
from llmkit.report.metrics import budget
from llmkit.report.numbers import duration, interval, number, number_of, percent
from llmkit.report.words import fact, group_size
from llmkit.report.words_preference import agreement, counted

# Of refusal data: counts by what became of a question, a row, ...: `rows_answered` belongs to `rows`.
_WHOLES = ("rows", "questions", "entities", "pairs")
_TOTALS = {"rows": "num_rows", "questions": "questions"}
# Of practice: what its own figures tell, and the loss, which says nothing of progress.
_OF_PRACTICE = ("problems", "sampled_groups", "sampled_tokens", "useful_groups", "train_loss", "last_loss")
# Of rejection sampling; its pass@k and maj@k have a picture.
_OF_ATTEMPTS = ("problems", "never_solved", "too_easy", "rows")
# Of preferences: what figures, the guard's section and that of the reward model tell.
_OF_PREFERENCE = {
    "rollout": ("prompts", "completions", "cut_off", "without_choice", "completions_per_prompt"),
    "rank": (
        *("prompts", "decisions", "raters", "pairs", "tied_pairs", "skipped", "flagged", "right_pairs", "undecided"),
        *("tau_between_raters", "tau_with_oneself", "seconds_per_prompt", "noise_scale"),
        *("ceiling_between_raters", "ceiling_with_oneself"),
    ),
    "rlhf": (
        *("best_step", "best_balance", "guard_evaluations", "guard_best_step", "guard_best_gold", "guard_stopped"),
        *("gao_alpha", "gao_beta", "gao_peak", "kl", "guard_seconds", "guard_share"),
    ),
}
# Of an interrogation: the section on knowledge shows these.
_OF_PROBE = ("share_", "num_questions", "num_answers", "num_consistently_wrong", "num_undecided")


@dataclass(frozen=True)
class Figure:
    name: str
    value: str
    under: str = ""
    """What the figure is made of, or its interval."""


def figures(made: Manifest) -> list[Figure]:
    metrics = {key: value for key, value in made.metrics.items() if not key.startswith(PREFIX)}
    if made.probe:
        told = {key for key in metrics if key.startswith(_OF_PROBE) or why_left_out(key)}
        metrics = {key: value for key, value in metrics.items() if key not in told}
    found = []
    if made.kind == "refusals":
        found = [figure for whole in _WHOLES if (figure := _parts(whole, metrics))]
    elif made.kind in PRACTICE:
        found = _practised(made)
    elif made.kind == "best_of_n":
        found = _attempted(made)
    elif made.kind == "rollout":
        found = _rolled_out(made.metrics)
    elif made.kind == "rank":
        found = _ranked(made.metrics)
    return [*found, *(_figure(key, value, metrics) for key, value in metrics.items() if not _is_told(key, made))]


def _rolled_out(metrics: Mapping[str, float]) -> list[Figure]:
    found = [Figure("prompts", number(metrics["prompts"]))] if "prompts" in metrics else []
    if "completions" in metrics:
        per_prompt = metrics.get("completions_per_prompt")
        parts = [f"{number(per_prompt)} to a prompt"] if per_prompt else []
        cut = counted(metrics, "cut_off", "cut off")
        found.append(Figure("answers", number(metrics["completions"]), ", ".join([*parts, *([cut] if cut else [])])))
    if metrics.get("without_choice"):
        found.append(Figure("left out", number(metrics["without_choice"]), "prompts with a single answer"))
    return found


def _ranked(metrics: Mapping[str, float]) -> list[Figure]:
    """Counts, how long it took, how far raters agree with one another and with the truth."""
    found = []
    if "decisions" in metrics:
        raters = f"by {number_of(metrics['raters'], 'rater')}" if metrics.get("raters") else ""
        left = [counted(metrics, key, key) for key in ("skipped", "flagged", "undecided")]
        told = ", ".join(part for part in (raters, *left) if part)
        found.append(Figure("decisions", number(metrics["decisions"]), told))
    if "pairs" in metrics:
        ties = counted(metrics, "tied_pairs", "ties beside them")
        found.append(Figure("pairs in order", number(metrics["pairs"]), ties))
    if metrics.get("seconds_per_prompt"):
        found.append(Figure("time to a prompt", duration(metrics["seconds_per_prompt"])))
    found += [Figure(*told) for told in agreement(metrics)]
    for name, under in (("between_raters", "agree with each other"), ("with_oneself", "agree with themselves")):
        if (most := metrics.get(f"ceiling_{name}")) is not None:
            found.append(Figure("a perfect model can reach", percent(most), f"of the pairs, by how far raters {under}"))
    if "right_pairs" in metrics:
        told = "of those in order; what is equal in truth counts half"
        found.append(Figure("pairs in true order", percent(metrics["right_pairs"]), told))
    return found


def _practised(made: Manifest) -> list[Figure]:
    metrics, found = made.metrics, []
    groups, size = metrics.get("sampled_groups"), group_size(made)
    if "problems" in metrics:
        noun = "prompts" if made.kind == "rlhf" else "problems"
        found.append(Figure(noun, number(metrics["problems"]), "to draw from"))
    if groups is not None and size:
        found.append(Figure("sampled answers", number(groups * size), f"{number(groups)} groups of {size}"))
    elif groups is not None:
        found.append(Figure("sampled groups", number(groups)))
    if "useful_groups" in metrics:
        found.append(Figure("useful groups", percent(metrics["useful_groups"]), "with better and worse answers"))
    if "sampled_tokens" in metrics:
        found.append(Figure("sampled tokens", number(metrics["sampled_tokens"])))
    return found


def _attempted(made: Manifest) -> list[Figure]:
    """Counts of problems with their shares."""
    problems = made.metrics.get("problems")
    found = [Figure("problems", number(problems))] if problems else []
    for key in ("never_solved", "too_easy"):
        if key in made.metrics:
            share = f"{percent(made.metrics[key] / problems)} of the problems" if problems else ""
            found.append(Figure(key.replace("_", " "), number(made.metrics[key]), share))
    if "rows" in made.metrics:
        found.append(Figure("rows kept", number(made.metrics["rows"])))
    return found


def _parts(whole: str, metrics: Mapping[str, float]) -> Figure | None:
    """Those that are not zero, the largest first."""
    parts = {key.removeprefix(f"{whole}_"): value for key, value in metrics.items() if key.startswith(f"{whole}_")}
    if not parts:
        return None
    total = metrics.get(_TOTALS.get(whole, ""), sum(parts.values()))
    told = [f"{number(value)} {key.replace('_', ' ')}" for key, value in sorted(parts.items(), key=_size) if value]
    return Figure(whole, number(total), ", ".join(told))


def _size(item: tuple[str, float]) -> float:
    return -item[1]


def _is_told(key: str, made: Manifest) -> bool:
    """By a figure's parts, or as the bound of an interval."""
    if key.endswith(("_low", "_high")) and key.rpartition("_")[0] in made.metrics:
        return True
    if key in _OF_PREFERENCE.get(made.kind, ()) or (made.kind == "reward" and "/" in key):
        return True
    if made.kind in PRACTICE:
        return key in _OF_PRACTICE
    if made.kind == "best_of_n":
        return key in _OF_ATTEMPTS or budget(key) is not None
    return made.kind == "refusals" and (key in _TOTALS.values() or key.startswith(tuple(f"{w}_" for w in _WHOLES)))


def _figure(key: str, value: float, metrics: Mapping[str, float]) -> Figure:
    name, text = fact(key, value)
    low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
    is_share = key.endswith("accuracy")
    return Figure(name, percent(value) if is_share else text, interval(low, high, is_share))
