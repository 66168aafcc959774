"""The guard of a stage that practises what a reward model likes: looks at held-out prompts every few steps.

guard.jsonl    one line per evaluation: what the rule is fed with (see `llmkit.preference.watch`)

The step with the best gold is a checkpoint of the trainer's, which resumes, rotates and loads it as its own best one.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmkit.artifacts.files import write_text
from llmkit.chat.ask import Answer
from llmkit.data.problems import Problem
from llmkit.generation.engine import TransformersEngine
from llmkit.knowledge.store import read_rows
from llmkit.modeling.reward_model import padded
from llmkit.preference.watch import Evaluation, Verdict, is_degenerate, verdict
from llmkit.recipe.preference import GuardSpec
from llmkit.stages.common import Worker
from llmkit.stages.practice import Practice
from llmkit.stages.preferring import MODEL, Judge, PreferenceScorer
from llmkit.stages.solving import ask_of, check_answers, problem_ids

FILE = "guard.jsonl"
BATCH = 64
"""Answers whose log-probabilities are computed at a time."""
TAILS = (0.005, 0.995)
"""Quantiles of the first answers' likelihood outside of which an answer is out of the ordinary."""


@dataclass(frozen=True)
class Looked:
    """What one answer was found to be."""

    place: int
    proxy: float
    gold: float
    true: float | None
    policy: float
    """Log-probability under the policy, nats."""
    reference: float
    """The same under the model that training started from."""
    num_tokens: int
    text: str
    is_degenerate: bool
    spread: float
    """Deviation of the reward model's members' scores."""


class Guard:
    """Evaluates the policy on the same prompts every time, with the same random numbers.

    Args:
        problems: held-out prompts.
        gold: what the rule decides by; None: the guard is off, and only looks.
        true: a measure for pictures; nothing is decided by it.
        reference: the model that training started from; None: the policy without its adapter.
    """

    def __init__(
        self,
        worker: Worker,
        trainer: Any,
        problems: Sequence[Problem],
        scorer: PreferenceScorer,
        gold: Judge | None,
        true: Judge | None,
        reference: PreTrainedModel | None,
    ) -> None:
        self._worker, self._trainer, self._problems = worker, trainer, list(problems)
        self._scorer, self._gold, self._true, self._reference = scorer, gold, true, reference
        self._path = worker.dir.path / FILE
        self.evaluations: list[Evaluation] = []
        self.seconds = 0.0
        """That evaluations have taken since this start."""

    def resume(self, step: int) -> None:
        """Takes up what was evaluated up to a step; what was evaluated behind it is forgotten."""
        rows = list(read_rows(self._path)) if self._path.is_file() else []
        self.evaluations = [Evaluation(**row) for row in rows if row["step"] <= step]

    def __call__(self) -> Evaluation:
        """Every process calls this; all get the same."""
        state, started = PartialState(), time.monotonic()
        mine = list(range(len(self._problems)))[state.process_index :: state.num_processes]
        every: list[Looked] = gather_object(self._look(mine))
        found = self._evaluation(sorted(every, key=lambda one: one.place))
        self.evaluations.append(found)
        if self._worker.is_main:
            write_text(self._path, "".join(f"{json.dumps(asdict(each))}\n" for each in self.evaluations))
        self._show(found)
        self.seconds += time.monotonic() - started
        return found

    def _look(self, places: Sequence[int]) -> list[Looked]:
        problems = [self._problems[place] for place in places]
        answers = self._answers(problems)
        prompts, texts = [one.prompt for one in problems], [one.text for one in answers]
        members_NM, values_N2 = self._scorer.by_model(problems, answers)
        proxy_N = values_N2.sum(1)
        gold_N = self._gold(prompts, texts) if self._gold else proxy_N
        true_N = self._true(prompts, texts) if self._true else None
        ids = [problem_ids(self._practice.tokenizer, problem) for problem in problems]
        reference_N = self._log_probs(ids, answers)
        return [
            Looked(
                place=place,
                proxy=float(proxy_N[i]),
                gold=float(gold_N[i]),
                true=None if true_N is None else float(true_N[i]),
                policy=float(answers[i].logprob or 0.0),
                reference=reference_N[i],
                num_tokens=len(answers[i].ids),
                text=texts[i],
                is_degenerate=is_degenerate(texts[i], problems[i].asked),
                spread=float(members_NM[i].std()),
            )
            for i, place in enumerate(places)
        ]

    @property
    def _practice(self) -> Practice:
        practice: Practice = self._trainer.practice
        return practice

    def _model(self) -> Any:
        return self._trainer.accelerator.unwrap_model(self._trainer.model_wrapped)

    def _answers(self, problems: Sequence[Problem]) -> list[Answer]:
        """Sampled at temperature 1, whatever training samples at: KL is one of the policy itself."""
        practice = self._practice
        engine = TransformersEngine(self._model(), practice.tokenizer, max(practice.batch_size, BATCH))
        asks = [ask_of(problem, f"guard {problem.key}", (1.0,)) for problem in problems]
        found = []
        for problem, given in zip(
            problems, engine.answer(asks, max_new_tokens=practice.max_new_tokens, seed=practice.seed), strict=True
        ):
            check_answers(problem, given)
            found.append(given[0])
        return found

    @torch.no_grad()
    def _log_probs(self, prompts: Sequence[Sequence[int]], answers: Sequence[Answer]) -> list[float]:
        """Of every answer under the model that training started from, nats."""
        model = self._reference if self._reference is not None else self._model()
        was_training = model.training
        model.eval()
        found: list[float] = []
        adapter_off = model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()
        with adapter_off:
            for start in range(0, len(answers), BATCH):
                part = range(start, min(start + BATCH, len(answers)))
                rows = [[*prompts[i], *answers[i].ids] for i in part]
                ids_NT, mask_NT = (t.to(model.device) for t in padded(rows, self._practice.tokenizer.pad_token_id))
                logits_NTV = model(input_ids=ids_NT, attention_mask=mask_NT, use_cache=False).logits[:, :-1].float()
                chosen_NT = torch.log_softmax(logits_NTV, -1).gather(-1, ids_NT[:, 1:, None])[..., 0]
                for row, i in enumerate(part):
                    first, last = len(prompts[i]) - 1, len(prompts[i]) + len(answers[i].ids) - 1
                    found.append(float(chosen_NT[row, first:last].double().sum()))
        model.train(was_training)
        return found

    def _evaluation(self, looked: Sequence[Looked]) -> Evaluation:
        lengths = [max(one.num_tokens, 1) for one in looked]
        likelihood = [one.reference / size for one, size in zip(looked, lengths, strict=True)]
        if self.evaluations:
            low, high = self.evaluations[0].numbers["likelihood_low"], self.evaluations[0].numbers["likelihood_high"]
        else:
            low, high = (float(value) for value in np.quantile(likelihood, TAILS))
        texts = [one.text for one in looked]
        numbers = {
            "tokens": float(np.mean(lengths)),
            "distinct_2": distinct(texts, 2),
            "compression": compression(texts),
            "unlikely": float(np.mean([value < low or value > high for value in likelihood])),
            "likelihood_low": low,
            "likelihood_high": high,
            "disagreement": float(np.mean([one.spread for one in looked])),
        }
        if self._true is not None:
            numbers["true"] = float(np.mean([one.true for one in looked if one.true is not None]))
        return Evaluation(
            step=self._trainer.state.global_step,
            kl=max(0.0, float(np.mean([one.policy - one.reference for one in looked]))),
            proxy=[one.proxy for one in looked],
            gold=[one.gold for one in looked],
            degenerate=float(np.mean([one.is_degenerate for one in looked])),
            numbers=numbers,
        )

    def _show(self, found: Evaluation) -> None:
        shown = {"kl": found.kl, MODEL: float(np.mean(found.proxy)), "degenerate": found.degenerate}
        if self._gold is not None:
            shown["gold"] = float(np.mean(found.gold))
        shown |= {key: value for key, value in found.numbers.items() if not key.startswith("likelihood")}
        state = self._trainer.state
        named = {f"guard/{key}": round(value, 5) for key, value in shown.items()}
        self._worker.log("measure", state.global_step, state.max_steps, **named)
        if self._worker.is_main:
            print(
                f"step {state.global_step}  " + "  ".join(f"{key} {value:.3g}" for key, value in shown.items()),
                flush=True,
            )


def distinct(texts: Sequence[str], size: int) -> float:
    """Share of runs of `size` words over all texts that are different (Li et al. 2016, arXiv 1510.03055)."""
    runs = [
        tuple(words[i : i + size]) for words in (text.split() for text in texts) for i in range(len(words) - size + 1)
    ]
    return len(set(runs)) / len(runs) if runs else 0.0


def compression(texts: Sequence[str]) -> float:
    """Bytes of all texts over bytes that zlib makes of them: high where they repeat themselves or each other."""
    data = "\n".join(texts).encode("utf-8", "replace")
    return len(data) / max(len(zlib.compress(data)), 1)


class GuardCallback(TrainerCallback):
    """Evaluates every few steps, between generation batches; keeps the step with the best gold and stops training as
    the rule says. To be added before the callback that looks at `control.should_save`."""

    def __init__(self, worker: Worker, trainer: Any, guard: Guard, spec: GuardSpec | None, every: float) -> None:
        self._worker, self._trainer, self._guard, self._spec, self._every = worker, trainer, guard, spec, every
        self.reason = ""
        if spec is not None:
            # set here, because the arguments accept it only together with a loss to select by
            trainer.args.load_best_model_at_end = True

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._guard.resume(state.global_step)
        if not self._guard.evaluations:
            self._guard()
        if self._spec is None:
            return
        best = self._guard.evaluations[self.verdict().best]
        self._keep(args, state, best)
        if best.step == 0 and not Path(str(state.best_model_checkpoint)).is_dir():
            # so that a stage that only gets worse ends where it began
            self._trainer._save_checkpoint(self._trainer.model, trial=None)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        unit = self._trainer.args.steps_per_generation * self._trainer.num_iterations
        stride = max(1, round(self._every * state.max_steps / unit)) * unit
        is_last = state.global_step >= state.max_steps
        if self._trainer._step % unit or (state.global_step % stride and not is_last):
            return
        self._guard()
        if self._spec is None:
            return
        found = self.verdict()
        best = self._guard.evaluations[found.best]
        if best.step == state.global_step:
            self._keep(args, state, best)
            control.should_save = True
        if found.action == "stop":
            self.reason = found.reason
            self._worker.warn(f"step {state.global_step}: stopped: {found.reason}")
            # saved, so that a stage that is killed behind it does not train on
            control.should_training_stop = control.should_save = True

    def _keep(self, args: TrainingArguments, state: TrainerState, best: Evaluation) -> None:
        """What the trainer loads at its end. Set anew after a resume: the run may have another folder by then."""
        state.best_metric, state.best_global_step = float(np.mean(best.gold)), best.step
        state.best_model_checkpoint = str(Path(args.output_dir) / f"checkpoint-{best.step}")

    def verdict(self) -> Verdict:
        """Of what was evaluated so far."""
        assert self._spec is not None
        return verdict(
            self._guard.evaluations,
            patience=self._spec.patience,
            confidence=self._spec.confidence,
            max_kl=self._spec.max_kl,
            max_degenerate=self._spec.max_degenerate,
        )
