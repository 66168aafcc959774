"""What TRL's trainers that sample lack, laid around them: prompts from a stream that resumes exactly, groups without a
signal replaced by groups of other prompts (DAPO, arXiv 2503.14476, section 3.2), checked rewards, kept rollouts.

A mixin in front of `GRPOTrainer` and `RLOOTrainer`. TRL's own sampler only counts the steps; the rows that it gives are
replaced by those of `PromptStream`, sampled and scored here, and handed to TRL's advantages and loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather, gather_object
from transformers import PreTrainedTokenizerBase

from llmkit.artifacts.files import read_json, write_json
from llmkit.chat.ask import Answer, Engine
from llmkit.chat.calls import answer_text
from llmkit.data.problems import Problem, Problems
from llmkit.errors import RunError
from llmkit.generation.engine import TransformersEngine
from llmkit.stages.at_hand import schemas_of, with_tools
from llmkit.stages.monitors import MonitorCallback
from llmkit.stages.prompting import ask_of, problem_ids
from llmkit.stages.prompts import PromptStream
from llmkit.stages.rollouts import Rollouts
from llmkit.stages.scoring import Scorer
from llmkit.tools.toolbox import Toolbox

STATE = "practice.json"
"""Beside the trainer's own files in every checkpoint."""
SAME = 1e-6
"""Rewards of a group that differ by no more carry no signal."""


@dataclass
class Practice:
    """All that the trainers below are given besides TRL's arguments.

    Attributes:
        resample: rounds in which groups without a signal are replaced.
        screen: answers after which a group without a signal is given up while there is a round left; None: all.
        batch_size: answers that are written at a time on this process. 0: TRL writes them.
        num_tokens: sampled so far, over all processes, those of replaced groups included.
        num_tried: tokens that `sampling.filter` sampled before.
        num_groups, num_useful: sampled so far, and those of them that carried a signal.
    """

    problems: Problems
    stream: PromptStream
    scorer: Scorer
    tokenizer: PreTrainedTokenizerBase
    rollouts: Rollouts
    seed: int
    max_new_tokens: int
    temperature: float
    top_p: float
    resample: int
    screen: int | None
    batch_size: int
    monitor: MonitorCallback
    tools: Toolbox | None = None
    max_calls: int = 0
    num_tokens: int = 0
    num_tried: int = 0
    num_groups: int = 0
    num_useful: int = 0

    def engine(self, model: Any) -> Engine:
        """Runs a model as this stage has it answer."""
        own = TransformersEngine(model, self.tokenizer, self.batch_size)
        return with_tools(own, self.tokenizer, self.tools, self.max_calls)

    def prompt_ids(self, problem: Problem) -> list[int]:
        """The problem as the model gets it."""
        return problem_ids(self.tokenizer, problem, schemas_of(self.tools))

    def state_dict(self) -> dict[str, Any]:
        counts = {"num_tokens": self.num_tokens, "num_groups": self.num_groups, "num_useful": self.num_useful}
        return {**counts, "stream": self.stream.state_dict(), "monitor": self.monitor.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_tokens, self.num_groups, self.num_useful = (
            state[name] for name in ("num_tokens", "num_groups", "num_useful")
        )
        self.stream.load_state_dict(state["stream"])
        self.monitor.load_state_dict(state["monitor"])


@dataclass
class Group:
    """One problem with its sampled answers."""

    number: int
    problem: Problem
    draw: int
    """How many problems had been drawn before it: with the problem it fixes the random numbers."""
    answers: list[Answer] = field(default_factory=list)
    logprobs: list[list[float]] | None = None
    """Of every answer's tokens, from an engine with weights of its own (vLLM)."""
    values_GF: np.ndarray = field(default_factory=lambda: np.empty(0))
    totals_G: np.ndarray = field(default_factory=lambda: np.empty(0))
    is_right_G: np.ndarray = field(default_factory=lambda: np.empty(0))

    def add(self, answers: list[Answer], values_GF: np.ndarray, totals_G: np.ndarray, is_right_G: np.ndarray) -> None:
        """More answers with their scores."""
        first = not self.answers
        self.answers = [*self.answers, *answers]
        self.values_GF = values_GF if first else np.concatenate([self.values_GF, values_GF])
        self.totals_G = np.concatenate([self.totals_G, totals_G])
        self.is_right_G = np.concatenate([self.is_right_G, is_right_G])

    def share(self, first: int | None) -> float:
        """Of its first so many answers the share that is right. None: of all."""
        return float(self.is_right_G[:first].mean())


class PracticeMixin:
    """In front of one of TRL's trainers, which is constructed with `practice=`."""

    returns_logprobs = True
    """Whether this trainer's `_generate_single_turn` returns log-probabilities beside the ids."""

    def __init__(self, *args: Any, practice: Practice, **kwargs: Any) -> None:
        self.practice = practice
        self._groups: list[Group] = []
        super().__init__(*args, **kwargs)
        if practice.tools is not None:
            self.rollout_func = self._conversations

    # --- one generation batch -------------------------------------------------------------------------------------

    def _generate_and_score_completions(self: Any, inputs: list[Any]) -> Any:
        self._groups = self._practise(len(inputs) // self.num_generations)
        rows = [{"prompt": group.problem.prompt} for group in self._groups for _ in group.answers]
        output = super()._generate_and_score_completions(rows)  # type: ignore[misc]
        self._keep(output["advantages"])
        return output

    def _tokenize_prompts(self: Any, prompts: Sequence[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        groups = self._groups
        found = [self.practice.prompt_ids(group.problem) for group in groups]
        return [ids for ids, group in zip(found, groups, strict=True) for _ in group.answers], None, {}

    def _generate_single_turn(self: Any, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        ids = [list(answer.ids) for group in self._groups for answer in group.answers]
        logprobs = [values for group in self._groups for values in group.logprobs or []]
        return (ids, logprobs or None) if self.returns_logprobs else ids

    def _conversations(self: Any, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """As TRL's `rollout_func`: with `env_mask` 0 for what the model was told."""
        (ids, _, _), answers = self._tokenize_prompts(prompts), [a for group in self._groups for a in group.answers]
        return {
            "prompt_ids": ids,
            "completion_ids": [list(answer.ids) for answer in answers],
            "env_mask": [[int(own) for own in answer.own] for answer in answers],
            "logprobs": None,
        }

    def _calculate_rewards(self: Any, *args: Any) -> torch.Tensor:
        values_NF = np.concatenate([group.values_GF for group in self._groups])
        own = torch.tensor(values_NF, dtype=torch.float32, device=self.accelerator.device)
        whole: torch.Tensor = gather(own)
        return whole

    # --- sampling -------------------------------------------------------------------------------------------------

    def _practise(self: Any, num_groups: int) -> list[Group]:
        """This process's groups. All processes draw the same problems, and each takes its own part of them."""
        practice, world = self.practice, self.accelerator.num_processes
        correctness = practice.scorer.correctness
        first = num_groups * self.accelerator.process_index
        if practice.tools is not None:
            practice.tools.failures.taken()  # of what was evaluated before
        slots: list[Group] = self._draw(num_groups * world)[first : first + num_groups]
        todo = list(range(num_groups))
        for round_ in range(practice.resample + 1):
            self._sample([slots[slot] for slot in todo], may_replace=round_ < practice.resample)
            found = [
                # of the first answers alone, which every group has: else the mean share would depend on the screen
                (
                    first + slot,
                    slots[slot].number,
                    slots[slot].share(practice.screen),
                    _is_useful(slots[slot], correctness),
                )
                for slot in todo
            ]
            tokens = sum(answer.num_tokens or 0 for slot in todo for answer in slots[slot].answers)
            every = gather_object(found)
            practice.num_tokens += sum(gather_object([tokens]))
            every.sort()
            for _, number, share, _ in every:
                practice.stream.score(number, share)
            useless = [place for place, _, _, is_useful in every if not is_useful]
            practice.num_groups += len(every)
            practice.num_useful += len(every) - len(useless)
            if round_ == 0:
                self._log_metric("practice/useful_groups", 1 - len(useless) / len(every))
            if round_ == practice.resample or not useless:
                break
            drawn = dict(zip(useless, self._draw(len(useless)), strict=True))
            mine = {place - first: group for place, group in drawn.items() if first <= place < first + num_groups}
            todo = sorted(mine)
            for slot, group in mine.items():
                slots[slot] = group
        self._log_metric("practice/sampled_tokens", float(practice.num_tokens + practice.num_tried))
        self._log_calls()
        if practice.stream.levels:
            self._log_metric("practice/open_levels", float(practice.stream.num_open))
        return slots

    def _log_calls(self: Any) -> None:
        """Of each tool how often it was called while these answers were written, and how much of that failed."""
        if (tools := self.practice.tools) is None:
            return
        counts = gather_object([tools.failures.taken()])
        for name in tools.tools:
            num_made, num_failed = (sum(each[name] for each in part) for part in zip(*counts, strict=True))
            self._log_metric(f"tools/{name}/calls", float(num_made))
            self._log_metric(f"tools/{name}/failed", num_failed / num_made if num_made else 0.0)

    def _draw(self: Any, count: int) -> list[Group]:
        stream, problems = self.practice.stream, self.practice.problems
        start = stream.num_drawn
        return [Group(number, problems[number], start + place) for place, number in enumerate(stream.next(count))]

    def _sample(self: Any, groups: list[Group], *, may_replace: bool) -> None:
        """Answers and scores: of groups that may be replaced the first few, and the rest only where these differ."""
        screen, size = self.practice.screen, self.num_generations
        if screen is None or screen >= size or not may_replace:
            self._answer(groups, size)
            return
        self._answer(groups, screen)
        self._answer([group for group in groups if _is_useful(group, self.practice.scorer.correctness)], size - screen)

    def _answer(self: Any, groups: list[Group], num: int) -> None:
        """So many more answers to each, with their scores. With no group to do, nothing is asked of the model."""
        if not groups:
            return
        if self.use_vllm or self.use_transformers_continuous_batching or self.practice.batch_size == 0:
            made = self._answers_of_trl(groups, num)
        else:
            made = self._answers(groups, num)
        repeated = [group.problem for group in groups for _ in range(num)]
        flat = [answer for answers in made for answer in answers]
        scores = self.practice.scorer(repeated, flat, trainer_state=self.state, log_metric=self._log_metric)
        for place, (group, answers) in enumerate(zip(groups, made, strict=True)):
            part = slice(place * num, (place + 1) * num)
            group.add(answers, scores.values_NF[part], scores.totals_N[part], scores.is_right_N[part])

    def _answers(self: Any, groups: list[Group], num: int) -> list[list[Answer]]:
        practice = self.practice
        model = self.accelerator.unwrap_model(self.model_wrapped)
        engine = practice.engine(model)
        temperatures = (practice.temperature,) * num
        keys = [f"{group.draw} {group.problem.key} {len(group.answers) or ''}".rstrip() for group in groups]
        asks = [ask_of(group.problem, key, temperatures) for group, key in zip(groups, keys, strict=True)]
        made = engine.answer(asks, max_new_tokens=practice.max_new_tokens, top_p=practice.top_p, seed=practice.seed)
        found = list(made)
        for group, answers in zip(groups, found, strict=True):
            failed = next((answer for answer in answers if not answer.ids), None)
            if failed is not None:
                cure = "shorten or remove the problem"
                raise RunError(group.problem.place, f"the model could not be asked ({failed.error})", cure)
        return found

    def _answers_of_trl(self: Any, groups: list[Group], num: int) -> list[list[Answer]]:
        """By vLLM, by continuous batching, or with weights that are sharded over processes."""
        prompts = [self.practice.prompt_ids(group.problem) for group in groups]
        repeated = [ids for ids in prompts for _ in range(num)]
        if self.returns_logprobs:
            made = super()._generate_single_turn(repeated, None, {}, num)  # type: ignore[misc]
        else:
            made = self._of_groups(repeated, num)
        ids, logprobs = made if self.returns_logprobs else (made, None)
        ends = set(self.eos_token_ids)
        tokenizer = self.practice.tokenizer
        answers = [
            Answer(
                answer_text(tokenizer, own),
                "stop" if set(own[-1:]) & ends else "length",
                num_tokens=len(own),
                ids=tuple(own),
            )
            for own in ids
        ]
        parts = [slice(place * num, (place + 1) * num) for place in range(len(groups))]
        if logprobs is not None:
            for group, part in zip(groups, parts, strict=True):
                group.logprobs = [*(group.logprobs or []), *logprobs[part]]
        return [answers[part] for part in parts]

    def _of_groups(self: Any, repeated: list[list[int]], num: int) -> Any:
        """By `RLOOTrainer`, which takes every `num_generations`-th prompt for a vLLM server, whatever it is given."""
        whole, self.num_generations = self.num_generations, num
        try:
            return super()._generate_single_turn(repeated, None, {})  # type: ignore[misc]
        finally:
            self.num_generations = whole

    def _keep(self: Any, advantages: torch.Tensor) -> None:
        step, labels = self.state.global_step, self.practice.scorer.labels
        values = iter(advantages.tolist())
        for group in self._groups:
            for place, answer in enumerate(group.answers):
                self.practice.rollouts.add(
                    step=step,
                    problem=group.problem,
                    answer=answer,
                    reward=float(group.totals_G[place]),
                    advantage=next(values),
                    is_right=bool(group.is_right_G[place]),
                    scores=dict(zip(labels, group.values_GF[place].tolist(), strict=True)),
                )

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        self.practice.rollouts.flush(self.state.global_step)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            write_json(folder / STATE, self.practice.state_dict())
        # the main process marks the checkpoint whole only once every process has written its part
        self.accelerator.wait_for_everyone()

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is not None:
            self.practice.load_state_dict(read_json(Path(checkpoint) / STATE))


def _is_useful(group: Group, correctness: Sequence[int]) -> bool:
    """Whether its answers differ in what the rewards on correctness say; where none applies, in their sum. Rewards on
    form alone would make every group useful: one of wrong answers would then train, say, shortness."""
    values_GC = group.values_GF[:, list(correctness)]
    if np.isnan(values_GC).all():
        values_GC = group.totals_G[:, None]
    return bool((np.ptp(np.nan_to_num(values_GC), axis=0) > SAME).any())
