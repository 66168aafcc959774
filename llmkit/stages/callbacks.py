"""Trainer callbacks: progress lines, and refusing to go on with broken numbers."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmkit.artifacts.files import read_json, write_json
from llmkit.errors import UserError
from llmkit.stages.common import Worker

COMPLETE = ".complete"
SHOWN = ("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "rewards/accuracies", "rewards/margins", "epoch")
NAN_CURE = "lower 'learning_rate', set 'max_grad_norm', or use 'bf16: false'; the last good checkpoint is kept"


def numbers_of_step(logs: dict[str, Any] | None) -> dict[str, float]:
    """Of what the trainer logs: the numbers of a training step, empty for all else (measures, the last summary).

    A reward that is for none of the step's rows has no mean.
    """
    numbers = {k: float(v) for k, v in (logs or {}).items() if isinstance(v, (int, float))}
    some = {k: v for k, v in numbers.items() if not (k.startswith("rewards/") and math.isnan(v))}
    return some if "loss" in some else {}


class ProgressCallback(TrainerCallback):
    """Writes what the trainer logs to metrics.jsonl; stops at the first loss that is not a number."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.worker.log("train", state.global_step, state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        numbers = numbers_of_step(logs)
        # TRL counts the columns of a batch of packed rows, not its tokens
        numbers.pop("num_tokens", None)
        if not numbers:
            return
        self.worker.log("train", state.global_step, state.max_steps, **numbers)
        if state.is_world_process_zero:
            line = "  ".join(f"{key} {numbers[key]:.4g}" for key in SHOWN if key in numbers)
            print(f"step {state.global_step}/{state.max_steps}  {line}", flush=True)
        bad = [key for key in ("loss", "grad_norm") if not math.isfinite(numbers.get(key, 0.0))]
        if bad:
            raise UserError(f"step {state.global_step}", f"{bad[0]} is {numbers[bad[0]]}", NAN_CURE)


class Saved(BaseModel):
    """What a checkpoint's mark says of the stage so far, over all its starts."""

    train_seconds: float = 0.0
    warnings: list[str] = []
    is_last: bool = False
    """Whether training ended with it."""


class CheckpointCallback(TrainerCallback):
    """Saves only finite weights, and marks a checkpoint whole once all of it is on disk.

    Args:
        before: of the checkpoint from which this start goes on.
    """

    def __init__(self, worker: Worker, before: Saved) -> None:
        self._worker, self._before, self._started = worker, before, time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._started = time.monotonic()
        if self._before.is_last:
            control.should_training_stop = True

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **_: Any,
    ) -> None:
        if control.should_save and model is not None:
            broken = next((n for n, p in model.named_parameters() if p.requires_grad and not p.isfinite().all()), None)
            if broken:
                raise UserError(f"step {state.global_step}", f"weight {broken} is not finite", NAN_CURE)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            saved = Saved(
                train_seconds=self._before.train_seconds + time.monotonic() - self._started,
                warnings=self._worker.warnings,
                is_last=control.should_training_stop,
            )
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, saved.model_dump())


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; one that was cut off by a kill does not count."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def read_mark(checkpoint: Path | None) -> Saved:
    """What a whole checkpoint says of the stage; of a stage without one, that nothing was done."""
    return Saved() if checkpoint is None else Saved.model_validate(read_json(checkpoint / COMPLETE))
