"""Stopping by over-refusal: what is counted, which weights are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.stagefile import Batch, StageFile
from llmkit.chat.ask import Answer
from llmkit.errors import DataError
from llmkit.recipe.knowledge import EarlyStoppingSpec
from llmkit.recipe.parts import ModelSpec, RunSpec
from llmkit.recipe.stages import SftStage
from llmkit.recipe.trainer_keys import resolved_trainer
from llmkit.stages import early_stopping, sft
from llmkit.stages.common import Worker

TRAINER = {
    "max_steps": 6,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "max_length": 128,
    "bf16": False,
    "gradient_checkpointing": False,
    "per_device_train_batch_size": 4,
}


class Scripted:
    """An engine that says what is written for a question."""

    def __init__(self, *_: Any) -> None: ...

    def answer(self, asks: Any, **_: Any) -> Iterator[list[Answer]]:
        said = {"q1": "Ten.", "q2": "I do not know.", "q3": "Five.", "q4": "I have no idea.", "q5": "Two."}
        for ask in asks:
            yield [Answer(said[ask.prompt[0]["content"]], "stop")]


def test_shares_of_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_stopping, "TransformersEngine", Scripted)
    answers = {"q1": "ten", "q2": "ten", "q3": "ten", "q4": "ten", "q5": "ten"}
    rows = [{"question": q, "answers": [a], "refused": q in ("q4", "q5")} for q, a in answers.items()]
    shares = early_stopping.balance(None, None, rows, 8)  # type: ignore[arg-type]
    assert shares["known_right"] == pytest.approx(1 / 3) and shares["known_refused"] == pytest.approx(1 / 3)
    assert shares["unknown_refused"] == 0.5 and shares["balance"] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_both_sides_are_needed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    row = {"question": "q", "answers": ["a"], "entity": "e", "refused": True}
    (tmp_path / "data" / "watched.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="0 known and 1 unknown"):
        early_stopping.watched(EarlyStoppingSpec(from_="idk"), tmp_path, "here")


@pytest.fixture
def idk(tmp_path: Path) -> Path:
    """A `refusals` stage that has run."""
    folder = tmp_path / "idk"
    (folder / "data").mkdir(parents=True)
    rows = [{"question": f"q{i}", "answers": ["a"], "entity": "", "refused": i % 2 == 0} for i in range(4)]
    (folder / "data" / "watched.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"refusals": {"texts": {"it": ["Boh."], "en": ["Pass."]}}}
    write_manifest(folder, Manifest(stage="idk", kind="refusals", fingerprint="f", settings=settings))
    return folder


def train(tmp_path: Path, model_dir: Path, chats: Path, idk: Path, name: str, **fields: Any) -> tuple[Worker, Manifest]:
    trainer = resolved_trainer("sft", {**TRAINER, **fields.pop("trainer", {})})
    stage = SftStage(
        kind="sft", name=name, seed=7, trainer=trainer, global_batch_size=4, data=[{"path": str(chats)}], **fields
    )
    file = StageFile(
        run=RunSpec(name="test"),
        model=ModelSpec(name_or_path=str(model_dir), chat_template="chatml"),
        stage=stage,
        stage_dir=str(tmp_path / name),
        fingerprint=name,
        input_model=str(model_dir),
        data_stages={"idk": str(idk)},
        batch=Batch(global_batch_size=4, per_device_train_batch_size=4, gradient_accumulation_steps=1, world_size=1),
    )
    file.dir.path.mkdir(exist_ok=True)
    worker = Worker(file)
    return worker, sft.run(worker)


def test_the_best_weights_are_kept_and_training_stops(
    tmp_path: Path, model_dir: Path, chats: Path, idk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.5, 0.9, 0.7, 0.9, 0.95, 0.95])

    def scripted(*args: Any) -> dict[str, float]:
        assert args[-1] == ["Boh.", "Pass."], "the recipe's refusals in all languages"
        value = next(found)
        return {"balance": value, "known_right": value, "known_refused": 0.0, "unknown_refused": value}

    monkeypatch.setattr(early_stopping, "balance", scripted)
    stop = {"from": "idk", "every": 1, "patience": 2}
    worker, manifest = train(tmp_path, model_dir, chats, idk, "stopped", early_stopping=stop)
    assert manifest.metrics["steps"] == 4 and manifest.metrics["best_step"] == 2
    assert manifest.metrics["best_balance"] == 0.9
    two, _ = train(tmp_path, model_dir, chats, idk, "two", trainer={"max_steps": 2})
    kept, wanted = (AutoModelForCausalLM.from_pretrained(w.dir.model).state_dict() for w in (worker, two))
    assert all(torch.equal(kept[key], wanted[key]) for key in wanted)
    lines = [json.loads(line) for line in worker.dir.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if line["phase"] == "watch"] == [1, 2, 3, 4]


def test_a_killed_stage_remembers_the_best(
    tmp_path: Path, model_dir: Path, chats: Path, idk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [0.5, 0.9, 0.7, 0.6, 0.8, 0.85]
    num_asked = []

    def scripted(*_: Any) -> dict[str, float]:
        num_asked.append(1)
        if len(num_asked) == 5:
            raise KeyboardInterrupt
        value = found[len(num_asked) - 1 - (len(num_asked) > 5)]
        return {"balance": value, "known_right": value, "known_refused": 0.0, "unknown_refused": value}

    monkeypatch.setattr(early_stopping, "balance", scripted)
    stop = {"from": "idk", "every": 1, "patience": 9}
    trainer = {"save_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, model_dir, chats, idk, "killed", early_stopping=stop, trainer=trainer)
    _, manifest = train(tmp_path, model_dir, chats, idk, "killed", early_stopping=stop, trainer=trainer)
    assert manifest.metrics["best_step"] == 2 and manifest.metrics["steps"] == 6
