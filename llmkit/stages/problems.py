"""Evaluations on problems with checkable answers inside the evaluate stage.

evals/<name>.jsonl                     every problem with the greedy answer, and what each metric says of it
evals/<name>.rejected.jsonl            rows that are no problems

Which problems are asked does not depend on the run's seed. Processes share them out; every one gets all attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from llmkit.chat.ask import Answer
from llmkit.data.problems import Problem, Problems, build_problems
from llmkit.errors import UserError
from llmkit.evaluate.results import Document, Metric, TaskResult, mean_of
from llmkit.generation.engine import TransformersEngine
from llmkit.generation.thought import num_marks
from llmkit.modeling.load import max_positions
from llmkit.plan.step import Step
from llmkit.recipe.practice import ProblemSource, ProblemsSpec
from llmkit.recipe.preference import PreferenceSpec
from llmkit.recipe.trials import JailbreakSpec
from llmkit.stages.common import Worker, stages_read, where_of
from llmkit.stages.prompting import fitting
from llmkit.stages.scoring import Scorer
from llmkit.stages.solving import Attempt, attempt_together, numbers_of

SEED = 0
RAW_STOPS = ("\n\n", "\nQuestion:")
"""Ends of an answer by a model that goes on writing."""


def problems_of(step: Step, folder: Path, *, chat: bool) -> Problems:
    """Of a stage that practises, outside a run of it. Args: folder: for temporary files."""
    stages = {name: Path(path) for name, path in step.data_stages.items()}
    return _read(step.stage, step.stage.data, step.stage.seed, stages, folder, chat=chat)


def read_problems(
    worker: Worker, sources: Sequence[ProblemSource], *, rejected_file: Path | None, chat: bool
) -> Problems:
    """Those of a stage that practises, or of a held-out set of it. Raises DataError where they cannot be read."""

    def show(done: int, total: int) -> None:
        worker.log("read", done, total)

    file = worker.file
    options: dict[str, Any] = {"rejected_file": rejected_file, "progress": show, "chat": chat}
    return _read(file.stage, sources, file.seed, stages_read(worker), worker.dir.cache, **options)


def _read(
    stage: Any,
    sources: Sequence[ProblemSource],
    seed: int,
    data_stages: dict[str, Path],
    folder: Path,
    *,
    rejected_file: Path | None = None,
    **options: Any,
) -> Problems:
    return build_problems(
        sources,
        seed=seed,
        data_stages=data_stages,
        cache_dir=folder,
        max_rejected=stage.max_rejected,
        dedup=stage.dedup,
        rejected_file=rejected_file,
        **options,
    )


def prepare(
    worker: Worker, specs: Sequence[ProblemsSpec], tokenizer: PreTrainedTokenizerBase, *, chat: bool
) -> list[tuple[Scorer, Problems]]:
    """Before the model is loaded: problems and rewards, checked against one another.

    Raises:
        DataError, UserError: problems that cannot be read, rewards that cannot score them, a `by` that no problem has.
    """
    return [_prepare(worker, spec, tokenizer, chat) for spec in specs]


def _prepare(
    worker: Worker, spec: ProblemsSpec, tokenizer: PreTrainedTokenizerBase, chat: bool
) -> tuple[Scorer, Problems]:
    file, where = worker.file, f"{where_of(worker, 'evals')}: {spec.name}"
    assert file.input_model is not None
    problems = frozen(worker, spec, spec.problems, chat=chat)
    _check_by(worker, spec, problems)
    context = max_positions(file.input_model, file.model.revision if file.parent is None else None)
    options: dict[str, Any] = {"max_truncated": spec.max_truncated, "where": where, "warn": worker.warn}
    problems = problems.only(fitting(problems, tokenizer, context, **options))
    scorer = Scorer(spec.rewards, where)
    scorer.check(problems, checked="all")
    scorer.check_gold(problems, worker.warn)
    return scorer, problems


def _check_by(worker: Worker, spec: ProblemsSpec, problems: Problems) -> None:
    """Raises UserError where no problem has the column whose values are reported one by one."""
    if spec.by is None or spec.by in problems.columns_of_all():
        return
    where = f"{where_of(worker, 'evals')}: {spec.name}: by"
    num_without = sum(spec.by not in problem.columns for problem in problems)
    if num_without == len(problems):
        have = sorted({column for problem in problems for column in problem.columns})
        near = get_close_matches(spec.by, have, n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"have: {', '.join(have) or 'none'}"
        raise UserError(where, f"no problem has a column '{spec.by}'", cure)
    worker.warn(
        f"{where}: {num_without} of {len(problems)} problems have no column '{spec.by}' and no line of their own"
    )


def frozen(
    worker: Worker, spec: ProblemsSpec | PreferenceSpec, sources: Sequence[ProblemSource], *, chat: bool
) -> Problems:
    """Those of an evaluation, in its words for a model without a chat template."""
    own = sources if chat else [_raw(source, spec.raw_phrasing) for source in sources]
    return frozen_as_written(worker, spec, own, chat=chat)


def frozen_as_written(
    worker: Worker, spec: ProblemsSpec | PreferenceSpec | JailbreakSpec, sources: Sequence[ProblemSource], *, chat: bool
) -> Problems:
    """The same for every model and seed."""
    rejected = worker.dir.path / "evals" / f"{spec.name}.rejected.jsonl"
    return build_problems(
        list(sources),
        seed=SEED,
        data_stages=stages_read(worker),
        cache_dir=worker.dir.cache,
        max_rejected=spec.max_rejected,
        dedup=spec.dedup,
        rejected_file=rejected if worker.is_main else None,
        chat=chat,
    )


def _raw(source: ProblemSource, phrasing: str) -> ProblemSource:
    """For a model without a chat template: no system message, and another wording around the source's own."""
    changes = {"system": None, "phrasing": phrasing.replace("{prompt}", source.phrasing)}
    return source.model_copy(update=changes)


def evaluate_problems(
    worker: Worker,
    state: PartialState,
    spec: ProblemsSpec,
    prepared: tuple[Scorer, Problems],
    engine: TransformersEngine,
    tokenizer: PreTrainedTokenizerBase,
    *,
    chat: bool,
) -> TaskResult:
    """All metrics of `llmkit.stages.solving.numbers_of`; with `by` the accuracy of each value of that column, with
    `thinking_budgets` the accuracy at each."""
    scorer, problems = prepared
    listed = list(problems)
    attempts = attempt_together(
        state,
        engine,
        scorer,
        listed,
        (0.0, *(spec.temperature for _ in range(spec.num_samples))),
        max_new_tokens=spec.max_new_tokens,
        top_p=spec.top_p,
        seed=SEED,
        stop_strings=() if chat else RAW_STOPS,
        prefill=spec.prefill,
        on_progress=lambda done, total: worker.log(f"solve {spec.name}", done, total),
    )
    numbers = numbers_of(attempts)
    metrics = [mean_of(name, values) for name, values in numbers.items()]
    metrics += _by(spec, listed, numbers["accuracy"])
    metrics += _otherwise(scorer, listed, [made[0] for made in attempts], numbers)
    for budget in spec.thinking_budgets if chat else ():
        thinking, longest = engine.thinking(budget), spec.max_new_tokens + budget + num_marks(tokenizer)
        options: dict[str, Any] = {"max_new_tokens": longest, "seed": SEED}
        numbers[f"accuracy, thinking {budget}"] = right = [
            float(made[0].is_right) for made in attempt_together(state, thinking, scorer, listed, (0.0,), **options)
        ]
        metrics.append(Metric(f"accuracy, thinking {budget}", sum(right) / len(right), len(right), right))
    documents = [
        _document(place, problem, made, {name: values[place] for name, values in numbers.items()})
        for place, (problem, made) in enumerate(zip(listed, attempts, strict=True))
    ]
    return TaskResult(spec.name, metrics, documents)


def _otherwise(
    scorer: Scorer, problems: Sequence[Problem], greedy: Sequence[Attempt], numbers: dict[str, list[float]]
) -> list[Metric]:
    """Accuracy with answers read leniently where the rewards read them strictly, or the other way round."""
    found = scorer.read_otherwise()
    if found is None:
        return []
    parse, other = found
    answers = [Answer(made.text, "length" if made.is_truncated else "stop") for made in greedy]
    name, right = f"accuracy, {parse}", other(problems, answers).is_right_N.astype(float).tolist()
    numbers[name] = right
    return [mean_of(name, right)]


def _by(spec: ProblemsSpec, problems: Sequence[Problem], accuracy: Sequence[float]) -> list[Metric]:
    groups: dict[str, list[float]] = {}
    for problem, value in zip(problems, accuracy, strict=True):
        if spec.by is not None and spec.by in problem.columns:
            groups.setdefault(str(problem.columns[spec.by]), []).append(value)
    return [
        Metric(f"accuracy, {spec.by} {group}", sum(values) / len(values), len(values), values)
        for group, values in sorted(groups.items())
    ]


def _document(place: int, problem: Problem, attempts: Sequence[Attempt], metrics: dict[str, float]) -> Document:
    return Document(
        doc_id=place,
        prompt=problem.asked,
        target=str(problem.columns.get("answer", "")),
        completion=attempts[0].text,
        metrics=metrics,
    )
