"""Honesty evaluations inside the evaluate stage: frozen questions, greedy answers, verdicts, and controls.

evals/<name>.jsonl               every question as `llmkit.evaluate.honesty.Answered`
evals/<name>_prompt_only.jsonl   the same with the control's system message
evals/<name>.rejected.jsonl      rows that cannot be asked

data/steps/<name>.questions.jsonl              the frozen questions with their documents, and labels of a probe
data/steps/<name>.answers-00012.jsonl          see `llmkit.knowledge.answering`; with `_prompt_only` the control's
data/steps/<name>.verdicts-00012.jsonl         see `llmkit.knowledge.judging`

Which rows are asked does not depend on the run's seed. Processes share the questions out, chunk by chunk; the main one
has them judged. A stage that was stopped goes on with the answers and verdicts that it has, also after another judge,
or another share of undecided answers, was set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.artifacts.files import sha256_of, sha256_of_file
from llmkit.artifacts.manifest import Curve, EvalRow, SourceCount
from llmkit.artifacts.stagefile import StageFile
from llmkit.chat.ask import Ask
from llmkit.chat.template import template_of
from llmkit.errors import DataError, TemplateError
from llmkit.evaluate.answered import Judged, answered_of, questions_sha256, read_answered
from llmkit.evaluate.honesty import Earlier, all_refused, honesty_rows, table_of
from llmkit.generation.engine import TransformersEngine, ids_of
from llmkit.knowledge.answering import only_thought, thoughts_alone
from llmkit.knowledge.asking import Asking
from llmkit.knowledge.honesty import risk_coverage
from llmkit.knowledge.judge import PROMPT
from llmkit.knowledge.judging import Names, too_many_undecided
from llmkit.knowledge.records import Question, question_of
from llmkit.knowledge.store import Chunks, Steps, read_rows, writing
from llmkit.recipe.knowledge import CONTROLS, AskSpec, HonestySpec
from llmkit.stages.asked import ask_chunks, files_of, judge_chunks, model_parts, said_by
from llmkit.stages.common import Worker, where_of
from llmkit.stages.engines import AskedModel, check_judge
from llmkit.stages.frozen import frozen_questions

DOCUMENTS = "evals"
"""Folder inside the stage's with every task's documents."""
PROMPT_ONLY, REFUSAL_ONLY = CONTROLS
CHUNK = 512
"""Questions per chunk; see `llmkit.stages.interrogate.CHUNK`."""
_JUDGED_AT_A_TIME = 64


@dataclass
class Honesty:
    """What goes into the manifest; empty in processes other than the main one."""

    evals: list[EvalRow] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    sources: list[SourceCount] = field(default_factory=list)
    """One per evaluation: its questions, with the hash that says whether another evaluation asked the same."""
    metrics: dict[str, float] = field(default_factory=dict)
    """`<name>/asked_in_training`: questions that the model's training asked, or about whose entity."""


@dataclass(frozen=True)
class Prepared:
    """What is known of an evaluation's questions before they are asked; see `Frozen`."""

    count: SourceCount
    num_taught: int | None


@dataclass(frozen=True)
class Task:
    """One set of answers: those of an evaluation, or of its control."""

    spec: HonestySpec
    system: str | None = None

    @property
    def name(self) -> str:
        return self.spec.name if self.system is None else f"{self.spec.name}{PROMPT_ONLY}"

    @property
    def names(self) -> Names:
        return Names(f"{self.name}.answers", f"{self.name}.verdicts")

    def questions(self, steps: Steps) -> Path:
        return steps.whole(f"{self.spec.name}.questions")


class _Measured(AskedModel):
    """The model that is evaluated: loaded already, and kept."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        self.tokenizer, self.template, self.on_progress = tokenizer, template_of(tokenizer), None
        self.__dict__["engine"] = TransformersEngine(model, tokenizer, batch_size, self.progress)

    def free(self) -> None:
        pass


def prepare(worker: Worker, steps: Steps, specs: Sequence[HonestySpec]) -> list[Prepared]:
    """Before the model is loaded: what would stop the stage later is found, and the questions are written down.

    Returns:
        What was read for each evaluation, in the main process; the others have nothing to do.

    Raises:
        DataError: questions that cannot be read, or two evaluations of one name.
        UserError: a judge that cannot be used.
    """
    if repeated := [name for name, number in Counter(spec.name for spec in specs).items() if number > 1]:
        raise DataError(f"evals: {repeated[0]}", "two evaluations have this name", "give each its own 'name'")
    for spec in specs:
        check_judge(spec.judge)
    return [_freeze(worker, steps, spec) for spec in specs] if worker.is_main else []


def _freeze(worker: Worker, steps: Steps, spec: HonestySpec) -> Prepared:
    rejected = worker.dir.path / DOCUMENTS / f"{spec.name}.rejected.jsonl"
    frozen = frozen_questions(worker, spec.name, spec.questions, rejected, spec.named_groups)
    with writing(Task(spec).questions(steps)) as write:
        for question in frozen.questions:
            write(asdict(question) | {"label": frozen.labels.get(question.id, "")})
    return Prepared(frozen.count, frozen.num_taught)


def step_keys(file: StageFile, steps: Steps, specs: Sequence[HonestySpec]) -> dict[str, str]:
    """What the answers and verdicts of every evaluation depend on, once the questions are written."""
    keys = dict[str, str]()
    for task in (task for spec in specs for task in _tasks(spec)):
        judge, asked = task.spec.judge, [task.spec.max_new_tokens, task.system, sha256_of_file(task.questions(steps))]
        answers = sha256_of([model_parts(file), asked])
        own = {name: part for name, part in file.inputs.items() if name in files_of(judge)}
        prompt = "" if judge.by == "rules" else PROMPT.load(judge.prompt)
        keys |= {task.names.answers: answers, task.names.verdicts: sha256_of([answers, said_by(judge), own, prompt])}
    return keys


def _tasks(spec: HonestySpec) -> list[Task]:
    return [Task(spec), *([] if spec.prompt_only is None else [Task(spec, spec.prompt_only)])]


def run_honesty(
    worker: Worker,
    steps: Steps,
    specs: Sequence[HonestySpec],
    prepared: Sequence[Prepared],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    measured: str,
    compared: tuple[str, Path] | None = None,
) -> Honesty:
    """Every evaluation in turn. Every process of a launch calls this, once the main one has prepared it.

    Args:
        prepared: as `prepare` gave them.
        measured: stage that made the model.
        compared: stage and folder of the evaluation that differences are taken to.

    Raises:
        UserError: the judge leaves too much undecided.
    """
    found, asked = Honesty(), _Measured(model, tokenizer, batch_size)
    for place, spec in enumerate(specs):
        tasks = _tasks(spec) if _is_baseline(spec, measured) else [Task(spec)]
        answered = [_answered(worker, steps, task, asked) for task in tasks]
        if worker.is_main:
            _report(worker, found, spec, answered, measured, compared)
            sha256 = questions_sha256(answered[0])
            found.sources.append(prepared[place].count.model_copy(update={"sha256": sha256}))
            if (num := prepared[place].num_taught) is not None:
                found.metrics[f"{spec.name}/asked_in_training"] = float(num)
    return found


def _is_baseline(spec: HonestySpec, measured: str) -> bool:
    """The plan names a baseline for every model that has one before it."""
    return spec.baseline in (None, measured)


def _report(
    worker: Worker,
    found: Honesty,
    spec: HonestySpec,
    answers: list[list[Judged]],
    measured: str,
    compared: tuple[str, Path] | None,
) -> None:
    """`answers`: of the evaluation, and of the control where there is one."""
    answered, before = answers[0], None
    if not _is_baseline(spec, measured) and (folder := worker.file.baselines.get(str(spec.baseline))):
        before = _earlier(worker, spec, answered, str(spec.baseline), Path(folder))
    other = _earlier(worker, spec, answered, *compared) if compared else None
    rows_of = partial(honesty_rows, spec=spec, stage=measured, seed=worker.file.seed)
    found.evals += rows_of(answered, task=spec.name, before=before, compared=other or before)
    if points := risk_coverage(table_of(answered, spec)):
        name = "risk_coverage" if spec.name == spec.task else f"risk_coverage {spec.name}"
        found.curves.append(Curve(name=name, x="coverage", y="risk", points=points))
    if _is_baseline(spec, measured):
        plain = Earlier(measured, answered)
        controls = {PROMPT_ONLY: answers[1]} if len(answers) > 1 else {}
        for name, control in (controls | {REFUSAL_ONLY: all_refused(answered)}).items():
            found.evals += rows_of(control, task=f"{spec.name}{name}", before=plain)


def _earlier(worker: Worker, spec: HonestySpec, answered: list[Judged], stage: str, folder: Path) -> Earlier | None:
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


def _answered(worker: Worker, steps: Steps, task: Task, asked: AskedModel) -> list[Judged]:
    """Every question with its answer and verdict, written to the stage's folder; in other processes nothing."""
    state, questions = PartialState(), Chunks(task.questions(steps), CHUNK)
    asking = _asking(task, question_of(questions[0][0]), asked, worker.file.seed)
    ask_chunks(worker, steps, state, questions, asking, asked, step=task.names.answers, phase=task.name)
    state.wait_for_everyone()
    if not worker.is_main:
        return []
    failures = judge_chunks(
        worker,
        steps,
        questions,
        range(len(questions)),
        task.spec.judge,
        asked,
        batch_size=_JUDGED_AT_A_TIME,
        names=task.names,
        part=f"evals: {task.name}: judge",
    )
    return _written(worker, steps, task, questions, asking, failures)


def _asking(task: Task, first: Question, asked: AskedModel, seed: int) -> Asking:
    """As a probe asks: a user's message where there is a chat template, else `Question: ...` with the answer to come.
    A template that has no place for a system message gets it in front of the question."""
    how = {"num_samples": 0, "max_new_tokens": task.spec.max_new_tokens}
    asking = Asking(AskSpec.model_validate({**how, "system": task.system}), (), asked.chat, seed)
    if task.system is not None and asked.chat:
        try:
            ids_of(asked.tokenizer, asking.asks(first)[0])
        except TemplateError:
            phrasings = [f"{task.system}\n\n{{question}}"]
            return Asking(AskSpec.model_validate({**how, "phrasings": phrasings}), (), asked.chat, seed)
    return asking


def _written(
    worker: Worker, steps: Steps, task: Task, questions: Chunks, asking: Asking, failures: Counter[str]
) -> list[Judged]:
    """Raises UserError where more is left undecided than the recipe allows."""
    num, allowed = len(questions), task.spec.judge.max_undecided
    columns = read_rows(questions.path), steps.rows(task.names.answers, num), steps.rows(task.names.verdicts, num)
    judged, errors, num_only_thought = list[Judged](), Counter[str](), 0
    with writing(worker.dir.path / DOCUMENTS / f"{task.name}.jsonl") as write:
        for place, (row, said, verdicts) in enumerate(zip(*columns, strict=True)):
            (answer,), (verdict,) = said["answers"], verdicts["verdicts"]
            if answer["finish_reason"] == "error":
                errors[answer["error"]] += 1
            num_only_thought += only_thought(answer)
            question = question_of(row)
            prompt = _shown(asking.asks(question)[0], question, task)
            answered = answered_of(place, question, row["label"], prompt, answer, verdict)
            write(asdict(answered))
            judged.append(answered.judged)
        number = sum(one.verdict == "undecided" for one in judged) - errors.total()
        if number > allowed * (len(judged) - errors.total()):
            where = where_of(worker, f"evals: {task.name}: judge")
            raise too_many_undecided(where, number, len(judged) - errors.total(), allowed, failures)
    if errors:
        often, _ = errors.most_common(1)[0]
        worker.warn(f"{task.name}: {errors.total()} questions were not answered and count as undecided ({often})")
    if num_only_thought:
        worker.warn(f"{task.name}: {thoughts_alone(num_only_thought, len(judged), 'max_new_tokens')}")
    return judged


def _shown(ask: Ask, question: Question, task: Task) -> str:
    """What the model was given, for people to read."""
    if isinstance(ask.prompt, str):
        return ask.prompt
    return question.question if task.system is None else f"{task.system}\n\n{question.question}"
