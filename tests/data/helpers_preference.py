"""A random model with a chat template, and stages on it in this process, each reading what earlier ones left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.stagefile import Batch, StageFile
from llmkit.chat.template import load_template
from llmkit.modeling.tokens import fit_model, prepare_tokenizer
from llmkit.recipe import reads
from llmkit.recipe.parts import ModelSpec, RunSpec
from llmkit.recipe.schema import Stage
from llmkit.recipe.stages import TrainStage
from llmkit.recipe.trainer_keys import resolved_trainer
from llmkit.stages import best_of_n, rank, reward, rlhf, rollout
from llmkit.stages.common import Worker

STAGE: TypeAdapter[Any] = TypeAdapter(Stage)
MODULES = {"best_of_n": best_of_n, "rollout": rollout, "rank": rank, "reward": reward, "rlhf": rlhf}
TRAINER: dict[str, dict[str, Any]] = {
    "reward": {
        "max_steps": 12,
        "learning_rate": 3e-3,
        "max_length": 96,
        "bf16": False,
        "gradient_checkpointing": False,
    },
    "rlhf": {
        "max_steps": 6,
        "learning_rate": 3e-3,
        "num_generations": 4,
        "max_completion_length": 8,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_steps": 2,
    },
}


def vowels(completions: list[Any], **_: Any) -> list[float]:
    """A labeller that likes vowels."""
    texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
    return [sum(letter in "aeiou" for letter in text) / (len(text) or 1) for text in texts]


def silent(completions: list[Any], **_: Any) -> list[float | None]:
    """A labeller that scores the first answer only."""
    return [1.0, *[None] * (len(completions) - 1)]


def tuned(completions: list[Any], tone: list[str], **_: Any) -> list[float]:
    """A labeller that reads a column of the row."""
    signs = [{"high": 1.0, "low": -1.0}[one] for one in tone]
    return [sign * value for sign, value in zip(signs, vowels(completions), strict=True)]


def fine(completions: list[Any], **_: Any) -> list[float]:
    """A reward to which every answer is right."""
    return [1.0] * len(completions)


def chat_model(model_dir: Path, folder: Path, template: str = "chatml") -> Path:
    """Has the tokens of its template, and often ends its answers."""
    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(model_dir), AutoModelForCausalLM.from_pretrained(model_dir)
    new_tokens = prepare_tokenizer(tokenizer, load_template(template))
    fit_model(model, tokenizer, new_tokens)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.eos_token_id].normal_(std=2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_prompts(path: Path, numbers: range) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"What is {i} plus {i % 7}?"}) + "\n" for i in numbers))
    return path


class Chain:
    """Stages of one run in a folder."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.dirs: dict[str, Path] = {}

    def stage(self, kind: str, name: str, **fields: Any) -> Any:
        """As resolved by the plan."""
        stage = STAGE.validate_python({"kind": kind, "name": name, "seed": 7, **fields})
        if not isinstance(stage, TrainStage):
            return stage
        options = resolved_trainer(stage.trainer_kind, {**TRAINER[kind], **fields.get("trainer", {})})
        return stage.model_copy(update={"trainer": options})

    def file(self, kind: str, name: str, **fields: Any) -> StageFile:
        stage = self.stage(kind, name, **fields)
        batch = None
        if isinstance(stage, TrainStage) and getattr(stage, "train", True):
            size = stage.global_batch_size
            batch = Batch(
                global_batch_size=size, per_device_train_batch_size=size, gradient_accumulation_steps=1, world_size=1
            )
        spec = getattr(stage, "model", None) or ModelSpec(name_or_path=str(self.model), chat_template="chatml")
        return StageFile(
            run=RunSpec(name="test"),
            model=spec,
            stage=stage,
            stage_dir=str(self.folder / f"{len(self.dirs) + 1:02d}-{name}"),
            fingerprint=f"{kind} {name}",
            input_model=spec.name_or_path,
            data_stages={other: str(self.dirs[other]) for _, other in reads.stages(stage) if other in self.dirs},
            batch=batch,
        )

    def run(self, kind: str, name: str, **fields: Any) -> tuple[Worker, Manifest]:
        """Runs one stage and writes its manifest, as the launcher would."""
        file = self.file(kind, name, **fields)
        file.dir.path.mkdir(exist_ok=True)
        worker = Worker(file)
        manifest: Manifest = MODULES[kind].run(worker)
        write_manifest(file.dir.path, manifest)
        self.dirs[name] = file.dir.path
        return worker, manifest


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
