"""Running lm-eval tasks on a model that is already loaded, through lm-eval's Python interface.

`lm_eval.simple_evaluate` is passed by: it gathers a description of the machine for seconds, and gives no results under
a launcher to ranks other than the local first. `lm_eval.evaluator.evaluate` is the part that evaluates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lm_eval.api.task
from lm_eval.api.group import Group
from lm_eval.api.registry import get_aggregation
from lm_eval.api.task import Task
from lm_eval.evaluator import evaluate
from lm_eval.tasks.manager import TaskDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.errors import DataError
from llmkit.evaluate.endpoint import EndpointModel
from llmkit.evaluate.model import EvalModel
from llmkit.evaluate.results import Document, Member, Metric, TaskResult, values_of, write_documents
from llmkit.evaluate.tasks import load_task
from llmkit.recipe.schema import EvalSpec


@dataclass(frozen=True)
class Prepared:
    """A task, or the tasks of a group, with their data."""

    spec: EvalSpec
    tasks: TaskDict
    chat: bool
    """Whether the chat template is applied."""


def prepare_tasks(evals: list[EvalSpec], *, use_chat_template: bool, seed: int) -> list[Prepared]:
    """All that can be found wrong with tasks before a model is loaded.

    Args:
        use_chat_template: except for tasks that are `raw`.

    Raises:
        DataError: a task that does not exist, cannot be built or is named twice.
    """
    with quiet():
        chat = [use_chat_template and not spec.raw for spec in evals]
        found = [
            Prepared(spec, load_task(spec, raw=not templated, seed=seed), templated)
            for spec, templated in zip(evals, chat, strict=True)
        ]
    _refuse_repeats([name for each in found for name in each.tasks["tasks"]])
    return found


def run_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    evals: list[Prepared],
    *,
    batch_size: int,
    seed: int,
    out_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_done: Callable[[int, list[TaskResult]], None] | None = None,
) -> list[TaskResult]:
    """Evaluate every task of `evals`, in order; a group gives its tasks and then itself.

    Every process of a launch calls this; documents are shared out among them.

    Args:
        out_dir: gets `<task>.jsonl` with every document.
        progress: called with (documents done, all documents) of this process.
        on_done: called with the place in `evals` and its results when each is done; on rank 0.

    Returns:
        The results; on ranks other than 0 none.
    """
    with quiet():
        lm = EvalModel(model, tokenizer, batch_size=batch_size, seed=seed)
    return run_on(lm, evals, out_dir=out_dir, progress=progress, on_done=on_done)


def run_on(
    lm: EvalModel | EndpointModel,
    evals: list[Prepared],
    *,
    out_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_done: Callable[[int, list[TaskResult]], None] | None = None,
) -> list[TaskResult]:
    """`run_tasks` with a model as lm-eval sees it. Raises DataError for a task that the model cannot be asked."""
    with quiet():
        for each in evals:
            for task in each.tasks["tasks"].values():
                lm.check(task)
        meter = _Meter(lm, [_num_documents(each, lm) for each in evals], progress)
        results: list[TaskResult] = []
        for place, each in enumerate(evals):
            found = _run(lm, each)
            for result in found:
                if out_dir is not None and result.documents:
                    write_documents(out_dir, result)
            if on_done is not None and found:
                on_done(place, found)
            results.extend(found)
            meter.next_task()
    return results


def _run(lm: EvalModel | EndpointModel, prepared: Prepared) -> list[TaskResult]:
    lm.num_truncated = 0
    loaded, spec = prepared.tasks, prepared.spec
    output: dict[str, Any] | None = evaluate(
        lm,
        loaded,
        limit=spec.limit,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=prepared.chat,
        fewshot_as_multiturn=prepared.chat,
        confirm_run_unsafe_code=spec.allow_code_execution,
    )
    if output is None:
        return []
    warnings = (
        [f"{spec.task}: {lm.num_truncated} prompts lost their beginning to the context"] if lm.num_truncated else []
    )
    tasks = [_task_result(task, output, warnings) for task in loaded["tasks"].values()]
    made = {result.task: result for result in tasks}
    return [*tasks, *(_group_result(loaded["groups"][name], output, made) for name in output.get("groups", {}))]


def _task_result(task: Task, output: dict[str, Any], warnings: list[str]) -> TaskResult:
    name = task.task_name
    samples = sorted(output["samples"][name], key=lambda sample: sample["doc_id"])
    filters = {sample["filter"] for sample in samples}
    documents: dict[int, Document] = {}
    values: dict[tuple[str, str], list[Any]] = {}
    for sample in samples:
        document = documents.setdefault(sample["doc_id"], _document(sample))
        for metric in sample["metrics"]:
            key = metric if len(filters) == 1 else f"{metric},{sample['filter']}"
            values.setdefault((metric, key), []).append(sample[metric])
            if isinstance(sample[metric], (int, float)):
                document.metrics[key] = float(sample[metric])
    metrics = [_metric(task, metric, key, found) for (metric, key), found in values.items()]
    return TaskResult(name, metrics, list(documents.values()), warnings, task.get_config("num_fewshot"))


def _metric(task: Task, metric: str, key: str, values: list[Any]) -> Metric:
    mean = get_aggregation("mean")
    aggregate = task.aggregation().get(metric, mean)
    is_mean = aggregate is mean and all(isinstance(value, (int, float)) for value in values)
    better_up = bool(task.higher_is_better().get(metric, True))
    own = None if is_mean else aggregate
    return Metric(key, float(aggregate(values)), len(values), values, own, higher_is_better=better_up)


def _document(sample: dict[str, Any]) -> Document:
    arguments, responses = sample["arguments"], [response[0] for response in sample["resps"]]
    if isinstance(responses[0], str):
        completion = responses[0]
    elif isinstance(responses[0], tuple):
        best = max(range(len(responses)), key=lambda index: responses[index][0])
        completion = arguments[best][1].strip()
    else:
        completion = ""
    return Document(sample["doc_id"], arguments[0][0], str(sample["target"]), completion, {})


def _group_result(group: Group, output: dict[str, Any], results: dict[str, TaskResult]) -> TaskResult:
    found = output["groups"][group.name]
    better_up = output["higher_is_better"].get(group.name, {})
    metrics = []
    for config in group.aggregate_metric_list or []:
        for key in [key for key in found if key.startswith(f"{config.metric},")]:
            leaves = [results[task.task_name] for task in group.get_all_tasks()]
            members = _members(leaves, key, by_size=config.weight_by_size)
            up = better_up.get(config.metric) is not False
            name, num = key.removesuffix(",none"), found["sample_len"]
            metrics.append(Metric(name, float(found[key]), num, members=members, higher_is_better=up))
    return TaskResult(group.name, metrics)


def _members(leaves: list[TaskResult], key: str, *, by_size: bool) -> list[Member]:
    """Of a group's figure; none where it is no mean of means. A task with one filter leaves its name out."""
    found = []
    for leaf in leaves:
        names = (key, key.partition(",")[0])
        metric = next((each for each in leaf.metrics if each.name in names), None)
        if metric is None:
            continue
        if metric.aggregate is not None:
            return []
        found.append((leaf, metric))
    sizes = [max(each.num_samples for each in leaf.metrics) if by_size else 1 for leaf, _ in found]
    return [
        Member(leaf.task, metric.name, size / sum(sizes), values_of(leaf.documents, metric.name))
        for (leaf, metric), size in zip(found, sizes, strict=True)
    ]


class _Meter:
    """Documents done so far, over all tasks: after every batch of generation, and at the end of each task."""

    def __init__(
        self, lm: EvalModel | EndpointModel, counts: list[int], progress: Callable[[int, int], None] | None
    ) -> None:
        self._counts, self._progress, self._before, self._task = counts, progress, 0, 0
        lm.on_documents = self._report
        self._report(0)

    def next_task(self) -> None:
        self._before += self._counts[self._task]
        self._task += 1
        self._report(0)

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(self._before + done, sum(self._counts))


def _num_documents(prepared: Prepared, lm: EvalModel | EndpointModel) -> int:
    """Of this process's share."""
    sizes = [len(task.eval_docs) for task in prepared.tasks["tasks"].values()]
    counts = [min(size, prepared.spec.limit or size) for size in sizes]
    return sum(len(range(lm.rank, count, lm.world_size)) for count in counts)


def _refuse_repeats(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"evals: {name}", "is evaluated twice", "name it once, and no group that holds it")


@contextmanager
def quiet() -> Iterator[None]:
    """lm-eval warns of what is meant here, and draws a progress bar for every task."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with patch.object(lm_eval.api.task, "tqdm", lambda iterable, **_: iterable):
            yield
    finally:
        logger.setLevel(level)
