"""Evaluation of one model: lm-eval tasks, honesty evaluations, and prompts answered for people to read.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.evaluate recipe.yaml --stage eval-sft

With several processes every one holds the whole model; the documents of the tasks are shared out, and the main one
gathers the results, has answers judged, and answers the prompts.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.artifacts.manifest import DataSummary, EvalRow, Manifest, Sample, read_manifest
from llmkit.chat.render import prompt_ids, render_text
from llmkit.chat.template import template_of
from llmkit.evaluate.harness import run_tasks
from llmkit.evaluate.results import TaskResult
from llmkit.evaluate.rows import eval_rows
from llmkit.generation.sample import Completion, generate
from llmkit.modeling.load import load_spec, load_tokenizer
from llmkit.recipe.knowledge import HonestySpec
from llmkit.recipe.schema import EvalSpec, EvaluateStage
from llmkit.stages.asked import processes
from llmkit.stages.common import Worker, main
from llmkit.stages.honesty import DOCUMENTS, run_honesty

BASE = "base"


def run(worker: Worker) -> Manifest:
    file, stage = worker.file, evaluate_stage(worker)
    assert file.input_model is not None
    is_base = file.parent is None
    device = processes(worker).device
    worker.log("load", 0, 1)
    tokenizer = load_tokenizer(file.input_model, file.model.revision if is_base else None)
    model = load_spec(file.model, file.input_model, is_base).to(device).eval()
    template = template_of(tokenizer)

    started = time.monotonic()
    completions = answer(worker, stage, model, tokenizer) if worker.is_main else []
    generating = time.monotonic() - started
    results = run_tasks(
        model,
        tokenizer,
        [spec for spec in stage.evals if isinstance(spec, EvalSpec)],
        use_chat_template=template is not None,
        batch_size=stage.batch_size,
        seed=worker_seed(worker),
        out_dir=worker.dir.path / DOCUMENTS,
        progress=lambda done, total: worker.log("evaluate", done, total),
    )
    honesty = run_honesty(
        worker,
        [spec for spec in stage.evals if isinstance(spec, HonestySpec)],
        model,
        tokenizer,
        batch_size=stage.batch_size,
        seed=worker_seed(worker),
        measured=measured(worker.file.parent),
        compared=compared(worker),
    )
    num_tokens = sum(len(completion.ids) for completion in completions)
    manifest = worker.manifest(
        evals=rows(worker, results) + honesty.evals,
        curves=honesty.curves,
        data=DataSummary(sources=honesty.sources) if honesty.sources else None,
        # only the main process has completions, and only its manifest is written
        samples=[Sample(prompt=p, completion=c.text) for p, c in zip(stage.prompts, completions, strict=False)],
        chat_template_sha256=template.sha256 if template else None,
        stop_token=template.stop_token if template else tokenizer.eos_token,
        metrics={"evaluate_seconds": round(time.monotonic() - started - generating, 2)} if stage.evals else {},
        tokens_per_second=num_tokens / generating if num_tokens else None,
    )
    manifest.versions["lm_eval"] = version("lm_eval")
    return manifest


def evaluate_stage(worker: Worker) -> EvaluateStage:
    stage = worker.file.stage
    assert isinstance(stage, EvaluateStage)
    return stage


def worker_seed(worker: Worker) -> int:
    seed = worker.file.stage.seed
    return worker.file.run.seed if seed is None else seed


def answer(
    worker: Worker, stage: EvaluateStage, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[Completion]:
    """Greedy, as a user's message where the tokenizer has a chat template, else as plain text to go on from."""
    return generate(
        model,
        tokenizer,
        [ids_of(tokenizer, prompt) for prompt in stage.prompts],
        max_new_tokens=stage.max_new_tokens,
        batch_size=stage.batch_size,
        on_progress=lambda done, total: worker.log("generate", done, total),
    )


def ids_of(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    if tokenizer.chat_template:
        return prompt_ids(tokenizer, [{"role": "user", "content": prompt}])
    return render_text(tokenizer, prompt, add_eos=False).input_ids


def rows(worker: Worker, results: list[TaskResult]) -> list[EvalRow]:
    """With paired differences to the same documents at the evaluation that the plan names."""
    for warning in (warning for result in results for warning in result.warnings):
        worker.warn(warning)
    origin = compared(worker)
    return eval_rows(
        results,
        measured(worker.file.parent),
        seed=worker_seed(worker),
        compare_with=origin[1] / DOCUMENTS if origin else None,
        delta_from=origin[0] if origin else None,
        warn=worker.warn,
    )


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
