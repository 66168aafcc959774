"""The guard of a stage that practises what a reward model likes: looks at held-out prompts every few steps.

guard.jsonl    one line per evaluation: what the rule is fed with (see `llmkit.preference.watch`)

The step with the best gold is a checkpoint of the trainer's, which resumes, rotates and loads it as its own best one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.artifacts.files import write_text
from llmkit.chat.ask import Answer
from llmkit.data.problems import Problem
from llmkit.generation.decode import accepts, evaluating
from llmkit.generation.engine import TransformersEngine
from llmkit.knowledge.store import read_rows
from llmkit.modeling.reward_model import padded
from llmkit.preference.looks import cost_of_look, cost_of_step
from llmkit.preference.watch import Evaluation, compression, distinct, is_degenerate
from llmkit.stages.common import Worker
from llmkit.stages.practice import Practice
from llmkit.stages.preferring import MODEL, Judge, PreferenceScorer
from llmkit.stages.prompting import ask_of, problem_ids
from llmkit.stages.solving import check_answers

FILE = "guard.jsonl"
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
        self._ids = [problem_ids(self._practice.tokenizer, problem) for problem in self._problems]
        self.evaluations: list[Evaluation] = []

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
        found = replace(found, seconds=round(time.monotonic() - started, 3))
        self.evaluations.append(found)
        if self._worker.is_main:
            write_text(self._path, "".join(f"{json.dumps(asdict(each))}\n" for each in self.evaluations))
        self._show(found)
        return found

    def _look(self, places: Sequence[int]) -> list[Looked]:
        problems, prompts_ids = [self._problems[place] for place in places], [self._ids[place] for place in places]
        answers = self._answers(problems, prompts_ids)
        prompts, texts = [one.prompt for one in problems], [one.text for one in answers]
        members_NM, values_N2 = self._scorer.by_model(problems, answers)
        proxy_N = values_N2.sum(1)
        asked = (prompts, texts, [one.columns for one in problems], [one.place for one in problems])
        gold_N = self._gold(*asked) if self._gold else proxy_N
        true_N = self._true(*asked) if self._true else None
        reference_N = self._log_probs(prompts_ids, answers)
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

    def work(self) -> tuple[float, float]:
        """What an optimizer step and a look cost; see `llmkit.preference.looks`."""
        args, policy = self._trainer.args, _size(self._model())
        readers = sum(_size(member) for models in self._scorer.models for member in models.members) / policy
        gold = sum(map(_size, getattr(self._gold, "members", ()))) / policy
        num_answers = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        options: dict[str, Any] = {"has_reference": args.beta != 0, "num_iterations": self._trainer.num_iterations}
        step = cost_of_step(num_answers, readers=readers, **options)
        return step, cost_of_look(len(self._problems), readers=readers + gold)

    def _answers(self, problems: Sequence[Problem], prompts_ids: Sequence[Sequence[int]]) -> list[Answer]:
        """Sampled at temperature 1, whatever training samples at: KL is one of the policy itself."""
        practice = self._practice
        engine = TransformersEngine(self._model(), practice.tokenizer, practice.batch_size)
        asks = [
            replace(ask_of(problem, f"guard {problem.key}", (1.0,)), ids=tuple(ids))
            for problem, ids in zip(problems, prompts_ids, strict=True)
        ]
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
        rows = [[*prompt, *answer.ids] for prompt, answer in zip(prompts, answers, strict=True)]
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
        found, size = [0.0] * len(rows), self._trainer.args.per_device_train_batch_size
        adapter_off = model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()
        with adapter_off, evaluating(model):
            # as many at a time as are trained on: they fit
            for start in range(0, len(rows), size):
                part = order[start : start + size]
                first = min(len(prompts[row]) for row in part) - 1
                chosen_NA = log_probs_from(model, [rows[row] for row in part], first, self._practice.tokenizer)
                for place, row in enumerate(part):
                    begin, end = len(prompts[row]) - 1 - first, len(rows[row]) - 1 - first
                    found[row] = float(chosen_NA[place, begin:end].double().sum())
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
            "too_likely": float(np.mean([value > high for value in likelihood])),
            "likelihood_low": low,
            "likelihood_high": high,
            "disagreement": float(np.mean([one.spread for one in looked])),
        }
        true = [one.true for one in looked if one.true is not None]
        if true:
            numbers["true"] = float(np.mean(true))
        return Evaluation(
            step=self._trainer.state.global_step,
            kl=max(0.0, float(np.mean([one.policy - one.reference for one in looked]))),
            proxy=[one.proxy for one in looked],
            gold=[one.gold for one in looked],
            degenerate=float(np.mean([one.is_degenerate for one in looked])),
            numbers=numbers,
            unlikely=float(np.mean([value < low for value in likelihood])),
            true=true,
        )

    def _show(self, found: Evaluation) -> None:
        shown = {"kl": found.kl, MODEL: float(np.mean(found.proxy))}
        shown |= {"degenerate": found.degenerate, "unlikely": found.unlikely}
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


def log_probs_from(
    model: Any, rows: Sequence[Sequence[int]], first: int, tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """(N, A): log-probabilities of the tokens behind place `first` of each row, padded on the right. The vocabulary is
    computed for these alone, where the model can."""
    ids_NT, mask_NT = (t.to(model.device) for t in padded(rows, tokenizer.pad_token_id))
    width = ids_NT.shape[1] - first
    extra = {"logits_to_keep": width} if accepts(model, "logits_to_keep") else {}
    logits_NAV = model(input_ids=ids_NT, attention_mask=mask_NT, use_cache=False, **extra).logits[:, -width:-1]
    ids_NA = ids_NT[:, first + 1 :]
    # row by row: in float32 all logits together are the largest thing of a look
    return torch.stack([_log_probs_of(ids_A, logits_AV) for ids_A, logits_AV in zip(ids_NA, logits_NAV, strict=True)])


def _log_probs_of(ids_A: torch.Tensor, logits_AV: torch.Tensor) -> torch.Tensor:
    logits_AV = logits_AV.float()
    log_probs_A: torch.Tensor = logits_AV.gather(-1, ids_A[:, None])[:, 0] - logits_AV.logsumexp(-1)
    return log_probs_A


def _size(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
