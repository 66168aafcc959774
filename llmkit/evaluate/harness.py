"""Running lm-eval tasks on a model that is already loaded, through lm-eval's Python interface.

`lm_eval.simple_evaluate` is passed by: it gathers a description of the machine for seconds, and gives no results under
a launcher to ranks other than the local first. `lm_eval.evaluator.evaluate` is the part that evaluates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lm_eval.api.task
from lm_eval.api.registry import get_aggregation
from lm_eval.api.task import Task
from lm_eval.evaluator import evaluate
from lm_eval.tasks.manager import TaskDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.errors import DataError
from llmkit.evaluate.model import EvalModel
from llmkit.evaluate.results import Document, Metric, TaskResult, write_documents
from llmkit.evaluate.tasks import load_task
from llmkit.recipe.schema import EvalSpec


def run_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    evals: list[EvalSpec],
    *,
    use_chat_template: bool,
    batch_size: int,
    seed: int,
    out_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_done: Callable[[int, list[TaskResult]], None] | None = None,
) -> list[TaskResult]:
    """Evaluate every task of `evals`, in order; a group gives its tasks and then itself.

    Every process of a launch calls this; documents are shared out among them.

    Args:
        use_chat_template: except for tasks that are `raw`.
        out_dir: gets `<task>.jsonl` with every document.
        progress: called with (documents done, all documents) of this process.
        on_done: called with the place in `evals` and its results when each is done; on rank 0.

    Returns:
        The results; on ranks other than 0 none.

    Raises:
        DataError: a task that does not exist, cannot be built or is named twice.
    """
    with _quiet():
        chat = [use_chat_template and not spec.raw for spec in evals]
        loaded = [load_task(spec, raw=not templated, seed=seed) for spec, templated in zip(evals, chat, strict=True)]
        _refuse_repeats([name for part in loaded for name in part["tasks"]])
        lm = EvalModel(model, tokenizer, batch_size=batch_size, seed=seed)
        meter = _Meter(lm, [_num_documents(part, spec, lm) for part, spec in zip(loaded, evals, strict=True)], progress)
        results: list[TaskResult] = []
        for place, (spec, part, templated) in enumerate(zip(evals, loaded, chat, strict=True)):
            found = _run(lm, part, spec, templated)
            for result in found:
                if out_dir is not None and result.documents:
                    write_documents(out_dir, result)
            if on_done is not None and found:
                on_done(place, found)
            results.extend(found)
            meter.next_task()
    return results


def _run(lm: EvalModel, loaded: TaskDict, spec: EvalSpec, use_chat_template: bool) -> list[TaskResult]:
    lm.num_truncated = 0
    output: dict[str, Any] | None = evaluate(
        lm,
        loaded,
        limit=spec.limit,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=use_chat_template,
        fewshot_as_multiturn=use_chat_template,
    )
    if output is None:
        return []
    warnings = (
        [f"{spec.task}: {lm.num_truncated} prompts lost their beginning to the context"] if lm.num_truncated else []
    )
    tasks = [_task_result(task, output, warnings) for task in loaded["tasks"].values()]
    return [*tasks, *(_group_result(name, output) for name in output.get("groups", {}))]


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
    return TaskResult(name, metrics, list(documents.values()), warnings)


def _metric(task: Task, metric: str, key: str, values: list[Any]) -> Metric:
    mean = get_aggregation("mean")
    aggregate = task.aggregation().get(metric, mean)
    is_mean = aggregate is mean and all(isinstance(value, (int, float)) for value in values)
    return Metric(key, float(aggregate(values)), len(values), values, None if is_mean else aggregate)


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


def _group_result(name: str, output: dict[str, Any]) -> TaskResult:
    found = output["groups"][name]
    metrics = [
        Metric(key.removesuffix(",none"), float(value), found["sample_len"])
        for key, value in found.items()
        if "," in key and "_stderr," not in key and isinstance(value, (int, float))
    ]
    return TaskResult(name, metrics)


class _Meter:
    """Documents done so far, over all tasks: after every batch of generation, and at the end of each task."""

    def __init__(self, lm: EvalModel, counts: list[int], progress: Callable[[int, int], None] | None) -> None:
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


def _num_documents(loaded: TaskDict, spec: EvalSpec, lm: EvalModel) -> int:
    """Of this process's share."""
    counts = [min(len(task.eval_docs), spec.limit or len(task.eval_docs)) for task in loaded["tasks"].values()]
    return sum(len(range(lm.rank, count, lm.world_size)) for count in counts)


def _refuse_repeats(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"evals: {name}", "is evaluated twice", "name it once, and no group that holds it")


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval warns of what is meant here, and draws a progress bar for every task."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with patch.object(lm_eval.api.task, "tqdm", lambda iterable, **_: iterable):
            yield
    finally:
        logger.setLevel(level)
