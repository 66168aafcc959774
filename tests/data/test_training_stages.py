"""The training stages, in this process, on a random model: what they save, what they say, what they refuse."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.stagefile import Batch, StageFile
from llmkit.chat.encode import document_eos
from llmkit.errors import ModelError, PreflightError, TemplateError, UserError
from llmkit.modeling.load import load_model
from llmkit.recipe.parts import ModelSpec, RunSpec
from llmkit.recipe.stages import PretrainStage, SftStage
from llmkit.recipe.trainer_keys import resolved_trainer
from llmkit.stages import pretrain, sft, training
from llmkit.stages.common import Worker

TRAINER = {
    "max_steps": 6,
    "learning_rate": 5e-3,
    "max_length": 128,
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "per_device_train_batch_size": 4,
}
Start = Callable[..., tuple[Worker, Manifest]]


@pytest.fixture
def start(tmp_path: Path, model_dir: Path) -> Start:
    """Runs one stage and writes its manifest, as the launcher would."""

    def run(
        kind: str,
        name: str = "stage",
        template: str = "chatml",
        parent: Path | None = None,
        trainer: dict[str, Any] | None = None,
        model: Path | None = model_dir,
        **fields: Any,
    ) -> tuple[Worker, Manifest]:
        schema, run_stage = {"sft": (SftStage, sft.run), "pretrain": (PretrainStage, pretrain.run)}[kind]
        options = resolved_trainer(kind, {**TRAINER, **(trainer or {})})
        stage = schema(kind=kind, name=name, seed=7, trainer=options, global_batch_size=4, **fields)
        batch = Batch(global_batch_size=4, per_device_train_batch_size=4, gradient_accumulation_steps=1, world_size=1)
        file = StageFile(
            run=RunSpec(name="test"),
            model=ModelSpec(name_or_path=str(model), chat_template=template),
            stage=stage,
            stage_dir=str(tmp_path / name),
            fingerprint=name,
            parent=str(parent) if parent else None,
            input_model=str(parent / "model") if parent else (str(model) if model else None),
            batch=batch,
        )
        file.dir.path.mkdir(exist_ok=True)
        worker = Worker(file)
        manifest = run_stage(worker)
        write_manifest(file.dir.path, manifest)
        return worker, manifest

    return run


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def same_weights(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_sft_learns_and_saves_what_chat_needs(start: Start, chats: Path) -> None:
    worker, manifest = start(
        "sft", data=[{"path": str(chats)}], heldout={"chats": [{"path": str(chats), "num_rows": 30}]}
    )
    model, tokenizer = load(worker.dir.model), AutoTokenizer.from_pretrained(worker.dir.model)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token == "<|im_end|>" and document_eos(tokenizer) == "<|endoftext|>"
    assert model.generation_config.eos_token_id == [stop, tokenizer.convert_tokens_to_ids("<|endoftext|>")]
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert tokenizer.pad_token_id not in model.generation_config.eos_token_id
    before, after = manifest.heldout["chats"].before, manifest.heldout["chats"].after
    assert before is not None and after is not None and after.high < before.low
    assert manifest.stop_token == "<|im_end|>" and manifest.chat_template_sha256
    assert not list(worker.dir.model.rglob("*.bin")), "no pickles in what is kept"
    lines = [json.loads(line) for line in worker.dir.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if line["phase"] == "train"] == list(range(7))
    assert manifest.data is not None and manifest.data.num_rows == 120 and manifest.metrics["steps"] == 6


def test_pretrain_from_scratch_learns_documents(start: Start, documents: Path) -> None:
    shape = {"model_type": "qwen3", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 128}
    worker, manifest = start(
        "pretrain",
        model=None,
        init="scratch",
        architecture={**shape, "tie_word_embeddings": True},
        tokenizer={"vocab_size": 350},
        data=[{"path": str(documents), "split": "train[:90%]"}],
        heldout={"documents": [{"path": str(documents), "split": "train[90%:]"}]},
        trainer={"max_steps": 20},
    )
    before, after = manifest.heldout["documents"].before, manifest.heldout["documents"].after
    assert before is not None and after is not None and after.high < before.low
    assert after.bits_per_byte is not None and before.bits_per_byte is not None
    assert after.bits_per_byte < before.bits_per_byte
    assert len(AutoTokenizer.from_pretrained(worker.dir.model)) == load(worker.dir.model).config.vocab_size <= 350


def test_the_same_seed_gives_the_same_weights_and_another_does_not(start: Start, chats: Path) -> None:
    data = [{"path": str(chats)}]
    a, _ = start("sft", "a", data=data, trainer={"max_steps": 3})
    b, _ = start("sft", "b", data=data, trainer={"max_steps": 3})
    c, _ = start("sft", "c", data=data, trainer={"max_steps": 3, "learning_rate": 1e-3})
    assert same_weights(load(a.dir.model), load(b.dir.model))
    assert not same_weights(load(a.dir.model), load(c.dir.model))


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_an_adapter_and_its_merged_model_agree(start: Start, chats: Path, model_dir: Path, method: str) -> None:
    peft = {"r": 4, "lora_alpha": 8, "method": method}
    worker, _ = start("sft", data=[{"path": str(chats)}], peft=peft, trainer={"learning_rate": 2e-2})
    tokenizer = AutoTokenizer.from_pretrained(worker.dir.model)
    merged, adapted = load(worker.dir.model).eval(), load_model(str(worker.dir.adapter)).eval()
    ids = torch.tensor(
        [tokenizer.apply_chat_template([{"role": "user", "content": "What is 3 plus 3?"}], return_dict=False)]
    )
    assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-3)
    plain, size = torch.tensor([tokenizer("It is 3.").input_ids]), load(model_dir).config.vocab_size
    assert not torch.allclose(merged(plain).logits[..., :size], load(model_dir)(plain).logits, atol=1e-3)


def test_new_tokens_are_trained_under_lora(start: Start, chats: Path, model_dir: Path) -> None:
    worker, _ = start("sft", data=[{"path": str(chats)}], peft={"r": 2}, trainer={"learning_rate": 2e-2})
    tokenizer, trained = AutoTokenizer.from_pretrained(worker.dir.model), load(worker.dir.model)
    rows, old = trained.get_input_embeddings().weight, load(model_dir).get_input_embeddings().weight
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert not torch.allclose(rows[stop], old.mean(0), atol=1e-3), "the stop token's row did not move"
    assert torch.equal(rows[: len(old)], old), "rows of old tokens must not move"


def test_qlora_trains_in_four_bits(start: Start, chats: Path, model_dir: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(model_dir, hidden_size=64, intermediate_size=128, head_dim=32)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")  # bitsandbytes works on blocks of 64
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(tmp_path / "wide")
    worker, manifest = start(
        "sft",
        model=tmp_path / "wide",
        data=[{"path": str(chats)}],
        heldout={"chats": [{"path": str(chats), "num_rows": 30}]},
        peft={"r": 4, "quantization": "nf4"},
        trainer={"learning_rate": 2e-2},
    )
    before, after = manifest.heldout["chats"].before, manifest.heldout["chats"].after
    assert before is not None and after is not None and after.loss < before.loss
    assert (worker.dir.adapter / "adapter_model.safetensors").is_file() and (
        worker.dir.model / "model.safetensors"
    ).is_file()


def test_a_chain_must_keep_its_template(start: Start, chats: Path) -> None:
    first, _ = start("sft", "first", data=[{"path": str(chats)}], trainer={"max_steps": 1})
    start("sft", "second", data=[{"path": str(chats)}], parent=first.dir.path, trainer={"max_steps": 1})
    with pytest.raises(TemplateError, match="was trained with"):
        start("sft", "third", template="chatml_sep", data=[{"path": str(chats)}], parent=first.dir.path)


def test_documents_among_chats_keep_their_own_end(start: Start, chats: Path, documents: Path) -> None:
    worker, _ = start("sft", data=[{"path": str(chats)}, {"path": str(documents)}], trainer={"max_steps": 1})
    second, _ = start(
        "sft", "second", data=[{"path": str(documents)}], parent=worker.dir.path, trainer={"max_steps": 1}
    )
    tokenizer = AutoTokenizer.from_pretrained(second.dir.model)
    assert tokenizer.eos_token == "<|im_end|>" and document_eos(tokenizer) == "<|endoftext|>"


def test_a_loss_that_is_not_a_number_stops_the_stage_and_keeps_the_last_good_checkpoint(
    start: Start, chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmkit.stages import callbacks

    poisoned = callbacks.ProgressCallback.on_log

    def poison(
        self: Any, args: Any, state: Any, control: Any, logs: Any = None, model: Any = None, **rest: Any
    ) -> None:
        if state.global_step == 3 and model is not None:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))
        poisoned(self, args, state, control, logs=logs, **rest)

    monkeypatch.setattr(callbacks.ProgressCallback, "on_log", poison)
    with pytest.raises(UserError, match=r"(loss|grad_norm|weight).*(nan|not finite)"):
        start("sft", data=[{"path": str(chats)}], trainer={"save_steps": 2})
    kept = callbacks.last_checkpoint(tmp_path / "stage" / "checkpoints")
    assert kept is not None and kept.name == "checkpoint-2"
    assert all(p.isfinite().all() for p in load(kept).parameters())


def test_rows_longer_than_the_model_are_refused(start: Start, chats: Path) -> None:
    with pytest.raises(UserError, match="reads at most 512"):
        start("sft", data=[{"path": str(chats)}], trainer={"max_length": 4096})


def test_truncated_answers_stop_the_stage(start: Start, chats: Path) -> None:
    with pytest.raises(PreflightError, match="cut to max_length"):
        start("sft", data=[{"path": str(chats)}], trainer={"max_length": 24})


def test_a_tokenizer_of_another_model_is_refused(start: Start, chats: Path, model_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    model, tokenizer = load(model_dir), AutoTokenizer.from_pretrained(model_dir)
    model.resize_token_embeddings(200)
    model.save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(ModelError, match="not of one model"):
        start("sft", data=[{"path": str(chats)}], model=other)


def test_a_model_without_a_tokenizer_is_refused(start: Start, chats: Path, model_dir: Path, tmp_path: Path) -> None:
    load(model_dir).save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelError, match="has no tokenizer"):
        start("sft", data=[{"path": str(chats)}], model=tmp_path / "bare")


def test_a_trainer_value_that_upstream_refuses_costs_nothing(start: Start, chats: Path) -> None:
    with pytest.raises(UserError, match="trainer"):
        start("sft", data=[{"path": str(chats)}], trainer={"lr_scheduler_type": "no_such_schedule"})


def test_rows_that_spell_out_special_tokens_are_named(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "formatted.jsonl"
    text = "<|im_start|>user\nhi {}<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
    path.write_text("".join(json.dumps({"text": text.format(i)}) + "\n" for i in range(8)))
    _, manifest = start("sft", data=[{"path": str(path)}], trainer={"max_steps": 1})
    assert any("8 of 8 rows spell out special tokens" in warning for warning in manifest.warnings)


def test_numbers_go_to_nobody_unless_told(start: Start, chats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a training asked for the network")

    for integration, callback in list(INTEGRATION_TO_CALLBACK.items()):
        monkeypatch.setitem(
            INTEGRATION_TO_CALLBACK, integration, type(callback.__name__, (Told,), {"__init__": refuse})
        )
    monkeypatch.setattr(socket.socket, "connect", refuse)
    start("sft", data=[{"path": str(chats)}], trainer={"max_steps": 1})


class Told(TrainerCallback):
    """What stands in for tensorboard's writer."""

    said: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.said.append({**logs, "run_name": args.run_name, "folder": os.environ["TENSORBOARD_LOGGING_DIR"]})


def test_compiling_without_a_compiler_is_refused_at_once(
    start: Start, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpp_builder = pytest.importorskip("torch._inductor.cpp_builder")

    def found_none() -> str:
        raise cpp_builder.exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", found_none)
    with pytest.raises(UserError, match=r"trainer\.torch_compile: finds no C\+\+ compiler; install one"):
        start("sft", data=[{"path": str(chats)}], trainer={"max_steps": 2, "torch_compile": True})


def test_report_to_reaches_the_trainer(
    start: Start, chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    told = {"data": [{"path": str(chats)}], "trainer": {"max_steps": 2, "report_to": "tensorboard"}}
    monkeypatch.setattr(training, "get_available_reporting_integrations", list)
    with pytest.raises(UserError, match=r"trainer\.report_to: 'tensorboard' is not installed"):
        start("sft", **told)
    with pytest.raises(UserError, match=r"there is no reporter 'smoke'; have: .*trackio"):
        start("sft", data=told["data"], trainer={"report_to": "smoke"})
    monkeypatch.setattr(training, "get_available_reporting_integrations", lambda: ["tensorboard"])
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Told)
    Told.said.clear()
    start("sft", **told)
    assert [entry["run_name"] for entry in Told.said if "loss" in entry] == ["test-stage"] * 2
    assert Told.said[0]["folder"] == str(tmp_path / "stage" / "tensorboard"), "not among checkpoints, which go"
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
