"""Which logged numbers become curves, in which order, and what they say in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from llmkit.recipe.trainer_keys import PRACTICE
from llmkit.report.numbers import value
from llmkit.report.run import Curve, StageReport
from llmkit.report.svg import line_chart, thin

MEASURE = "measure"
"""Phase in which practice writes what held-out problems showed: `<set>/<metric>` against the step."""
_TRAINING = ("loss", "learning_rate", "grad_norm", "known_right", "known_refused", "unknown_refused")
_NUM_SHOWN = 6


@dataclass(frozen=True)
class Words:
    """What readers are told of a curve."""

    name: str
    meaning: str = ""
    is_share: bool = False


_PRACTISING: dict[str, Words] = {
    "reward": Words("reward", "Mean score of the sampled answers."),
    "completions/mean_length": Words("answer length", "Mean tokens of the sampled answers."),
    "entropy": Words("entropy", "How open the next token is, in nats. Near 0 all answers to a problem are alike."),
    "practice/useful_groups": Words(
        "useful groups", "Groups with better and worse answers to their problem. The others teach nothing.", True
    ),
    "completions/clipped_ratio": Words("cut off", "Sampled answers that reached the longest length.", True),
    "kl": Words("KL", "How far the model has moved from where it began, in nats per token."),
    "grad_norm": Words("gradient norm", "Before it is clipped."),
    "clip_ratio/region_mean": Words("clipped tokens", "Tokens that would have moved too far in one step.", True),
    "practice/sampled_tokens": Words("sampled tokens", "In all, up to the step."),
    "practice/open_levels": Words("open levels", "Levels that the curriculum has opened."),
    "learning_rate": Words("learning rate"),
    "loss": Words("loss", "Of the policy. It says nothing of progress."),
}
_OF_REWARD, _MEAN = "rewards/", "/mean"
_BEHIND_REWARDS = "clip_ratio/region_mean"


def wanted(kind: str, phase: str, row: Mapping[str, object]) -> list[str]:
    """Keys of a line of metrics.jsonl that become curves."""
    if kind not in PRACTICE:
        return [key for key in _TRAINING if key in row]
    if phase == MEASURE:
        return [key for key in row if "/" in key]
    rewards = {reward_of(key) for key in row} - {""}
    return [key for key in row if key in _PRACTISING or reward_of(key) or key.partition("/")[0] in rewards]


def place(kind: str) -> Callable[[tuple[str, str]], tuple[str, int, str]]:
    """Sorts (phase, key) of curves as they are shown."""
    order = {key: 3 * index for index, key in enumerate(_PRACTISING if kind in PRACTICE else _TRAINING)}
    rewards = order.get(_BEHIND_REWARDS, 0)

    def sorting(item: tuple[str, str]) -> tuple[str, int, str]:
        phase, key = item
        return phase, order.get(key, rewards - 2 if reward_of(key) else rewards - 1), key

    return sorting


def reward_of(key: str) -> str:
    """The reward whose mean score the curve shows; empty for any other."""
    is_one = key.startswith(_OF_REWARD) and key.endswith(_MEAN)
    return key.removeprefix(_OF_REWARD).removesuffix(_MEAN) if is_one else ""


def words_of(kind: str, key: str) -> Words:
    """The key itself where it needs no words."""
    if kind not in PRACTICE:
        return Words(key)
    if reward := reward_of(key):
        return Words(f"reward {reward}", "Mean score by this reward alone.")
    return _PRACTISING.get(key) or Words(key.replace("/", ": ").replace("_", " "), "Logged by the reward.")


@dataclass(frozen=True)
class Shown:
    """A curve for readers."""

    key: str
    words: Words
    told: str
    """Its first and last value."""
    chart: Markup


@dataclass(frozen=True)
class CurveGroup:
    """The curves of one phase; `rest` is folded away."""

    title: str
    first: tuple[Shown, ...]
    rest: tuple[Shown, ...]


def curve_groups(stage: StageReport) -> list[CurveGroup]:
    phases: dict[str, list[Shown]] = {}
    for curve in stage.curves:
        if not (stage.practises and curve.phase == MEASURE):  # these have pictures of their own
            phases.setdefault(curve.phase, []).append(_shown(stage, curve))
    groups = []
    for phase, found in phases.items():
        num = min(_NUM_SHOWN, len(found)) if stage.practises else len(found)
        title = "Curves" if len(phases) == 1 else f"Curves, phase {phase}"
        groups.append(CurveGroup(title, tuple(found[:num]), tuple(found[num:])))
    return groups


def _shown(stage: StageReport, curve: Curve) -> Shown:
    told = words_of(stage.kind, curve.key)
    ends = " \u2192 ".join(value(curve.values[place], told.is_share) for place in (0, -1))
    chart = line_chart(f"{curve.key} against step", thin(curve.steps, curve.values), told.is_share)
    return Shown(curve.key, told, ends, chart)
