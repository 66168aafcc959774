"""Several answers to every prompt, from one or more models, to be ranked.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.rollout recipe.yaml --stage rollout

data/rollouts.jsonl    {"id", "prompt", "completions": [{"id", "text", "model", "logprob", "num_tokens",
                       "finish_reason"}, ...], "columns"}: what `llmkit rank` and the `rank` stage read. With tools
                       a row has their schemas as "tools", and a completion all turns and results as "messages".
                       What several models wrote has all of them as "models"

Answers of a prompt are distinct in their words, with tools also in what they call. Processes share the prompts out,
chunk by chunk (with several hosts on a disk that they share); a stage that was stopped goes on with the chunks that it
has.
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
from llmkit.chat.told import num_calls, transcript, whole_of
from llmkit.data.problems import Problem, Problems
from llmkit.errors import RunError, UserError
from llmkit.knowledge.store import Row, Steps, writing
from llmkit.preference.rollouts import FILE
from llmkit.recipe.stages_preference import RolloutStage
from llmkit.stages.asked import chunks_of, in_chunks, processes
from llmkit.stages.at_hand import reads_back, schemas_of, tools_of, with_tools
from llmkit.stages.common import Worker, main, where_of
from llmkit.stages.engines import AskedModel, check_installed
from llmkit.stages.problems import read_problems
from llmkit.stages.prompting import ask_of
from llmkit.stages.solving import check_answers
from llmkit.stages.talking import check_tools
from llmkit.tools.toolbox import Toolbox

CHUNK = 128
"""Prompts per chunk: the same for any number of processes, so that the answers are."""
Completions = list[dict[str, Any]]


def run(worker: Worker) -> Manifest:
    stage, state, steps = rollout_stage(worker), processes(worker), Steps(worker.dir.data / "steps")
    if stage.engine == "continuous":
        worker.warn("'engine: continuous' gives no log-probabilities of sampled answers: 'logprob' is null in the rows")
    models = models_of(worker)
    asked = {name: AskedModel(worker, stage.engine, stage.batch_size, folder) for name, folder in models.items()}
    with tools_of(worker) as tools:
        prompts = prepare(worker, stage, asked, tools)
        if worker.is_main:
            steps.begin({step_of(name): sha256_of(worker.file.fingerprint) for name in models})
        state.wait_for_everyone()
        rates = [answer_chunks(worker, state, steps, name, prompts, one, tools) for name, one in asked.items()]
        schemas = schemas_of(tools)
    if not worker.is_main:
        return worker.manifest()
    return keep(worker, prompts, steps, list(models), [rate for rate in rates if rate is not None], schemas)


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


def prepare(
    worker: Worker, stage: RolloutStage, asked: Mapping[str, AskedModel], tools: Toolbox | None = None
) -> Problems:
    """The prompts, before a model loads. Raises UserError where the models cannot be asked the same, or cannot call."""
    chats = {name: one.chat for name, one in asked.items()}
    for one in asked.values():
        check_installed(stage.engine, one.input_model, one.revision)
        if tools is not None:
            check_tools(one.tokenizer, tools.schemas, exact=True)
    if len(set(chats.values())) > 1:
        listed = ", ".join(f"{name} ({'with' if chat else 'without'})" for name, chat in chats.items())
        what = f"some models have a chat template and others none: {listed}"
        raise UserError(where_of(worker, "models"), what, "ask them in stages of their own")
    rejected = worker.dir.rejected if worker.is_main else None
    prompts = read_problems(worker, stage.data, rejected_file=rejected, chat=all(chats.values()))
    for one in asked.values():
        prompts = one.fitting(prompts, stage.max_truncated, schemas_of(tools))
    first: dict[str, int] = {}
    for number, prompt in enumerate(prompts):
        first.setdefault(item_id(prompt), number)
    if num := len(prompts) - len(first):
        worker.warn(f"{num} of {len(prompts)} prompts stand there before, perhaps in another source: not asked again")
    return prompts.only(list(first.values()))


def item_id(prompt: Problem) -> str:
    """What a prompt is called in the rankings."""
    return prompt.key[:16]


def answer_chunks(
    worker: Worker,
    state: PartialState,
    steps: Steps,
    model: str,
    prompts: Problems,
    asked: AskedModel,
    tools: Toolbox | None = None,
) -> float | None:
    """Has this process's share of the prompts answered, as far as that is not on disk, and waits for the others.

    Returns:
        Prompts per second over all processes; None: all answers were there.
    """
    stage, chunks = rollout_stage(worker), chunks_of(len(prompts), CHUNK)

    def rows_of(numbers: Sequence[int]) -> Iterable[Row]:
        engine = with_tools(asked.engine, asked.tokenizer, tools, stage.max_calls)
        made = completions(engine, [prompts[number] for number in numbers], stage, worker.file.seed)
        return (
            {"prompt": number, "completions": found, "unreadable": num}
            for number, (found, num) in zip(numbers, made, strict=True)
        )

    rate = in_chunks(worker, state, steps, step_of(model), chunks, rows_of, unit="prompts")
    asked.free()
    return rate


def completions(
    engine: Engine, prompts: Sequence[Problem], stage: RolloutStage, seed: int
) -> list[tuple[Completions, int]]:
    """Distinct answers to each prompt, which depend on the prompt and the seed alone; and how many were left out, as no
    row holds them (`reads_back`).

    Raises:
        RunError: the engine failed on a prompt.
    """
    found: list[dict[str, Answer]] = [{} for _ in prompts]
    num_left_out = [0] * len(prompts)
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
                if reads_back(prompts[number].prompt, answer):
                    found[number].setdefault(whole_of(answer.text, answer.messages).strip(), answer)
                else:
                    num_left_out[number] += 1
    return [
        ([_completion(answer) for answer in own.values()], num) for own, num in zip(found, num_left_out, strict=True)
    ]


def _completion(answer: Answer) -> dict[str, Any]:
    turns = {"messages": list(answer.messages)} if answer.messages else {}
    return turns | {
        "text": answer.text,
        "logprob": answer.logprob,
        "num_tokens": answer.num_tokens,
        "finish_reason": answer.finish_reason,
    }


def keep(
    worker: Worker,
    prompts: Problems,
    steps: Steps,
    models: Sequence[str],
    rates: Sequence[float],
    schemas: Sequence[dict[str, Any]] = (),
) -> Manifest:
    """Writes the items, and says what they are. Raises UserError where nothing can be ranked.

    Args:
        schemas: of the tools at hand.
    """
    folder, counts, num_tokens, num_called = worker.dir.data, Counter[str](), 0, 0
    samples: list[Sample] = []
    num_chunks = -(-len(prompts) // CHUNK)
    with writing(folder / FILE) as write:
        for rows in zip(*(steps.rows(step_of(name), num_chunks) for name in models), strict=True):
            problem = prompts[rows[0]["prompt"]]
            item = item_of(problem, dict(zip(models, rows, strict=True)), schemas)
            made = item["completions"]
            counts["prompts"] += 1
            if schemas:
                counts["unreadable"] += sum(row["unreadable"] for row in rows)
            if len(made) < 2:
                counts["without_choice"] += 1
                continue
            write(item)
            counts["completions"] += len(made)
            counts["cut_off"] += sum(one["finish_reason"] == "length" for one in made)
            num_tokens += sum(one["num_tokens"] or 0 for one in made)
            num_called += sum(num_calls(one.get("messages", ())) for one in made)
            if len(samples) < 3:
                samples += [_sample(problem, one) for one in made]
    num_items = counts["prompts"] - counts["without_choice"]
    if not num_items:
        what = f"none of {counts['prompts']} prompts has two different answers"
        if counts["unreadable"]:
            what += f"; {counts['unreadable']} answers were left out for calls that cannot be read"
        raise UserError(where_of(worker, "temperature"), what, "raise it, or give more 'max_tries'")
    if counts["without_choice"]:
        worker.warn(f"{counts['without_choice']} prompts have a single answer, and are left out")
    metrics: dict[str, float] = {name: float(count) for name, count in counts.items()}
    metrics |= {"completions_per_prompt": counts["completions"] / num_items}
    metrics |= {"tokens_per_completion": num_tokens / counts["completions"]}
    if schemas:
        metrics["calls_per_answer"] = num_called / counts["completions"]
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


def item_of(problem: Problem, rows: Mapping[str, Row], schemas: Sequence[dict[str, Any]] = ()) -> Row:
    """A prompt with the distinct answers of all models. Their ids do not tell who wrote them; `models` is there where
    several did."""
    distinct: dict[str, dict[str, Any]] = {}
    for model, completion in _written(rows):
        whole = whole_of(completion["text"], completion.get("messages", ()))
        one = distinct.setdefault(whole.strip(), {"id": sha256_of(whole)[:12], **completion, "model": model})
        if model not in (writers := one.get("models", [one["model"]])):
            one["models"] = [*writers, model]
    item: Row = {"id": item_id(problem), "prompt": problem.prompt, "completions": list(distinct.values())}
    item |= {"tools": list(schemas)} if schemas else {}
    return item | ({"columns": problem.columns} if problem.columns else {})


def _sample(problem: Problem, made: Mapping[str, Any]) -> Sample:
    said = transcript(made["messages"]) if "messages" in made else made["text"]
    return Sample(prompt=problem.asked, completion=said, label=made["model"])


def _written(rows: Mapping[str, Row]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((model, completion) for model, row in rows.items() for completion in row["completions"])


if __name__ == "__main__":
    main("rollout", run)
