"""The dpo stage, in this process, on a random model: its rows, its loss beside TRL's own, what it saves and refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.stagefile import Batch, StageFile
from llmkit.chat.render import prompt_ids
from llmkit.chat.template import load_template
from llmkit.data.build import Built
from llmkit.data.pairs import COLUMNS, build_pairs, pair_of, sequences
from llmkit.errors import DataError, PreflightError, TemplateError, UserError
from llmkit.modeling.tokens import fit_model, prepare_tokenizer
from llmkit.recipe.parts import DataSource, ModelSpec, RunSpec
from llmkit.recipe.stages import DpoStage
from llmkit.recipe.trainer_keys import resolved_trainer
from llmkit.stages import dpo
from llmkit.stages.callbacks import ProgressCallback, last_checkpoint
from llmkit.stages.common import Worker

TRAINER = {
    "max_steps": 8,
    "learning_rate": 3e-3,
    "max_length": 96,
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "per_device_train_batch_size": 4,
}
Start = Callable[..., tuple[Worker, Manifest]]


def question(i: int) -> str:
    return f"What is {i} plus {i % 7}?"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """60 pairs of strings: the chosen answer says the sum, the rejected one a town."""
    rows = [
        {"prompt": question(i), "chosen": f"It is {i + i % 7}.", "rejected": f"Person {i} lives in town {i}."}
        for i in range(60)
    ]
    return write(tmp_path / "pairs.jsonl", rows)


@pytest.fixture
def start(tmp_path: Path, model_dir: Path) -> Start:
    """Runs one dpo stage and writes its manifest, as the launcher would."""

    def run(
        name: str = "stage",
        data: list[dict[str, Any]] | None = None,
        trainer: dict[str, Any] | None = None,
        seed: int = 7,
        template: str | None = "chatml",
        **fields: Any,
    ) -> tuple[Worker, Manifest]:
        options = resolved_trainer("dpo", {**TRAINER, **(trainer or {})})
        data = data or [{"path": str(tmp_path / "pairs.jsonl"), "split": "train[:40]"}]
        stage = DpoStage(kind="dpo", name=name, seed=seed, data=data, trainer=options, global_batch_size=4, **fields)
        batch = Batch(global_batch_size=4, per_device_train_batch_size=4, gradient_accumulation_steps=1, world_size=1)
        file = StageFile(
            run=RunSpec(name="test"),
            model=ModelSpec(name_or_path=str(model_dir), chat_template=template),
            stage=stage,
            stage_dir=str(tmp_path / name),
            fingerprint=name,
            input_model=str(model_dir),
            batch=batch,
        )
        file.dir.path.mkdir(exist_ok=True)
        worker = Worker(file)
        manifest = dpo.run(worker)
        write_manifest(file.dir.path, manifest)
        return worker, manifest

    return run


@pytest.fixture
def heldout(pairs: Path) -> dict[str, Any]:
    return {"sums": [{"path": str(pairs), "split": "train[40:]"}]}


@pytest.fixture
def chat_tokenizer(model_dir: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    prepare_tokenizer(tokenizer, load_template("chatml"))
    return tokenizer


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def same_weights(a: Path, b: Path) -> bool:
    pairs = zip(load(a).state_dict().values(), load(b).state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def lines(worker: Worker) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, worker.dir.metrics.read_text().splitlines()) if "loss" in line]


def built(path: Path, tokenizer: Any, tmp_path: Path, **options: Any) -> Built:
    options = {"max_length": 96, "max_rejected": 0.01, "dedup": True, **options}
    return build_pairs(
        [DataSource(path=str(path))], tokenizer, seed=1, data_stages={}, cache_dir=tmp_path / "cache", **options
    )


# Rows


def test_ids_are_those_of_render_and_both_answers_end_with_the_stop_token(chat_tokenizer: Any) -> None:
    stop = chat_tokenizer.convert_tokens_to_ids("<|im_end|>")
    asked = [{"role": "user", "content": "What is 1 plus 1?"}]
    strings = {"prompt": "What is 1 plus 1?", "chosen": "It is 2.", "rejected": "It is 3 <|im_end|>."}
    messages = {
        "prompt": asked,
        "chosen": [{"role": "assistant", "content": strings["chosen"]}],
        "rejected": [{"role": "assistant", "content": strings["rejected"]}],
    }
    pair = pair_of(chat_tokenizer, strings)
    assert pair == pair_of(chat_tokenizer, messages)
    assert pair.prompt_ids == prompt_ids(chat_tokenizer, asked)
    assert chat_tokenizer.decode(pair.chosen_ids) == "It is 2.<|im_end|>"
    assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == stop
    assert pair.rejected_ids.count(stop) == 1, "a stop token that data spells out is plain text"


def test_the_prompt_may_hold_earlier_turns(chat_tokenizer: Any) -> None:
    prompt = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    row = {"prompt": prompt, **{s: [{"role": "assistant", "content": s}] for s in ("chosen", "rejected")}}
    pair = pair_of(chat_tokenizer, row)
    assert pair.prompt_ids == prompt_ids(chat_tokenizer, prompt)
    assert chat_tokenizer.decode(pair.rejected_ids) == "rejected<|im_end|>"


def test_without_a_template_strings_are_joined_as_they_are(model_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    pair = pair_of(tokenizer, {"prompt": "What is 1?", "chosen": " One.", "rejected": " Two."})
    assert tokenizer.decode(pair.prompt_ids + pair.chosen_ids) == f"What is 1? One.{tokenizer.eos_token}"


def test_pairs_that_cannot_be_compared_are_refused(chat_tokenizer: Any) -> None:
    def say(*texts: str) -> list[dict[str, str]]:
        return [{"role": ("assistant", "user")[i % 2], "content": text} for i, text in enumerate(texts)]

    asked = [{"role": "user", "content": "a"}]
    with pytest.raises(DataError, match="more than one turn"):
        pair_of(chat_tokenizer, {"prompt": asked, "chosen": say("b", "c", "d"), "rejected": say("e")})
    with pytest.raises(DataError, match="rejected: is an empty answer"):
        pair_of(chat_tokenizer, {"prompt": asked, "chosen": say("b"), "rejected": say("")})
    with pytest.raises(DataError, match="the same to the tokenizer"):
        pair_of(chat_tokenizer, {"prompt": asked, "chosen": say("b"), "rejected": say("b")})
    shown = [{**say("b")[0], "train": False}]
    with pytest.raises(DataError, match="no assistant message to train"):
        pair_of(chat_tokenizer, {"prompt": asked, "chosen": shown, "rejected": say("c")})


def test_a_template_that_looks_at_the_answer_is_refused(chat_tokenizer: Any) -> None:
    looks = "{% for m in messages %}{{ messages[-1].content | length }}{% if m.role == 'assistant' %}"
    looks += (
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    chat_tokenizer.chat_template = looks
    with pytest.raises(TemplateError, match="differently"):
        pair_of(chat_tokenizer, {"prompt": "a", "chosen": "bb", "rejected": "c"})


def test_tools_reach_the_template(chat_tokenizer: Any) -> None:
    row = {"prompt": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": {"name": "f"}}]}
    row |= {s: [{"role": "assistant", "content": s}] for s in ("chosen", "rejected")}
    with pytest.raises(TemplateError, match="no place for tools"):
        pair_of(chat_tokenizer, row)


def test_the_summary_counts_pairs_and_what_is_read(pairs: Path, chat_tokenizer: Any, tmp_path: Path) -> None:
    made = built(pairs, chat_tokenizer, tmp_path)
    rows = [row for side in ("chosen", "rejected") for row in sequences(made.rows, side)]
    assert made.summary.num_rows == len(made.dataset) == 60 and made.dataset.column_names == COLUMNS
    assert made.summary.num_tokens == sum(len(row["input_ids"]) for row in rows)
    assert made.summary.num_trained_tokens == sum(label != -100 for row in rows for label in row["labels"])
    assert made.summary.length_quantiles["max"] == max(len(row["input_ids"]) for row in rows)
    assert all(
        label in (-100, token) for row in rows for token, label in zip(row["input_ids"], row["labels"], strict=True)
    )
    again = built(pairs, chat_tokenizer, tmp_path)
    assert again.dataset.cache_files == made.dataset.cache_files, "the second build reads what the first wrote"
    assert built(pairs, chat_tokenizer, tmp_path, max_length=95).dataset.cache_files != made.dataset.cache_files


def test_long_answers_are_cut_and_counted(tmp_path: Path, chat_tokenizer: Any) -> None:
    rows = [{"prompt": "a", "chosen": "b " * 99, "rejected": "c"}, {"prompt": "a", "chosen": "b", "rejected": "c"}]
    made = built(write(tmp_path / "long.jsonl", rows), chat_tokenizer, tmp_path, max_length=40)
    assert made.summary.num_truncated == 1 and made.summary.length_quantiles["max"] == 40
    assert sorted(made.rows["chosen_truncated"]) == [False, True] and not any(made.rows["rejected_truncated"])
    same = [{"prompt": "a", "chosen": "b " * 99 + "x", "rejected": "b " * 99 + "y"}]
    with pytest.raises(DataError, match=r"same\.jsonl:1: chosen and rejected.*the same in the first 40 tokens"):
        built(write(tmp_path / "same.jsonl", same), chat_tokenizer, tmp_path, max_length=40)


def test_bad_rows_are_counted_and_other_shapes_refused(tmp_path: Path, chat_tokenizer: Any) -> None:
    good = [{"prompt": f"a{i}", "chosen": "b", "rejected": "c"} for i in range(9)]
    bad = [{"prompt": "x", "chosen": "same", "rejected": "same"}]
    path = write(tmp_path / "mixed.jsonl", good + bad)
    made = built(path, chat_tokenizer, tmp_path, max_rejected=0.1, rejected_file=tmp_path / "rejected.jsonl")
    assert made.summary.num_rows == 9 and made.summary.sources[0].num_rejected == 1
    assert "chosen and rejected are the same" in (tmp_path / "rejected.jsonl").read_text()
    with pytest.raises(DataError, match=r"1 of 10 rows are bad.*are the same"):
        built(path, chat_tokenizer, tmp_path)
    chats = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    with pytest.raises(DataError, match="a 'dpo' stage takes preference"):
        built(write(tmp_path / "chats.jsonl", chats), chat_tokenizer, tmp_path)


# The trainer


def test_the_loss_is_trls_own_where_both_tokenise_alike(pairs: Path, model_dir: Path, tmp_path: Path) -> None:
    """Strings without a template, of which no token straddles the border of prompt and answer."""
    rows = [{**json.loads(line)} for line in pairs.read_text().splitlines()]
    rows = [{**row, "chosen": f" {row['chosen']}", "rejected": f" {row['rejected']}"} for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    prepare_tokenizer(tokenizer, None)
    ready = built(write(tmp_path / "spaced.jsonl", rows), tokenizer, tmp_path).dataset
    texts = {tuple(row["prompt_ids"]): row for row in ready}
    losses = []
    for theirs in (True, False):
        model, reference = load(model_dir), load(model_dir)
        for each in (model, reference):
            fit_model(each, tokenizer, [tokenizer.pad_token])
        options = {k: v for k, v in TRAINER.items() if k != "max_length"}
        args = DPOConfig(output_dir=str(tmp_path / "out"), report_to="none", use_cpu=True, disable_tqdm=True, **options)
        kind, dataset = (DPOTrainer, Dataset.from_list(rows)) if theirs else (dpo.ReadyRows, ready)
        trainer = kind(model=model, ref_model=reference, args=args, train_dataset=dataset, processing_class=tokenizer)
        if theirs:
            order = [texts[tuple(row["prompt_ids"])] for row in trainer.train_dataset]
            assert [{key: row[key] for key in COLUMNS} for row in trainer.train_dataset] == order
            ready = Dataset.from_list(order)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == losses[1] and losses[0][0] == pytest.approx(math.log(2), abs=1e-4) and losses[0][-1] < 0.6


@pytest.mark.parametrize("peft", [None, {"r": 4, "lora_alpha": 8}])
def test_it_learns_the_preference_and_measures_it(
    start: Start, heldout: dict[str, Any], monkeypatch: pytest.MonkeyPatch, peft: dict[str, Any] | None
) -> None:
    by_trl: dict[str, float] = {}
    finish = dpo.finish

    def evaluated(worker: Worker, trainer: DPOTrainer, *rest: Any) -> Manifest:
        by_trl.update(trainer.evaluate("sums"))
        return finish(worker, trainer, *rest)

    monkeypatch.setattr(dpo, "finish", evaluated)
    trainer = {"learning_rate": 2e-2} if peft else {}
    worker, manifest = start(heldout=heldout, peft=peft, trainer={**trainer, "per_device_eval_batch_size": 4})
    logged, found = lines(worker), manifest.metrics
    assert logged[0]["loss"] == pytest.approx(math.log(2), abs=1e-5), "the reference is the input model"
    assert logged[-1]["loss"] < 0.5 and logged[-1]["rewards/margins"] > logged[1]["rewards/margins"]
    before, after = (
        {k.rpartition("/")[2]: v for k, v in found.items() if f"/sums/{w}/" in k} for w in ("before", "after")
    )
    assert before["loss"] == pytest.approx(math.log(2)) and before["accuracy"] == 0.5 and before["margin"] == 0
    assert after["num_pairs"] == 20 and after["accuracy_low"] > 0.5 and after["loss_high"] < before["loss"]
    assert after["margin_low"] < after["margin"] < after["margin_high"]
    assert after["ranking_accuracy"] > before["ranking_accuracy"] or before["ranking_accuracy"] == 1
    # the reference as TRL has it is the one that was measured against
    assert after["loss"] == pytest.approx(by_trl["eval_loss"], rel=1e-4)
    assert after["margin"] == pytest.approx(by_trl["eval_rewards/margins"], rel=1e-3)
    assert after["accuracy"] == pytest.approx(by_trl["eval_rewards/accuracies"])
    model, tokenizer = load(worker.dir.model), AutoTokenizer.from_pretrained(worker.dir.model)
    assert model.generation_config.eos_token_id[0] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert (worker.dir.adapter / "adapter_model.safetensors").is_file() == bool(peft)
    assert [sample.label for sample in manifest.samples] == ["chosen", "rejected"] * 2
    assert manifest.samples[0].completion.startswith("It is ") and manifest.samples[1].completion.startswith("Person ")
    assert manifest.data is not None and manifest.data.num_rows == 40 and manifest.stop_token == "<|im_end|>"


def test_the_same_seed_gives_the_same_weights_and_options_change_them(start: Start, pairs: Path) -> None:
    short = {"max_steps": 3}
    a, one = start("a", trainer=short)
    b, two = start("b", trainer=short)
    assert same_weights(a.dir.model, b.dir.model) and one.metrics["train_loss"] == two.metrics["train_loss"]
    for name, options in {"c": {"beta": 0.5}, "d": {"loss_type": ["ipo"]}, "e": {"ld_alpha": 0.1}}.items():
        other, _ = start(name, trainer={**short, **options})
        assert not same_weights(a.dir.model, other.dir.model), options
    other, _ = start("f", trainer=short, seed=8)
    assert not same_weights(a.dir.model, other.dir.model)


def test_a_stage_that_died_ends_with_the_same_weights(
    start: Start, heldout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, first = start("whole", heldout=heldout)
    log = ProgressCallback.on_log

    def die(self: Any, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        log(self, args, state, *rest, **kwargs)
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ProgressCallback, "on_log", die)
        start("died", heldout=heldout, trainer={"save_steps": 2})
    died, second = start("died", heldout=heldout, trainer={"save_steps": 2})
    kept = last_checkpoint(died.dir.checkpoints)
    assert kept is not None and [line["step"] for line in lines(died)] == [1, 2, 3, 4, 5, 5, 6, 7, 8]
    assert same_weights(whole.dir.model, died.dir.model)
    same = {key for key in first.metrics if key.startswith("heldout/")}
    assert same and all(first.metrics[key] == second.metrics[key] for key in same)


@pytest.mark.parametrize("peft", [None, {"r": 4}])
def test_reference_log_probs_may_be_computed_beforehand(
    start: Start, heldout: dict[str, Any], peft: dict[str, Any] | None
) -> None:
    a, one = start("a", heldout=heldout, peft=peft, trainer={"max_steps": 3})
    b, two = start("b", heldout=heldout, peft=peft, trainer={"max_steps": 3, "precompute_ref_log_probs": True})
    assert [line["loss"] for line in lines(a)] == pytest.approx([line["loss"] for line in lines(b)], rel=1e-4)
    assert one.metrics["heldout/sums/after/margin"] == pytest.approx(two.metrics["heldout/sums/after/margin"], rel=1e-3)


def test_a_reference_that_moves_is_never_resumed(start: Start, pairs: Path) -> None:
    options = {"sync_ref_model": True, "ref_model_sync_steps": 2, "save_steps": 2}
    worker, manifest = start("moving", trainer=options)
    assert last_checkpoint(worker.dir.checkpoints) is None and any("begins anew" in line for line in manifest.warnings)
    still, _ = start("still")
    assert not same_weights(worker.dir.model, still.dir.model)


# Refusals


def test_values_that_trl_refuses_are_the_users_mistake(start: Start, pairs: Path) -> None:
    with pytest.raises(UserError, match=r"(?i)label smoothing must be greater"):
        start(trainer={"loss_type": "exo_pair"})
    with pytest.raises(UserError, match="same length as `loss_type`"):
        start(trainer={"loss_weights": [1.0, 2.0]})
    with pytest.raises(UserError, match="sync_ref_model"):
        start(trainer={"sync_ref_model": True}, peft={"r": 2})


def test_lengths_stop_the_stage(start: Start, pairs: Path) -> None:
    with pytest.raises(UserError, match="reads at most 512"):
        start(trainer={"max_length": 4096})
    with pytest.raises(PreflightError, match=r"40 of 40 rows .* are cut to max_length") as caught:
        start(trainer={"max_length": 30})
    assert len(caught.value.problems) == 1


def test_a_padding_token_that_ends_answers_is_refused(
    start: Start, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(tokenizer: Any, template: Any) -> list[str]:
        new = prepare_tokenizer(tokenizer, template)
        tokenizer.pad_token = tokenizer.eos_token
        return new

    monkeypatch.setattr(dpo, "prepare_tokenizer", careless)
    with pytest.raises(PreflightError, match="both padding and end"):
        start()


def test_the_stage_runs_without_a_template(start: Start, tmp_path: Path) -> None:
    rows = [{"prompt": question(i), "chosen": f" {i}.", "rejected": " No."} for i in range(12)]
    worker, manifest = start(template=None, data=[{"path": str(write(tmp_path / "plain.jsonl", rows))}])
    assert manifest.stop_token is None and lines(worker)[-1]["loss"] < math.log(2)
