"""Accuracy on held-out problems before, while and after a stage practises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmkit.artifacts.manifest import Curve
from llmkit.data.problems import Problem, Problems
from llmkit.intervals import means_of
from llmkit.recipe.practice import MeasureSpec
from llmkit.stages.common import Worker
from llmkit.stages.practice import Practice
from llmkit.stages.solving import Attempt, attempt_together, numbers_of

SHOWN = ("accuracy", "accuracy_low", "accuracy_high", "num_tokens", "answered", "truncated")


class Measured:
    """Numbers of each held-out set, at every call: `accuracy` of greedy answers, and with `num_samples` pass@k and
    maj@k of sampled ones, each with `_low` and `_high`, its 95 % interval over problems.

    Args:
        is_sharded: weights lie in parts on several processes, which llmkit's decoding cannot use: nothing is measured.
    """

    def __init__(
        self,
        worker: Worker,
        trainer: Trainer,
        practice: Practice,
        heldout: dict[str, Problems],
        spec: MeasureSpec,
        *,
        is_sharded: bool,
    ) -> None:
        self._worker, self._trainer, self._practice = worker, trainer, practice
        self._heldout, self._spec = ({} if is_sharded else heldout), spec
        if is_sharded and heldout:
            worker.warn("held-out problems are not measured while weights are sharded; the evaluation after it does")

    def __call__(self) -> dict[str, dict[str, float]]:
        temperatures = (0.0, *(self._practice.temperature for _ in range(self._spec.num_samples)))
        return self._all(None, temperatures)

    def quick(self) -> dict[str, dict[str, float]]:
        """Greedy answers to the first `num_problems` of each set."""
        return self._all(self._spec.num_problems, (0.0,))

    def _all(self, num: int | None, temperatures: Sequence[float]) -> dict[str, dict[str, float]]:
        attempts = {
            name: self._attempts(name, list(islice(problems, num)), temperatures)
            for name, problems in self._heldout.items()
        }
        found = {name: _numbers(made) for name, made in attempts.items()}
        # every point of a curve is of the same problems
        first = self._spec.num_problems
        self._log({n: found[n] if len(made) <= first else _numbers(made[:first]) for n, made in attempts.items()})
        return found

    def _attempts(self, name: str, problems: Sequence[Problem], temperatures: Sequence[float]) -> list[list[Attempt]]:
        practice = self._practice
        model = self._trainer.accelerator.unwrap_model(self._trainer.model_wrapped)
        engine = practice.engine(model)
        return attempt_together(
            PartialState(),
            engine,
            practice.scorer,
            problems,
            temperatures,
            max_new_tokens=practice.max_new_tokens,
            top_p=practice.top_p,
            seed=practice.seed,
            on_progress=lambda done, total: self._worker.log(f"measure {name}", done, total),
        )

    def _log(self, found: dict[str, dict[str, float]]) -> None:
        state = self._trainer.state
        for name, numbers in found.items():
            shown = {f"{name}/{metric}": numbers[metric] for metric in SHOWN if metric in numbers}
            self._worker.log("measure", state.global_step, state.max_steps, **shown)
            if self._worker.is_main:
                line = "  ".join(f"{key} {value:.3g}" for key, value in shown.items())
                print(f"step {state.global_step}  {line}", flush=True)


def _numbers(attempts: Sequence[Sequence[Attempt]]) -> dict[str, float]:
    return {"num_problems": float(len(attempts)), **means_of(numbers_of(attempts))}


class MeasureCallback(TrainerCallback):
    """Measures every `every` of the steps: accuracy and length of the answers against the step."""

    def __init__(self, measured: Measured, every: float) -> None:
        self._measured, self._every = measured, every

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        stride = max(1, round(self._every * state.max_steps))
        if state.global_step % stride == 0 and state.global_step != state.max_steps:
            self._measured.quick()


def curves(metrics: Path) -> list[Curve]:
    """Of metrics.jsonl: each measured number against the step, the last word for each step. A line that a kill has
    cut short is passed over."""
    points: dict[str, dict[int, float]] = {}
    with metrics.open(encoding="utf-8") as lines:
        for text in lines:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if line.get("phase") == "measure":
                for key, value in line.items():
                    if "/" in key:
                        points.setdefault(key, {})[int(line["step"])] = float(value)
    return [Curve(name=key, x="step", y=key, points=sorted(found.items())) for key, found in sorted(points.items())]
