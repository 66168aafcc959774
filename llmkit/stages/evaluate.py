"""Evaluation of one model: lm-eval tasks, honesty evaluations, and prompts answered for people to read.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.evaluate recipe.yaml --stage eval-sft

With several processes every one holds the whole model; the documents of the tasks are shared out, and the main one
gathers the results, has answers judged, and answers the prompts. What is done lies in data/steps (with several hosts on
a disk that they share), and a stage that was stopped goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.artifacts.files import sha256_of
from llmkit.artifacts.manifest import DataSummary, EvalRow, Manifest, Sample, read_manifest
from llmkit.artifacts.stagefile import StageFile
from llmkit.chat.render import prompt_ids, render_text
from llmkit.chat.template import template_of
from llmkit.evaluate.harness import Prepared, prepare_tasks, run_tasks
from llmkit.evaluate.results import Document, TaskResult, read_documents, write_documents
from llmkit.evaluate.rows import eval_rows
from llmkit.generation.engine import TransformersEngine
from llmkit.generation.sample import generate
from llmkit.knowledge.store import Row, Steps, read_rows, writing
from llmkit.modeling.load import load_spec, load_tokenizer
from llmkit.recipe.identity import IdentityEval
from llmkit.recipe.knowledge import HonestySpec
from llmkit.recipe.practice import ProblemsSpec
from llmkit.recipe.preference import PreferenceSpec
from llmkit.recipe.schema import EvalSpec, EvaluateStage
from llmkit.recipe.tools import ToolsSpec
from llmkit.recipe.trials import JailbreakSpec, ReversalSpec
from llmkit.stages.asked import model_parts, processes
from llmkit.stages.asking import Manner
from llmkit.stages.common import Worker, main
from llmkit.stages.honesty import DOCUMENTS, prepare, run_honesty, step_keys
from llmkit.stages.identity import evaluate_identity, to_read
from llmkit.stages.jailbreak import evaluate_jailbreak
from llmkit.stages.jailbreak import prepare as prepare_jailbreaks
from llmkit.stages.own_template import with_place
from llmkit.stages.preferences import evaluate_preference
from llmkit.stages.preferences import prepare as prepare_preferences
from llmkit.stages.problems import evaluate_problems
from llmkit.stages.problems import prepare as prepare_problems
from llmkit.stages.reversal import evaluate_reversal
from llmkit.stages.reversal import prepare as prepare_reversals
from llmkit.stages.tool_use import evaluate_tools
from llmkit.stages.tool_use import prepare as prepare_tools

Spec = TypeVar("Spec")
BASE = "base"
TASKS, PROMPTS, PROBLEMS, PREFERENCES = "tasks", "prompts", "problems", "preferences"
TOOLS, IDENTITY, REVERSAL, JAILBREAK = "tools", "identity", "reversal", "jailbreak"
OWN_STEPS = (PROBLEMS, PREFERENCES, TOOLS, IDENTITY, REVERSAL, JAILBREAK)
"""Steps: names of their files in data/steps."""


def run(worker: Worker) -> Manifest:
    file, stage = worker.file, evaluate_stage(worker)
    assert file.input_model is not None
    state, steps, is_base = processes(worker), Steps(worker.dir.data / "steps"), file.parent is None
    specs = specs_of(stage, HonestySpec)
    prepared = prepare(worker, steps, specs)
    tokenizer = load_tokenizer(file.input_model, file.model.revision if is_base else None)
    template = template_of(tokenizer)
    own = own_evaluations(worker, state, stage, tokenizer, chat=template is not None)
    if worker.is_main:
        steps.begin(own_keys(file, stage) | step_keys(file, steps, specs))
    state.wait_for_everyone()
    tasks = unfinished_tasks(worker, steps, state, chat=template is not None)
    worker.log("load", 0, 1)
    model = load_spec(file.model, file.input_model, is_base).to(state.device).eval()

    prompted = answer_prompts(worker, steps, stage, model, tokenizer) if worker.is_main else {}
    started = time.monotonic()
    evals = evaluate_tasks(worker, steps, tasks, model, tokenizer)
    for place, evaluate in own:
        engine = TransformersEngine(model, tokenizer, stage.batch_size)
        evals += once(worker, steps, state, place, partial(evaluate, engine=engine))
    honesty = run_honesty(
        worker,
        steps,
        specs,
        prepared,
        model,
        tokenizer,
        batch_size=stage.batch_size,
        measured=measured(worker.file.parent),
        compared=compared(worker),
    )
    manifest = worker.manifest(
        evals=evals + honesty.evals,
        curves=honesty.curves,
        data=DataSummary(sources=honesty.sources) if honesty.sources else None,
        # only the main process has texts, and only its manifest is written
        samples=[Sample(prompt=p, completion=t) for p, t in zip(stage.prompts, prompted.get("texts", []), strict=False)]
        + (identities_read(worker, stage) if worker.is_main else []),
        chat_template_sha256=template.sha256 if template else None,
        stop_token=template.stop_token if template else tokenizer.eos_token,
        metrics=({"evaluate_seconds": round(time.monotonic() - started, 2)} if stage.evals else {}) | honesty.metrics,
        tokens_per_second=prompted.get("tokens_per_second"),
    )
    manifest.versions["lm_eval"] = version("lm_eval")
    return manifest


def own_evaluations(
    worker: Worker, state: PartialState, stage: EvaluateStage, tokenizer: PreTrainedTokenizerBase, *, chat: bool
) -> list[tuple[tuple[str, int], Callable[..., TaskResult]]]:
    """llmkit's own but `honesty`, prepared before the model is loaded: step and place on disk, and what evaluates once
    it is given an `engine`. Raises as their `prepare` do."""
    made: list[tuple[tuple[str, int], Callable[..., TaskResult]]] = []
    problems = with_place(worker, specs_of(stage, ProblemsSpec), tokenizer, chat=chat)
    for index, (spec, prepared) in enumerate(
        zip(problems, prepare_problems(worker, problems, tokenizer, chat=chat), strict=True)
    ):
        options = {"tokenizer": tokenizer, "chat": chat}
        made.append(((PROBLEMS, index), partial(evaluate_problems, worker, state, spec, prepared, **options)))
    preferences = specs_of(stage, PreferenceSpec)
    of = measured(worker.file.parent)
    for index, (preference, prompts) in enumerate(
        zip(preferences, prepare_preferences(worker, preferences, chat=chat), strict=True)
    ):
        made.append(((PREFERENCES, index), partial(evaluate_preference, worker, state, preference, prompts, model=of)))
    tools = specs_of(stage, ToolsSpec)
    for index, (tool, questions) in enumerate(
        zip(tools, prepare_tools(worker, tools, tokenizer, chat=chat), strict=True)
    ):
        if questions is not None:
            asking = partial(evaluate_tools, worker, state, tool, questions, tokenizer=tokenizer)
            made.append(((TOOLS, index), asking))
    manner = Manner.of(tokenizer, chat=chat)
    for index, identity in enumerate(specs_of(stage, IdentityEval)):
        made.append(((IDENTITY, index), partial(evaluate_identity, worker, state, identity, manner=manner)))
    reversals = specs_of(stage, ReversalSpec)
    for index, (reversal, pairs) in enumerate(zip(reversals, prepare_reversals(worker, reversals), strict=True)):
        made.append(((REVERSAL, index), partial(evaluate_reversal, worker, state, reversal, pairs, manner=manner)))
    jailbreaks = specs_of(stage, JailbreakSpec)
    for index, (jailbreak, requests) in enumerate(
        zip(jailbreaks, prepare_jailbreaks(worker, jailbreaks, chat=chat), strict=True)
    ):
        made.append(
            ((JAILBREAK, index), partial(evaluate_jailbreak, worker, state, jailbreak, requests, manner=manner))
        )
    return made


def identities_read(worker: Worker, stage: EvaluateStage) -> list[Sample]:
    """Answers of the evaluations of identity, for people to read."""
    folder = worker.dir.path / DOCUMENTS
    return [sample for spec in specs_of(stage, IdentityEval) for sample in to_read(read_documents(folder, spec.name))]


def specs_of(stage: EvaluateStage, kind: type[Spec]) -> list[Spec]:
    """The evaluations of one kind."""
    return [spec for spec in stage.evals if isinstance(spec, kind)]


def evaluate_stage(worker: Worker) -> EvaluateStage:
    stage = worker.file.stage
    assert isinstance(stage, EvaluateStage)
    return stage


def own_keys(file: StageFile, stage: EvaluateStage) -> dict[str, str]:
    """What the results of the tasks and the answers to the prompts depend on; see `Steps.begin`."""
    tasks = {f"evals.{spec.task}" for spec in specs_of(stage, EvalSpec)} | {"compare_with"}
    own = {name: part for name, part in file.inputs.items() if name in tasks}
    model = model_parts(file)
    return {
        **dict.fromkeys(OWN_STEPS, sha256_of(file.fingerprint)),
        TASKS: sha256_of([model, own]),
        PROMPTS: sha256_of([model, stage.prompts, stage.max_new_tokens]),
    }


def answer_prompts(
    worker: Worker, steps: Steps, stage: EvaluateStage, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Row:
    """`{"texts", "tokens_per_second"}`, of this start or an earlier one: greedy, as a user's message where there is a
    chat template, else as plain text to go on from."""
    if not steps.have(PROMPTS):
        started = time.monotonic()
        completions = generate(
            model,
            tokenizer,
            [ids_of(tokenizer, prompt) for prompt in stage.prompts],
            max_new_tokens=stage.max_new_tokens,
            batch_size=stage.batch_size,
            on_progress=lambda done, total: worker.log("generate", done, total),
        )
        num_tokens, seconds = sum(len(completion.ids) for completion in completions), time.monotonic() - started
        rate = num_tokens / seconds if num_tokens else None
        with writing(steps.whole(PROMPTS)) as write:
            write({"texts": [completion.text for completion in completions], "tokens_per_second": rate})
    (row,) = read_rows(steps.whole(PROMPTS))
    return row


def ids_of(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    if tokenizer.chat_template:
        return prompt_ids(tokenizer, [{"role": "user", "content": prompt}])
    return render_text(tokenizer, prompt, add_eos=False).input_ids


def unfinished_tasks(worker: Worker, steps: Steps, state: PartialState, *, chat: bool) -> dict[int, Prepared]:
    """lm-eval's tasks by their place, without those of an earlier start. Raises as `prepare_tasks` does."""
    specs = dict(enumerate(specs_of(evaluate_stage(worker), EvalSpec)))
    todo = {index: spec for index, spec in specs.items() if not steps.path(TASKS, index).is_file()}
    state.wait_for_everyone()  # all have looked before one writes
    found = prepare_tasks(list(todo.values()), use_chat_template=chat, seed=worker.file.seed)
    return dict(zip(todo, found, strict=True))


def evaluate_tasks(
    worker: Worker,
    steps: Steps,
    tasks: dict[int, Prepared],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> list[EvalRow]:
    """lm-eval's tasks, each once it is done on disk."""
    stage, todo = evaluate_stage(worker), list(tasks)
    run_tasks(
        model,
        tokenizer,
        list(tasks.values()),
        batch_size=stage.batch_size,
        seed=worker.file.seed,
        progress=lambda done, total: worker.log("evaluate", done, total),
        on_done=lambda place, results: steps.write(TASKS, todo[place], (kept(worker, each) for each in results)),
    )
    places = range(len(specs_of(stage, EvalSpec))) if worker.is_main else []
    return [row for index in places for row in rows(worker, steps, index, TASKS)]


def once(
    worker: Worker, steps: Steps, state: PartialState, place: tuple[str, int], evaluate: Callable[[], TaskResult]
) -> list[EvalRow]:
    """One evaluation of llmkit's own; what an earlier start has done is not done again."""
    step, index = place
    is_done = steps.path(step, index).is_file()
    state.wait_for_everyone()  # all have looked before one writes
    if not is_done:
        result = evaluate()
        if worker.is_main:
            steps.write(step, index, [kept(worker, result)])
    return list(rows(worker, steps, index, step)) if worker.is_main else []


def kept(worker: Worker, result: TaskResult) -> Row:
    """A task's rows of the manifest, with paired differences to the same documents at the evaluation that the plan
    names; its warnings and documents."""
    origin, warnings = compared(worker), list(result.warnings)
    found = eval_rows(
        [result],
        measured(worker.file.parent),
        seed=worker.file.seed,
        compare_with=origin[1] / DOCUMENTS if origin else None,
        delta_from=origin[0] if origin else None,
        warn=warnings.append,
    )
    documents = [asdict(document) for document in result.documents]
    return {"task": result.task, "rows": [row.model_dump() for row in found], "warnings": warnings, "docs": documents}


def rows(worker: Worker, steps: Steps, index: int, step: str) -> Iterator[EvalRow]:
    """Of the manifest. Writes the documents, too: what lies outside `data/steps` may be gone."""
    for result in steps.read(step, index):
        for warning in result["warnings"]:
            worker.warn(warning)
        if result["docs"]:
            documents = [Document(**document) for document in result["docs"]]
            write_documents(worker.dir.path / DOCUMENTS, TaskResult(result["task"], [], documents))
        yield from (EvalRow(**row) for row in result["rows"])


def measured(model_stage_dir: str | None) -> str:
    """Name of the stage that made the measured model."""
    manifest = read_manifest(Path(model_stage_dir)) if model_stage_dir else None
    return manifest.stage if manifest else BASE


def compared(worker: Worker) -> tuple[str, Path] | None:
    """Stage whose model differences are taken to, and the folder of its evaluation."""
    if worker.file.compare_with is None:
        return None
    folder = Path(worker.file.compare_with)
    manifest = read_manifest(folder)
    return (manifest.parent.stage if manifest and manifest.parent else BASE), folder


if __name__ == "__main__":
    main("evaluate", run)
