"""Curves of practice that have a healthy range: outside it the stage warns, or stops where the recipe says so.

The ranges are in `llmkit.recipe.curves`; here are the hints, in plain words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmkit.recipe.curves import DRIFT, RANGES, TRADED, USEFUL
from llmkit.recipe.practice import Limits
from llmkit.recipe.stages import PracticeStage
from llmkit.stages.callbacks import numbers_of_step
from llmkit.stages.common import Worker

LENGTH = "completions/mean_length"


@dataclass(frozen=True)
class Hint:
    """What it means that a curve is below or above its range, and what helps."""

    low: str = "below the range that the recipe sets"
    high: str = "above the range that the recipe sets"


HINTS: dict[str, Hint] = {
    "entropy": Hint(
        "answers have become nearly the same: little is left to explore; raise 'epsilon_high' or 'entropy_coef' "
        "(grpo), or lower 'learning_rate'",
        "answers are close to random: lower 'learning_rate' or 'temperature'",
    ),
    "kl": Hint(high="the model has moved far from where it began: raise 'beta'"),
    "clip_ratio/region_mean": Hint(high="many tokens are clipped: lower 'learning_rate' or 'num_iterations'"),
    USEFUL: Hint(
        "nearly all groups are all right or all wrong and teach nothing: set 'sampling.filter', 'sampling.resample', "
        "or take problems of another level",
    ),
    "completions/clipped_ratio": Hint(
        high="many answers are cut off: raise 'max_completion_length', or add the reward 'overlong'"
    ),
    "grad_norm": Hint(high="gradients are very large: lower 'learning_rate', set 'max_grad_norm'"),
    DRIFT: Hint(
        "answers have become much shorter than at first: read the rollouts; a reward may pay for saying little",
        "answers have become much longer than at first: read the rollouts; a reward may pay for length",
    ),
    TRADED: Hint(high="one reward falls while their sum rises: it is given up for another; raise its 'weight'"),
}
FIRST = 5
"""Logged values that count as the first steps."""


def watched(stage: PracticeStage) -> dict[str, Limits]:
    """llmkit's own ranges with the recipe's laid over them. With `screen` a group is judged by a few answers, so that
    fewer differ: then the share of useful groups is watched only where the recipe says so."""
    own = {name: limits for name, limits in RANGES.items() if name != USEFUL or stage.sampling.screen is None}
    return {name: limits for name, limits in {**own, **stage.monitors}.items() if limits.action != "ignore"}


class MonitorCallback(TrainerCallback):
    """Looks at what the trainer logs.

    Args:
        weights: of the rewards, by label.

    Attributes:
        stopped_by: the curve that ends the stage. `BorderCallback` then ends it between two generation batches.
    """

    def __init__(self, worker: Worker, stage: PracticeStage, weights: Mapping[str, float]) -> None:
        self._worker, self._limits, self._own = worker, watched(stage), stage.monitors
        self._outside: dict[str, int] = {}
        self._first: dict[str, list[float]] = {}
        self._weights = weights
        self._unseen = sorted(self._limits.keys() & self._own.keys())
        self.stopped_by: str | None = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "outside": self._outside,
            "first": self._first,
            "unseen": self._unseen,
            "stopped_by": self.stopped_by,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._outside, self._first = dict(state["outside"]), dict(state["first"])
        self._unseen, self.stopped_by = list(state["unseen"]), state["stopped_by"]

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
            numbers[DRIFT] = numbers[LENGTH] / max(self._at_first(LENGTH, numbers[LENGTH]), 1e-9)
        if (traded := self._traded(numbers)) is not None:
            numbers[TRADED] = traded
        self._unseen = [name for name in self._unseen if name not in numbers]
        for name, limits in self._limits.items():
            if name in numbers:
                self._look(name, limits, numbers[name], state)

    def _at_first(self, name: str, value: float) -> float:
        """A curve's mean over the first steps, of which this may be one."""
        self._first[name] = [*self._first.get(name, []), value][:FIRST]
        return sum(self._first[name]) / len(self._first[name])

    def _traded(self, numbers: dict[str, float]) -> float | None:
        means = {
            label: weight * numbers[f"rewards/{label}/mean"]
            for label, weight in self._weights.items()
            if weight and f"rewards/{label}/mean" in numbers
        }
        if len(means) < 2 or "reward" not in numbers:
            return None
        rise = numbers["reward"] - self._at_first("reward", numbers["reward"])
        falls = [self._at_first(f"rewards/{label}", value) - value for label, value in means.items()]
        return max(falls) if rise > 0 else 0.0

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for name in self._unseen:
            self._worker.warn(f"monitors: no curve '{name}' was ever logged, so that nothing was watched")

    def _look(self, name: str, limits: Limits, value: float, state: TrainerState) -> None:
        too_low, too_high = limits.min is not None and value < limits.min, limits.max is not None and value > limits.max
        self._outside[name] = self._outside.get(name, 0) + 1 if too_low or too_high else 0
        if self._outside[name] != limits.patience:
            return
        hint = HINTS.get(name, Hint())
        said, why = (f"below {limits.min:g}", hint.low) if too_low else (f"above {limits.max:g}", hint.high)
        if limits.action == "stop" and state.global_step < state.max_steps:
            self.stopped_by = name
            said += f", which ends the stage before its {state.max_steps} steps"
        self._worker.warn(f"step {state.global_step}: {name} is {value:.3g}, {said}: {why}")


class BorderCallback(TrainerCallback):
    """Between generation batches, and at the end, checkpoints are saved, and monitors end the stage: so no half-used
    batch is lost. To be added behind the monitor, and before the callback that looks at `control.should_save`."""

    def __init__(self, trainer: Any, monitor: MonitorCallback) -> None:
        self._trainer, self._monitor, self._owed = trainer, monitor, False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        wanted = control.should_save or self._owed
        control.should_save = wanted and at_border(self._trainer, state)
        self._owed = wanted and not control.should_save
        self.on_log(args, state, control)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._monitor.stopped_by is not None and at_border(self._trainer, state):
            control.should_training_stop = control.should_save = True


def at_border(trainer: Any, state: TrainerState) -> bool:
    """Whether no step is to come that trains on what is generated: between two batches, or behind the last step."""
    every: int = trainer.args.steps_per_generation * trainer.num_iterations
    return bool(trainer._step % every == 0) or state.global_step >= state.max_steps
