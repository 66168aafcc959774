"""When the guard of a stage looks, which step it keeps, and when it ends the stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmkit.errors import RunError
from llmkit.preference.looks import percent, share, stride_of
from llmkit.preference.watch import Evaluation, Rule, Verdict, verdict
from llmkit.recipe.preference import GuardSpec
from llmkit.stages.callbacks import COMPLETE
from llmkit.stages.common import Worker
from llmkit.stages.guarding import Guard
from llmkit.stages.monitors import at_border


class GuardCallback(TrainerCallback):
    """Evaluates every few steps, between generation batches, and at the end; keeps the step with the best gold and
    stops training as the rule says. To be added before the callback that looks at `control.should_save`.

    Attributes:
        reason: why it ended the stage, in words, also where an earlier start did; empty: it did not.
    """

    def __init__(self, worker: Worker, trainer: Any, guard: Guard, spec: GuardSpec | None, every: float) -> None:
        self._worker, self._trainer, self._guard, self._spec, self._every = worker, trainer, guard, spec, every
        self.reason = ""
        self._stride = 1
        if spec is not None:
            # set here, because the arguments accept it only together with a loss to select by
            trainer.args.load_best_model_at_end = True

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._guard.resume(state.global_step)
        self._stride = self._stride_of(state.max_steps)
        if not self._guard.evaluations:
            self._guard()
        if self._spec is None:
            return
        found = self.verdict()
        # what was evaluated decides as before, also behind a kill between the last checkpoint and the manifest
        self.reason = found.reason
        best = self.best(found)
        kept = self._keep(args, state, best)
        if (kept / COMPLETE).is_file():
            return
        if state.global_step:
            cure = f"remove the checkpoints in {args.output_dir}: the stage begins anew"
            raise RunError(str(kept), f"is not whole, and step {best.step} is the best so far", cure)
        # so that a stage that only gets worse ends where it began
        self._trainer._save_checkpoint(self._trainer.model, trial=None)
        self._trainer.callback_handler.on_save(args, state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        is_due = state.global_step >= min(self._guard.evaluations[-1].step + self._stride, state.max_steps)
        if not (is_due and at_border(self._trainer, state)):
            return
        self._guard()
        if self._spec is None:
            return
        found = self.verdict()
        best = self.best(found)
        if best.step == state.global_step:
            control.should_save = True
        if found.action == "stop":
            self.reason = found.reason
            self._worker.warn(f"step {state.global_step}: stopped: {found.reason}")
            # saved, so that a stage that is killed behind it does not train on
            control.should_training_stop = control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The best before may be removed only now that the new one is whole."""
        if self._spec is not None and (best := self.best()).step == state.global_step:
            self._keep(args, state, best)

    def _stride_of(self, num_steps: int) -> int:
        """Optimizer steps between two looks."""
        if self._spec is None:
            return max(1, round(self._every * num_steps))
        (step, look), fewest = self._guard.work(), self._spec.patience + 2
        stride = stride_of(self._every, self._spec.max_share, num_steps, step, look, fewest)
        part = share(num_steps, stride, step, look)
        if part > self._spec.max_share:
            cure = "set 'guard.num_prompts' lower"
            self._worker.warn(f"the guard is about {percent(part)} of the work, more than 'max_share' allows: {cure}")
        return stride

    def _keep(self, args: TrainingArguments, state: TrainerState, best: Evaluation) -> Path:
        """What the trainer loads at its end. Set anew after a resume: the run may have another folder by then."""
        kept = Path(args.output_dir) / f"checkpoint-{best.step}"
        state.best_metric, state.best_global_step = float(np.mean(best.gold)), best.step
        state.best_model_checkpoint = str(kept)
        return kept

    def verdict(self) -> Verdict:
        """Of what was evaluated so far."""
        assert self._spec is not None
        names = ("patience", "confidence", "max_kl", "max_degenerate", "max_unlikely", "max_idle")
        return verdict(self._guard.evaluations, Rule(**{name: getattr(self._spec, name) for name in names}))

    def best(self, found: Verdict | None = None) -> Evaluation:
        """The evaluation whose step is kept. Args: found: the verdict; None: of what was evaluated so far."""
        return self._guard.evaluations[(found or self.verdict()).best]
