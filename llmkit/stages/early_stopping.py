"""Stops by what training is for: right answers to what the model knows, refusals of what it does not.

The `watched` questions of a `refusals` stage, whose entities are in no training row, are asked greedily every few
steps. The weights with the best balance are those that the stage keeps; they are a checkpoint of the trainer's, which
resumes, rotates and loads them as its own best ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from llmkit.artifacts.manifest import read_manifest
from llmkit.artifacts.rundir import StageDir
from llmkit.chat.ask import Ask
from llmkit.errors import DataError, UserError
from llmkit.generation.engine import TransformersEngine
from llmkit.knowledge.judge import Item, RulesJudge
from llmkit.knowledge.store import Row, read_rows
from llmkit.knowledge.training_rows import WATCHED
from llmkit.recipe.knowledge import EarlyStoppingSpec, RefusalTexts
from llmkit.recipe.stages import TunedStage
from llmkit.stages.common import Worker
from llmkit.stages.heldout import is_sharded

BALANCE, RIGHT, OVER_REFUSED, REFUSED = "balance", "known_right", "known_refused", "unknown_refused"
BATCH_SIZE = 128


class EarlyStopping(TrainerCallback):
    """Measures every `every` steps. To be added before the callback that looks at `control.should_save`."""

    def __init__(self, worker: Worker, trainer: Trainer, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises DataError without questions on both sides, UserError where weights are sharded."""
        stage = worker.file.stage
        assert isinstance(stage, TunedStage)
        assert stage.early_stopping is not None
        self._spec, self._worker, self._tokenizer = stage.early_stopping, worker, tokenizer
        where = f"stage '{stage.name}': early_stopping"
        if is_sharded(trainer):
            raise UserError(where, "asks a model whose weights are sharded", "use zero2 or ddp, or leave it out")
        folder = Path(worker.file.data_stages[self._spec.from_])
        self._questions = watched(self._spec, folder, where)
        made = read_manifest(folder)
        assert made is not None
        self._refusals = RefusalTexts.model_validate(made.settings["refusals"]).wordings
        # set here, because the arguments accept it only together with a loss to select by
        trainer.args.load_best_model_at_end = True

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: Any,
    ) -> None:
        if state.global_step % self._spec.every and state.global_step != state.max_steps:
            return
        assert model is not None
        shares = balance(model, self._tokenizer, self._questions, self._spec.max_new_tokens, self._refusals)
        self._worker.log("watch", state.global_step, state.max_steps, **shares)
        if state.is_world_process_zero:
            line = "  ".join(f"{name} {share:.1%}" for name, share in shares.items())
            print(f"step {state.global_step}/{state.max_steps}  {line}", flush=True)
        if state.best_metric is None or shares[BALANCE] > state.best_metric:
            state.best_metric, state.best_global_step = shares[BALANCE], state.global_step
            state.best_model_checkpoint = str(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            control.should_save = True
        elif state.global_step - (state.best_global_step or 0) >= self._spec.patience * self._spec.every:
            control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero and state.best_metric is not None:
            print(f"keeping step {state.best_global_step}: {BALANCE} {state.best_metric:.1%}", flush=True)


def watched(spec: EarlyStoppingSpec, folder: Path, where: str) -> list[Row]:
    """Up to `num_questions` questions, half of each side, always the same. Raises DataError where a side is empty."""
    path = StageDir(folder).data / f"{WATCHED}.jsonl"
    rows = list(read_rows(path)) if path.is_file() else []
    sides = [[row for row in rows if row["refused"] is refused] for refused in (False, True)]
    if not all(sides):
        what = f"'{spec.from_}' set {len(sides[0])} known and {len(sides[1])} unknown questions aside"
        raise DataError(where, what, f"raise 'watched' in '{spec.from_}'")
    return [row for side in sides for row in random.Random(0).sample(side, min(len(side), spec.num_questions // 2))]


def balance(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Row],
    max_new_tokens: int,
    refusals: Sequence[str] = (),
) -> dict[str, float]:
    """Shares of known questions that are answered right, of those that are refused, of unknown ones that are refused,
    and the mean of the first and the last. Every process of a launch calls this; they share the questions out.

    Args:
        refusals: in wordings of one's own.
    """
    state = PartialState()
    mine = questions[state.process_index :: state.num_processes]
    asks = [Ask(({"role": "user", "content": row["question"]},), row["question"]) for row in mine]
    engine = TransformersEngine(model, tokenizer, BATCH_SIZE)
    texts = [answers[0].text for answers in engine.answer(asks, max_new_tokens=max_new_tokens)]
    items = [Item(row["question"], tuple(row["answers"]), text) for row, text in zip(mine, texts, strict=True)]
    verdicts = RulesJudge(refusals).judge(items)
    found: list[tuple[bool, str]] = gather_object([(row["refused"], v) for row, v in zip(mine, verdicts, strict=True)])
    known = [verdict for refused, verdict in found if not refused]
    unknown = [verdict for refused, verdict in found if refused]
    shares = {
        RIGHT: known.count("correct") / len(known),
        OVER_REFUSED: known.count("refused") / len(known),
        REFUSED: unknown.count("refused") / len(unknown),
    }
    return {BALANCE: (shares[RIGHT] + shares[REFUSED]) / 2, **shares}
