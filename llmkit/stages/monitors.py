"""Curves of practice that have a healthy range: outside it the stage warns, or stops where the recipe says so.

The ranges are those at which published runs were in trouble; each has a hint in plain words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmkit.recipe.practice import Limits
from llmkit.stages.callbacks import numbers_of_step
from llmkit.stages.common import Worker


@dataclass(frozen=True)
class Monitor:
    limits: Limits
    low: str = ""
    """What it means that the curve is below its range, and what helps."""
    high: str = ""
    """The same of above."""


MONITORS: dict[str, Monitor] = {
    # Cui et al. 2025 (arXiv 2505.22617): reward is traded for entropy, and is spent when that is near 0
    "entropy": Monitor(
        Limits(min=0.005, max=6.0),
        "answers have become nearly the same: little is left to explore; raise 'epsilon_high' or 'entropy_coef', or "
        "lower 'learning_rate'",
        "answers are close to random: lower 'learning_rate' or 'temperature'",
    ),
    # Ouyang et al. 2022, Gao et al. 2022 (arXiv 2210.10760): a few nats per answer; per token far less
    "kl": Monitor(Limits(max=1.0), high="the model has moved far from where it began: raise 'beta'"),
    # DAPO (arXiv 2503.14476) works with 0.2 and 0.28: clipped shares of more than a tenth mean too long steps
    "clip_ratio/region_mean": Monitor(
        Limits(max=0.2), high="many tokens are clipped: lower 'learning_rate' or 'num_iterations'"
    ),
    "practice/useful_groups": Monitor(
        Limits(min=0.1),
        "nearly all groups are all right or all wrong and teach nothing: set 'sampling.filter', 'sampling.resample', "
        "or take problems of another level",
    ),
    "completions/clipped_ratio": Monitor(
        Limits(max=0.3), high="many answers are cut off: raise 'max_completion_length', or add the reward 'overlong'"
    ),
    "grad_norm": Monitor(Limits(max=50.0), high="gradients are very large: lower 'learning_rate', set 'max_grad_norm'"),
}
GROWTH = 3.0
"""Answers that many times as long, or as short, as in the first steps: length drift."""
FIRST = 5
"""Logged values that count as the first steps."""
LENGTH = "completions/mean_length"
DRIFT = "length_drift"
_DRIFT = Monitor(
    Limits(min=1 / GROWTH, max=GROWTH),
    "answers have become much shorter than at first: read the rollouts; a reward may pay for saying little",
    "answers have become much longer than at first: read the rollouts; a reward may pay for length",
)


def monitors(own: dict[str, Limits]) -> dict[str, Monitor]:
    """llmkit's own with the recipe's laid over them."""
    known = {**MONITORS, DRIFT: _DRIFT}
    found = dict(known)
    for name, limits in own.items():
        before = known.get(name, Monitor(limits))
        given = limits.model_dump(exclude_unset=True)
        merged = before.limits.model_copy(update=given)
        found[name] = Monitor(merged, before.low or "below the range that the recipe sets", before.high or "above it")
    return {name: monitor for name, monitor in found.items() if monitor.limits.action != "ignore"}


class MonitorCallback(TrainerCallback):
    """Looks at what the trainer logs. To be added after the callback that writes it down."""

    def __init__(self, worker: Worker, own: dict[str, Limits]) -> None:
        self._worker, self._monitors = worker, monitors(own)
        self._outside: dict[str, int] = {}
        self._lengths: list[float] = []
        self.stopped_by: str | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        numbers = numbers_of_step(logs)
        if LENGTH in numbers:
            self._lengths = [*self._lengths, numbers[LENGTH]][:FIRST]
            numbers[DRIFT] = numbers[LENGTH] / max(sum(self._lengths) / len(self._lengths), 1e-9)
        for name, monitor in self._monitors.items():
            if name in numbers:
                self._look(name, monitor, numbers[name], state, control)

    def _look(self, name: str, monitor: Monitor, value: float, state: TrainerState, control: TrainerControl) -> None:
        limits = monitor.limits
        too_low, too_high = limits.min is not None and value < limits.min, limits.max is not None and value > limits.max
        self._outside[name] = self._outside.get(name, 0) + 1 if too_low or too_high else 0
        if self._outside[name] != limits.patience:
            return
        bound, hint = (limits.min, monitor.low) if too_low else (limits.max, monitor.high)
        side = "below" if too_low else "above"
        self._worker.warn(f"step {state.global_step}: {name} is {value:.3g}, {side} {bound:g}: {hint}")
        if limits.action == "stop":
            self.stopped_by = name
            control.should_training_stop = True
            control.should_save = True
