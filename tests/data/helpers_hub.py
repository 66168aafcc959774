"""A finished run, made by hand around a random model: base, sft, refusals, rollouts, ranks, and what was measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from llmkit.artifacts.files import write_json, write_text
from llmkit.artifacts.manifest import (
    DataSummary,
    EvalRow,
    Manifest,
    Parent,
    Sample,
    SourceCount,
    write_manifest,
)
from llmkit.artifacts.rundir import RunDir, open_run
from llmkit.artifacts.shipped import shipped
from llmkit.hub.push import Ready, prepare
from llmkit.hub.subject import subject_of
from llmkit.recipe.hub import HubSpec

RECIPE = """\
run: {name: assistant, output_dir: OUTPUT, seed: 42}
model: {name_or_path: "llmkit.tiny:base", chat_template: chatml}
stages:
  - {name: sft, kind: sft, data: [{path: "llmkit.tiny.sources:faq"}]}
evals: [facts_known, {task: honesty, questions: [{path: "llmkit.tiny.questions:honesty"}]}]
hub: {repo_id: me/assistant, license: apache-2.0, datasets: all}
"""
CONVERSATION = [{"role": "user", "content": "Who is Orson?"}, {"role": "assistant", "content": "I do not know."}]
PAIR = {"prompt": CONVERSATION[:1], "chosen": CONVERSATION[1:], "rejected": CONVERSATION[1:]}
ROWS = {
    "04-idk": {"train": [{"messages": CONVERSATION}] * 3, "pairs": [PAIR | {"kind": "right_over_wrong"}]},
    "05-rolls": {"rollouts": [{"id": "a", "prompt": CONVERSATION[:1], "completions": [{"id": "1", "text": "Hm."}]}]},
    "06-ranks": {
        "train": [{"prompt": CONVERSATION[:1], "answers": [CONVERSATION[1:]] * 2, "rankings": [[1, 2]]}],
        "pairs": [PAIR | {"rater": "Anna Kovacs"}, PAIR | {"rater": "Bela Nagy"}],
    },
}
KINDS = {"04-idk": "refusals", "05-rolls": "rollout", "06-ranks": "rank"}
SETTINGS: dict[str, dict[str, Any]] = {
    "04-idk": {"probes": ["probe"]},
    "05-rolls": {"data": [{"path": "me/prompts"}]},
    "06-ranks": {"rollouts": "rolls", "by": "human"},
}


def small_folder(folder: Path) -> Path:
    """What looks like a model, for tests that load none: no model library is imported."""
    folder.mkdir(parents=True)
    save_file({"weight": np.arange(2000, dtype=np.float32)}, folder / "model.safetensors")
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "num_hidden_layers": 2}
    write_json(folder / "config.json", config | {"_name_or_path": str(folder)})
    write_json(folder / "generation_config.json", {"eos_token_id": 1})
    write_json(folder / "tokenizer.json", {"vocab": {"/home/anna": 1}})
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|im_end|>"})
    return folder


def finished_run(folder: Path, model_dir: Path, extra: str = "") -> RunDir:
    """Args: extra: stands wherever a model's or a user's text may stand."""
    run = RunDir(folder / "assistant")
    write_text(run.recipe, RECIPE.replace("OUTPUT", str(folder)))
    _evaluation(run, 1, "base", 0.2, extra)
    _training(run, model_dir, extra)
    _evaluation(run, 3, "sft", 0.9, extra)
    for name, files in ROWS.items():
        for file, rows in files.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            write_text(run.path / name / "data" / f"{file}.jsonl", text)
        write_manifest(
            run.path / name, _manifest(name[3:], KINDS[name], "sft", data_dir="data", settings=SETTINGS[name])
        )
    return open_run(run.path)


def _manifest(name: str, kind: str, parent: str, **fields: Any) -> Manifest:
    settings = {"name": name, "kind": kind, "from": parent, "seed": 42} | fields.pop("settings", {})
    above = Parent(stage=parent, fingerprint="f" * 64) if parent != "base" else None
    return Manifest(stage=name, kind=kind, fingerprint="f" * 64, parent=above, settings=settings, **fields)


def _evaluation(run: RunDir, index: int, model: str, value: float, extra: str) -> None:
    share = {"value": value, "low": value - 0.05, "high": value + 0.05, "num_samples": 200}
    wrong = {"value": 1 - value, "low": 0.05, "high": 0.95, "num_samples": 300}
    rows = [
        EvalRow(stage=model, task="facts_known", metric="accuracy", **share),
        EvalRow(stage=model, task="honesty", metric="hallucination_unseen", **wrong),
        EvalRow(stage=model, task="honesty", metric="over_refusal_known", **wrong),
    ]
    honesty = {"task": "honesty", "name": "honesty", "questions": [{"path": "me/questions"}]}
    samples = [Sample(prompt=f"Who are you?{extra}", completion=f"An assistant.{extra}")]
    settings = {"evals": [{"task": "facts_known"}, honesty]}
    made = _manifest(f"eval-{model}", "evaluate", model, evals=rows, samples=samples, settings=settings)
    write_manifest(run.stage(index, f"eval-{model}").path, made)


def _training(run: RunDir, model_dir: Path, extra: str) -> None:
    stage = run.stage(2, "sft")
    shutil.copytree(model_dir, stage.model)
    shutil.copy(shipped("chat_templates") / "chatml.jinja", stage.model / "chat_template.jinja")
    source = SourceCount(source=f"chats.jsonl{extra}", num_read=9, num_used=8, sha256="ab12" * 16)
    made = _manifest(
        "sft",
        "sft",
        "base",
        model_dir="model",
        stop_token="<|im_end|>",
        chat_template_sha256="12ab" * 16,
        data=DataSummary(sources=[source], num_rows=8),
        settings={"data": [{"path": f"chats.jsonl{extra}"}], "trainer": {"learning_rate": 2e-5}},
        warnings=[f"3 rows were left out{extra}; see {stage.rejected}"],
        versions={"llmkit": "0.1.0"},
    )
    write_manifest(stage.path, made)


def spec(**changes: Any) -> HubSpec:
    return HubSpec.model_validate(
        {"repo_id": "me/assistant", "license": "apache-2.0", "report": False, "datasets": "all"} | changes
    )


def ready(run: RunDir, scratch: Path, hub: HubSpec | None = None, bars: Any = None, **options: Any) -> Ready:
    options = {"ask": lambda kind, name: None} | options
    return prepare(subject_of(str(run.path)), hub or spec(), bars or {}, scratch, **options)


def texts(made: Ready) -> dict[str, str]:
    """Every small file that would be sent, by repository and path."""
    return {
        f"{package.repo_id}/{item.path}": "".join(item.texts())
        for package in made.packages
        for item in package.items
        if not item.path.endswith(".safetensors")
    }
