"""Several answers to every prompt, from one or more models, to be ranked.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.rollout recipe.yaml --stage rollout

data/rollouts.jsonl    {"id", "prompt", "completions": [{"id", "text", "model", "logprob", "num_tokens",
                       "finish_reason"}, ...], "columns"}: what `llmkit rank` and the `rank` stage read

Answers of a prompt are distinct in their words. Processes share the prompts out, chunk by chunk (with several hosts on
a disk that they share); a stage that was stopped goes on with the chunks that it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from llmkit.artifacts.files import sha256_of
from llmkit.artifacts.manifest import DataSummary, Manifest, Sample, read_manifest
from llmkit.chat.ask import Answer, Engine
from llmkit.data.problems import Problem, Problems
from llmkit.errors import RunError, UserError
from llmkit.knowledge.store import Row, Steps, writing
from llmkit.preference.rollouts import FILE
from llmkit.recipe.stages_preference import RolloutStage
from llmkit.stages.asked import chunks_of, in_chunks, processes
from llmkit.stages.common import Worker, main, where_of
from llmkit.stages.engines import AskedModel, check_installed
from llmkit.stages.problems import read_problems
from llmkit.stages.solving import ask_of, check_answers

CHUNK = 128
"""Prompts per chunk: the same for any number of processes, so that the answers are."""
Completions = list[dict[str, Any]]


def run(worker: Worker) -> Manifest:
    stage, state, steps = rollout_stage(worker), processes(worker), Steps(worker.dir.data / "steps")
    if stage.engine == "continuous":
        worker.warn("'engine: continuous' gives no log-probabilities of sampled answers: 'logprob' is null in the rows")
    models = models_of(worker)
    asked = {name: AskedModel(worker, stage.engine, stage.batch_size, folder) for name, folder in models.items()}
    prompts = prepare(worker, stage, asked)
    if worker.is_main:
        steps.begin({step_of(name): sha256_of(worker.file.fingerprint) for name in models})
    state.wait_for_everyone()
    rates = [answer_chunks(worker, state, steps, name, prompts, one) for name, one in asked.items()]
    if not worker.is_main:
        return worker.manifest()
    return keep(worker, prompts, steps, list(models), [rate for rate in rates if rate is not None])


def rollout_stage(worker: Worker) -> RolloutStage:
    stage = worker.file.stage
    assert isinstance(stage, RolloutStage), stage.kind
    return stage


def step_of(model: str) -> str:
    """Name of a model's answers among the stage's steps."""
    return f"completions-{model}"


def models_of(worker: Worker) -> dict[str, str]:
    """Stage -> folder or Hub id of its model; the stage's own input model first. Raises RunError without one."""
    file, stage = worker.file, rollout_stage(worker)
    assert file.input_model is not None
    found = {stage.from_: file.input_model}
    for name in stage.models:
        folder = Path(file.data_stages[name])
        manifest = read_manifest(folder)
        made = manifest and (manifest.model_dir or manifest.adapter_dir)
        if not made:
            raise RunError(f"stage '{stage.name}': models", f"'{name}' left no model", "name a stage that trains one")
        found.setdefault(name, str(folder / made))
    return found


def prepare(worker: Worker, stage: RolloutStage, asked: Mapping[str, AskedModel]) -> Problems:
    """The prompts, before a model loads. Raises UserError where the models cannot be asked the same."""
    chats = {name: one.chat for name, one in asked.items()}
    for one in asked.values():
        check_installed(stage.engine, one.input_model, one.revision)
    if len(set(chats.values())) > 1:
        listed = ", ".join(f"{name} ({'with' if chat else 'without'})" for name, chat in chats.items())
        what = f"some models have a chat template and others none: {listed}"
        raise UserError(where_of(worker, "models"), what, "ask them in stages of their own")
    rejected = worker.dir.rejected if worker.is_main else None
    return read_problems(worker, stage.data, rejected_file=rejected, chat=all(chats.values()))


def answer_chunks(
    worker: Worker, state: PartialState, steps: Steps, model: str, prompts: Problems, asked: AskedModel
) -> float | None:
    """Has this process's share of the prompts answered, as far as that is not on disk, and waits for the others.

    Returns:
        Prompts per second over all processes; None: all answers were there.
    """
    stage, chunks = rollout_stage(worker), chunks_of(len(prompts), CHUNK)

    def rows_of(numbers: Sequence[int]) -> Iterable[Row]:
        made = completions(asked.engine, [prompts[number] for number in numbers], stage, worker.file.seed)
        return ({"prompt": number, "completions": found} for number, found in zip(numbers, made, strict=True))

    rate = in_chunks(worker, state, steps, step_of(model), chunks, rows_of, unit="prompts")
    asked.free()
    return rate


def completions(engine: Engine, prompts: Sequence[Problem], stage: RolloutStage, seed: int) -> list[Completions]:
    """Distinct answers to each prompt, which depend on the prompt and the seed alone.

    Raises:
        RunError: the engine failed on a prompt.
    """
    found: list[dict[str, Answer]] = [{} for _ in prompts]
    for attempt in range(stage.max_tries):
        todo = [number for number, own in enumerate(found) if len(own) < stage.num_completions]
        missing = [stage.num_completions - len(found[number]) for number in todo]
        asks = [
            ask_of(prompts[number], f"{prompts[number].key} {attempt}", (stage.temperature,) * count)
            for number, count in zip(todo, missing, strict=True)
        ]
        if not asks:
            break
        answers = engine.answer(asks, max_new_tokens=stage.max_new_tokens, top_p=stage.top_p, seed=seed)
        for number, given in zip(todo, answers, strict=True):
            check_answers(prompts[number], given)
            for answer in given:
                found[number].setdefault(answer.text.strip(), answer)
    return [[_completion(answer) for answer in own.values()] for own in found]


def _completion(answer: Answer) -> dict[str, Any]:
    return {
        "text": answer.text,
        "logprob": answer.logprob,
        "num_tokens": answer.num_tokens,
        "finish_reason": answer.finish_reason,
    }


def keep(worker: Worker, prompts: Problems, steps: Steps, models: Sequence[str], rates: Sequence[float]) -> Manifest:
    """Writes the items, and says what they are. Raises UserError where nothing can be ranked."""
    folder, counts, num_tokens = worker.dir.data, Counter[str](), 0
    samples: list[Sample] = []
    num_chunks = -(-len(prompts) // CHUNK)
    with writing(folder / FILE) as write:
        for rows in zip(*(steps.rows(step_of(name), num_chunks) for name in models), strict=True):
            problem = prompts[rows[0]["prompt"]]
            item = item_of(problem, dict(zip(models, rows, strict=True)))
            made = item["completions"]
            counts["prompts"] += 1
            if len(made) < 2:
                counts["without_choice"] += 1
                continue
            write(item)
            counts["completions"] += len(made)
            counts["cut_off"] += sum(one["finish_reason"] == "length" for one in made)
            num_tokens += sum(one["num_tokens"] or 0 for one in made)
            if len(samples) < 3:
                samples += [Sample(prompt=problem.asked, completion=one["text"], label=one["model"]) for one in made]
    num_items = counts["prompts"] - counts["without_choice"]
    if not num_items:
        what = f"none of {counts['prompts']} prompts has two different answers"
        raise UserError(where_of(worker, "temperature"), what, "raise it, or give more 'max_tries'")
    if counts["without_choice"]:
        worker.warn(f"{counts['without_choice']} prompts have a single answer, and are left out")
    metrics: dict[str, float] = {name: float(count) for name, count in counts.items()}
    metrics |= {"completions_per_prompt": counts["completions"] / num_items}
    metrics |= {"tokens_per_completion": num_tokens / counts["completions"]}
    if rates:
        metrics["prompts_per_second"] = min(rates)
    return worker.manifest(
        data_dir=folder.name,
        metrics=metrics,
        samples=samples,
        data=DataSummary(
            sources=prompts.counts, num_rows=num_items, num_tokens=num_tokens, rejected_file=prompts.rejected_file
        ),
    )


def item_of(problem: Problem, rows: Mapping[str, Row]) -> Row:
    """A prompt with the distinct answers of all models. Their ids do not tell who wrote them."""
    distinct: dict[str, dict[str, Any]] = {}
    for model, completion in _written(rows):
        id = sha256_of(completion["text"])[:12]
        distinct.setdefault(completion["text"].strip(), {"id": id, **completion, "model": model})
    item: Row = {"id": problem.key[:16], "prompt": problem.prompt, "completions": list(distinct.values())}
    return item | ({"columns": problem.columns} if problem.columns else {})


def _written(rows: Mapping[str, Row]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((model, completion) for model, row in rows.items() for completion in row["completions"])


if __name__ == "__main__":
    main("rollout", run)
