"""Honesty evaluations inside the evaluate stage: frozen questions, greedy answers, verdicts, and controls.

evals/<name>.jsonl               every question as `llmkit.evaluate.honesty.Answered`
evals/<name>_prompt_only.jsonl   the same with the control's system message
evals/<name>.rejected.jsonl      rows that cannot be asked

Which rows are asked does not depend on the run's seed. Processes share the questions out; the main one has them judged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.artifacts.manifest import Curve, EvalRow, SourceCount
from llmkit.chat.ask import Answer, Ask
from llmkit.chat.template import template_of
from llmkit.errors import DataError, TemplateError, UserError
from llmkit.evaluate.honesty import (
    Answered,
    Earlier,
    all_refused,
    honesty_rows,
    metrics_of,
    questions_sha256,
    read_answered,
    table_of,
)
from llmkit.evaluate.results import TaskResult, write_documents
from llmkit.generation.engine import TransformersEngine, ids_of
from llmkit.knowledge.asking import Asking
from llmkit.knowledge.honesty import risk_coverage
from llmkit.knowledge.judge import Item, Judge, open_judge
from llmkit.knowledge.records import Question, Verdict
from llmkit.recipe.knowledge import CONTROLS, AskSpec, HonestySpec
from llmkit.stages.asked import OUTAGE, Pace, where_of
from llmkit.stages.common import Worker
from llmkit.stages.engines import AskedModel, engine_of
from llmkit.stages.frozen import Frozen, frozen_questions

DOCUMENTS = "evals"
"""Folder inside the stage's with every task's documents."""
PROMPT_ONLY, REFUSAL_ONLY = CONTROLS
_JUDGED_AT_A_TIME = 256


@dataclass
class Honesty:
    """What goes into the manifest; empty in processes other than the main one."""

    evals: list[EvalRow] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    sources: list[SourceCount] = field(default_factory=list)
    """One per evaluation: its questions, with the hash that says whether another evaluation asked the same."""


class _Measured(AskedModel):
    """The model that is evaluated: loaded already, and kept."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        self.tokenizer, self.template, self.on_progress = tokenizer, template_of(tokenizer), None
        self.__dict__["engine"] = TransformersEngine(model, tokenizer, batch_size, self._progress)

    def free(self) -> None:
        pass


def run_honesty(
    worker: Worker,
    specs: Sequence[HonestySpec],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    seed: int,
    measured: str,
    compared: tuple[str, Path] | None = None,
) -> Honesty:
    """Every evaluation in turn. Every process of a launch calls this.

    Args:
        measured: stage that made the model.
        compared: stage and folder of the evaluation that differences are taken to.

    Raises:
        DataError: questions that cannot be read, or two evaluations of one name.
        UserError: the judge leaves too much undecided.
    """
    found, asked = Honesty(), _Measured(model, tokenizer, batch_size)
    if repeated := [name for name, number in Counter(spec.name for spec in specs).items() if number > 1]:
        raise DataError(f"evals: {repeated[0]}", "two evaluations have this name", "give each its own 'name'")
    for spec in specs:
        rejected = worker.dir.path / DOCUMENTS / f"{spec.name}.rejected.jsonl"
        frozen = frozen_questions(worker, spec, rejected if worker.is_main else None)
        answered = _answered(worker, spec, frozen, asked, seed)
        controlled = None
        if spec.prompt_only is not None and _is_baseline(spec, measured):
            controlled = _answered(worker, spec, frozen, asked, seed, system=spec.prompt_only)
        if worker.is_main:
            _report(worker, found, spec, frozen, answered, controlled, seed, measured, compared)
    return found


def _is_baseline(spec: HonestySpec, measured: str) -> bool:
    """The plan names a baseline for every model that has one before it."""
    return spec.baseline in (None, measured)


def _report(
    worker: Worker,
    found: Honesty,
    spec: HonestySpec,
    frozen: Frozen,
    answered: list[Answered],
    controlled: list[Answered] | None,
    seed: int,
    measured: str,
    compared: tuple[str, Path] | None,
) -> None:
    before = None
    if not _is_baseline(spec, measured) and (folder := worker.file.baselines.get(str(spec.baseline))):
        before = _earlier(worker, spec, answered, str(spec.baseline), Path(folder))
    other = _earlier(worker, spec, answered, *compared) if compared else None
    rows_of = partial(honesty_rows, spec=spec, stage=measured, seed=seed)
    found.evals += rows_of(answered, task=spec.name, before=before, compared=other or before)
    if points := risk_coverage(table_of(answered, spec)):
        name = "risk_coverage" if spec.name == spec.task else f"risk_coverage {spec.name}"
        found.curves.append(Curve(name=name, x="coverage", y="risk", points=points))
    found.sources.append(frozen.count.model_copy(update={"sha256": questions_sha256(answered)}))
    if _is_baseline(spec, measured):
        plain = Earlier(measured, answered)
        controls = {PROMPT_ONLY: controlled, REFUSAL_ONLY: all_refused(answered)}
        for name, control in controls.items():
            if control is not None:
                found.evals += rows_of(control, task=f"{spec.name}{name}", before=plain)


def _earlier(worker: Worker, spec: HonestySpec, answered: list[Answered], stage: str, folder: Path) -> Earlier | None:
    """The same questions at another evaluation; None if it did not have them."""
    earlier = read_answered(folder / DOCUMENTS, spec.name)
    if earlier is None:
        return None
    if questions_sha256(earlier) != questions_sha256(answered):
        shared = len({a.id for a in earlier} & {a.id for a in answered})
        worker.warn(
            f"{spec.name}: the model of '{stage}' was asked {len(earlier)} other questions (it shares {shared} of the "
            f"{len(answered)} here), so nothing is compared with it; run its evaluation again"
        )
        return None
    return Earlier(stage, earlier)


def _answered(
    worker: Worker, spec: HonestySpec, frozen: Frozen, asked: AskedModel, seed: int, system: str | None = None
) -> list[Answered]:
    """Every question with its answer and verdict, written to the stage's folder; in other processes nothing."""
    task = spec.name if system is None else f"{spec.name}{PROMPT_ONLY}"
    asks = _asks(spec, frozen.questions, asked, seed, system)
    answers = _ask(worker, task, asks, spec, asked, seed)
    if not worker.is_main:
        return []
    verdicts = _judge(worker, spec, frozen.questions, answers, asked, seed)
    rows = zip(frozen.questions, asks, answers, verdicts, strict=True)
    answered = [_row(i, *row, frozen.labels, system) for i, row in enumerate(rows)]
    write_documents(worker.dir.path / DOCUMENTS, TaskResult(task, [], list(answered)))
    return answered


def _asks(
    spec: HonestySpec, questions: Sequence[Question], asked: AskedModel, seed: int, system: str | None
) -> list[Ask]:
    """As a probe asks: a user's message where there is a chat template, else `Question: ...` with the answer to come.
    A template that has no place for a system message gets it in front of the question."""
    how = AskSpec(num_samples=0, system=system)
    asks = [ask for question in questions for ask in Asking(how, (), asked.chat, seed).asks(question)]
    if system is not None and asked.chat:
        try:
            ids_of(asked.tokenizer, asks[0])
        except TemplateError:
            how = AskSpec(num_samples=0, phrasings=[f"{system}\n\n{{question}}"])
            asks = [ask for question in questions for ask in Asking(how, (), asked.chat, seed).asks(question)]
    return asks


def _ask(
    worker: Worker, task: str, asks: Sequence[Ask], spec: HonestySpec, asked: AskedModel, seed: int
) -> list[Answer]:
    """Greedy answers in the order of the asks; complete in the main process."""
    state = PartialState()
    own = asks[state.process_index :: state.num_processes]
    pace = Pace(worker, task, len(own), state.num_processes)
    asked.on_progress = lambda done, _: pace.show(done)
    answers = asked.engine.answer(
        own, max_new_tokens=spec.max_new_tokens, stop_strings=() if asked.chat else ("\n",), seed=seed
    )
    placed = [(place, answer) for place, (answer,) in enumerate(answers)]
    numbered = [(place * state.num_processes + state.process_index, answer) for place, answer in placed]
    gathered = gather_object(numbered) if state.num_processes > 1 else numbered
    return [answer for _, answer in sorted(gathered, key=lambda pair: pair[0])]


def _judge(
    worker: Worker,
    spec: HonestySpec,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    asked: AskedModel,
    seed: int,
) -> list[Verdict]:
    """Raises UserError where more is left undecided than the recipe allows."""
    engine, chat = engine_of(spec.judge, spec.judge.by, asked, _JUDGED_AT_A_TIME)
    asked.on_progress = None
    judge = open_judge(spec.judge, engine, spec.judge.refusals, seed=seed, chat=chat)
    verdicts: list[Verdict] = ["undecided"] * len(answers)
    open_ = [i for i, answer in enumerate(answers) if answer.finish_reason != "error"]
    for start in range(0, len(open_), _JUDGED_AT_A_TIME):
        chunk = open_[start : start + _JUDGED_AT_A_TIME]
        items = [
            Item(questions[i].question, questions[i].answers, answers[i].text, questions[i].document) for i in chunk
        ]
        for i, verdict in zip(chunk, judge.judge(items), strict=True):
            verdicts[i] = verdict
        _check_judge(worker, spec, judge, [verdicts[i] for i in chunk], max(OUTAGE, spec.judge.max_undecided))
        worker.log("judge", start + len(chunk), len(open_))
    _check_judge(worker, spec, judge, [verdicts[i] for i in open_], spec.judge.max_undecided)
    if errors := Counter(answer.error for answer in answers if answer.finish_reason == "error"):
        often, _ = errors.most_common(1)[0]
        worker.warn(f"{spec.name}: {errors.total()} questions were not answered and count as undecided ({often})")
    return verdicts


def _check_judge(worker: Worker, spec: HonestySpec, judge: Judge, verdicts: Sequence[Verdict], allowed: float) -> None:
    number = verdicts.count("undecided")
    if number <= allowed * len(verdicts):
        return
    failures = Counter[str](getattr(judge, "failures", {}))
    what = f"left {number} of {len(verdicts)} answers undecided ({number / len(verdicts):.1%}, allowed {allowed:.1%})"
    what += f"; most often: {failures.most_common(1)[0][0]}" if failures else ""
    cure = "mend or change the judge and run again, or raise 'judge.max_undecided'"
    raise UserError(where_of(worker, f"evals: {spec.name}: judge"), what, cure)


def _row(
    place: int,
    question: Question,
    ask: Ask,
    answer: Answer,
    verdict: Verdict,
    labels: dict[str, str],
    system: str | None,
) -> Answered:
    shown = f"{system}\n\n{question.question}" if system else question.question
    return Answered(
        doc_id=place,
        prompt=ask.prompt if isinstance(ask.prompt, str) else shown,
        target=" | ".join(question.answers),
        completion=answer.text,
        metrics=metrics_of(verdict),
        id=question.id,
        verdict=verdict,
        confidence=_confidence(answer),
        group=question.group,
        entity=question.entity,
        label=labels.get(question.id, ""),
    )


def _confidence(answer: Answer) -> float | None:
    """exp of the mean log-probability of the answer's tokens, its stop token among them."""
    if answer.logprob is None or not answer.num_tokens or not math.isfinite(answer.logprob):
        return None
    return min(1.0, math.exp(answer.logprob / answer.num_tokens))
