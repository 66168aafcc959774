"""A reward model: learns from rankings which of several answers to a prompt is better.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.reward recipe.yaml --stage reward

model/                 the model (an ensemble: model/0, model/1, ...), reward.json and prompts.npy beside it

Members are trained one after the other; a stage that was stopped goes on with the one that it was at. What is measured
is measured on what was saved, loaded again. A finished reward model (`train: false`) is saved as it is, and measured.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from trl import RewardConfig

from llmkit.artifacts.files import read_json, write_json
from llmkit.artifacts.manifest import Manifest
from llmkit.chat.template import ChatTemplate, template_of
from llmkit.data.pairs import tail_of
from llmkit.data.rankings import build_rankings
from llmkit.errors import DataError, ModelError, UserError
from llmkit.modeling.adapter import lora_config
from llmkit.modeling.reward_model import (
    CARD,
    PROMPTS,
    RewardCard,
    keep_scores_exact,
    load_finished,
    load_rewards,
    load_scorer,
)
from llmkit.modeling.tokens import fit_model, prepare_tokenizer
from llmkit.recipe.stages_preference import RewardStage
from llmkit.recipe.trainer_keys import declared
from llmkit.stages.common import Worker, main, where_of
from llmkit.stages.pretrain import input_tokenizer
from llmkit.stages.ranking_trainer import RankingCollator, RankingTrainer
from llmkit.stages.reward_measures import (
    ceiling,
    device,
    learning_curve,
    measured_on,
    real_scores,
    samples,
    scaled_card,
)
from llmkit.stages.sft import chat_template
from llmkit.stages.training import Rows, build_rows, check_length, processors, train_between, trainer_config

DONE = "done.json"
"""What a member's training came to: its existence means that the member is saved."""
ADDED = ("steps", "train_seconds")
"""Numbers of which an ensemble has the sum, and of others the mean."""
FEWEST = 20
"""Held-out prompts below which a warning says that the measures mean little."""
SCALED_OVER = 512
"""Prompts over which scores are scaled where none is held out."""


def run(worker: Worker) -> Manifest:
    stage = reward_stage(worker)
    if not stage.train:
        return adopt(worker)
    args = reward_args(worker, stage.seed or 0, "0")

    # Tokens are checked before the model loads
    tokenizer, max_positions = input_tokenizer(worker)
    template = chat_template(worker, tokenizer)
    new_tokens = prepare_tokenizer(tokenizer, template)
    check_length(worker, _max_length(stage), max_positions)
    rows = build_rows(worker, args, _builder(stage, tokenizer))
    train, heldout = split(worker, rows)

    shares = sorted(stage.learning_curve)
    if shares and not len(heldout):
        worker.warn("learning_curve is left out: no prompt is held out to measure it on; add rankings for it")
        shares = []
    member = Member(worker, tokenizer, template, new_tokens)
    trained = [
        member.train(number, train, worker.dir.model / _name(stage, number)) for number in range(stage.num_models)
    ]
    metrics = together(trained)
    curve = [(share, member.trained_on(share, train)) for share in shares]
    args.distributed_state.wait_for_everyone()
    if not worker.is_main:
        return worker.manifest()
    return finish(worker, tokenizer, rows, (train, heldout), metrics, curve)


def adopt(worker: Worker) -> Manifest:
    """Saves a finished reward model beside what is known of its scores on all rankings."""
    file, stage = worker.file, reward_stage(worker)
    # which process goes first, and nothing else
    args = TrainingArguments(output_dir=str(worker.dir.checkpoints), report_to=[], **processors())
    assert file.input_model is not None and stage.model is not None
    tokenizer, max_positions = input_tokenizer(worker)
    if prepare_tokenizer(tokenizer, chat_template(worker, tokenizer), own_pad=False):
        what = "has a chat template with tokens that it does not know"
        raise ModelError(file.input_model, what, "leave 'model.chat_template' out")
    check_length(worker, _max_length(stage), max_positions)
    rows = build_rows(worker, args, _builder(stage, tokenizer))
    check_truncated(worker, rows)
    if worker.is_main:
        spec = stage.model
        model = load_finished(
            file.input_model, dtype=spec.dtype, attn_implementation=spec.attn_implementation, revision=spec.revision
        )
        pad = model.config.get_text_config().pad_token_id
        if pad is not None:
            # its score stands at the last token that is no padding: which that is stays as it was
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
        fit_model(model, tokenizer, [])
        model.save_pretrained(worker.dir.model)
        tokenizer.save_pretrained(worker.dir.model)
    args.distributed_state.wait_for_everyone()
    if not worker.is_main:
        return worker.manifest()
    ranked = rows.train.rows
    if not len(ranked):
        raise DataError(where_of(worker, "data"), "holds no rankings", "name some, on which it is measured")
    return finish(worker, tokenizer, rows, (ranked.select([]), ranked), {}, [])


def _max_length(stage: RewardStage) -> int:
    length: int = stage.trainer.get("max_length") or declared("reward")["max_length"]
    return length


def _builder(stage: RewardStage, tokenizer: PreTrainedTokenizerBase) -> Any:
    return partial(build_rankings, tokenizer=tokenizer, max_length=_max_length(stage), degenerate=stage.degenerate)


def reward_stage(worker: Worker) -> RewardStage:
    stage = worker.file.stage
    assert isinstance(stage, RewardStage), stage.kind
    return stage


def _name(stage: RewardStage, number: int) -> str:
    return "." if stage.num_models == 1 else str(number)


def reward_args(worker: Worker, seed: int, member: str) -> RewardConfig:
    """The trainer's config. Raises UserError for what TRL refuses."""
    folder = str(worker.dir.checkpoints / member)
    return trainer_config(
        worker, RewardConfig, ("max_length",), max_length=None, seed=seed, data_seed=seed, output_dir=folder
    )


def split(worker: Worker, rows: Rows) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Training and held-out rows, by prompt: no prompt is on both sides, in this stage or in one with other rankings.

    Raises:
        DataError: nothing is left to train on, or too many prompts are longer than the model reads.
    """
    stage = reward_stage(worker)
    total = check_truncated(worker, rows)
    place_N = np.array(rows.train.rows["place"])
    train = rows.train.rows.select(np.flatnonzero(place_N >= stage.heldout_fraction))
    heldout = rows.train.rows.select(np.flatnonzero(place_N < stage.heldout_fraction))
    if not len(train):
        raise DataError(
            where_of(worker, "data"),
            f"none of {total} prompts is left to train on",
            "add rankings, or lower 'heldout_fraction'",
        )
    for name, built in rows.heldout.items():
        if num := int(np.isin(np.unique(built.rows["place"]), train["place"]).sum()):
            worker.warn(f"heldout '{name}': {num} of its prompts are trained on, too, and are no test")
    if stage.heldout_fraction and len(heldout) < FEWEST:
        worker.warn(f"{len(heldout)} held-out prompts are too few to tell how good the reward model is")
    return train, heldout


def check_truncated(worker: Worker, rows: Rows) -> int:
    """How many prompts there were. Raises DataError where too many are longer than the model reads."""
    stage, summary = reward_stage(worker), rows.train.summary
    total: int = summary.num_rows + summary.num_truncated
    if total and summary.num_truncated / total > stage.max_truncated:
        what = (
            f"{summary.num_truncated} of {total} rankings are longer than 'max_length', even without their older turns"
        )
        cure = "raise 'trainer.max_length', or 'max_truncated' to leave them out"
        raise DataError(where_of(worker, "data"), what, cure)
    return total


def together(trained: Sequence[dict[str, float]]) -> dict[str, float]:
    """What the members' trainings come to: steps and seconds of all, the mean of their last losses."""
    names = dict.fromkeys(name for each in trained for name in each)
    found = {name: sum(each.get(name, 0.0) for each in trained) for name in names}
    return {name: value if name in ADDED else value / len(trained) for name, value in found.items()}


class Member:
    """Trains single reward models on rows, each from the stage's input model."""

    def __init__(
        self, worker: Worker, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None, new_tokens: list[str]
    ) -> None:
        self.worker, self.tokenizer, self.template, self.new_tokens = worker, tokenizer, template, new_tokens
        self.stage = reward_stage(worker)
        self._seed = self.stage.seed or 0

    def train(self, number: int, rows: datasets.Dataset, target: Path, name: str | None = None) -> dict[str, float]:
        """Trains a member of seed `seed + number`, if it is not there yet, and saves it in `target`.

        Returns:
            What its training came to, also of an earlier start.
        """
        name = name or str(number)
        marker = self.worker.dir.checkpoints / name / DONE
        if marker.is_file():
            kept: dict[str, float] = read_json(marker)
            return kept
        seed = self._seed + number
        args = reward_args(self.worker, seed, name)
        model = self._load(seed, self.stage.peft.quantization if self.stage.peft else None)
        try:
            trainer = RankingTrainer(
                model=model,
                args=args,
                train_dataset=rows,
                data_collator=RankingCollator(self.tokenizer.pad_token_id, _multiple(args)),
                processing_class=self.tokenizer,
                peft_config=lora_config(self.stage.peft, model, self._token_ids(), self.worker.file.revision, "SEQ_CLS")
                if self.stage.peft
                else None,
                loss=self.stage.loss,
            )
        except (ValueError, NotImplementedError) as error:
            raise UserError(where_of(self.worker, "trainer"), str(error).strip().splitlines()[0]) from error
        keep_scores_exact(trainer.model)
        _, _, metrics, seconds = train_between(self.worker, trainer, dict)
        self._save(trainer, seed, target, name)
        found = {key: value for key, value in metrics.items() if key != "train_loss"} | {"train_seconds": seconds}
        if self.worker.is_main:
            write_json(marker, found)
        del trainer, model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return found

    def trained_on(self, share: float, rows: datasets.Dataset) -> Path:
        """Folder of a member that was trained on the first so many rows."""
        target = self.worker.dir.cache / f"share-{share:g}"
        self.train(0, rows.select(range(max(1, round(share * len(rows))))), target, name=f"share-{share:g}")
        return target

    def _load(self, seed: int, quantization: str | None = None) -> PreTrainedModel:
        file = self.worker.file
        assert file.input_model is not None
        model = load_scorer(
            file.input_model,
            seed=seed,
            dtype=file.model.dtype,
            attn_implementation=file.model.attn_implementation,
            revision=file.model.revision if file.parent is None else None,
            quantization=quantization,
            num_layers=self.stage.num_layers,
        )
        fit_model(model, self.tokenizer, self.new_tokens)
        return model

    def _token_ids(self) -> list[int]:
        tokens = sorted({*self.new_tokens, *(self.template.special_tokens if self.template else ())})
        ids: list[int] = self.tokenizer.convert_tokens_to_ids(tokens)
        return ids

    def _save(self, trainer: RankingTrainer, seed: int, target: Path, name: str) -> None:
        """The whole model with its tokenizer; with an adapter also that one."""
        adapter = self.worker.dir.adapter / name
        trainer.save_model(str(adapter if self.stage.peft else target))
        if not self.worker.is_main:
            return
        if self.stage.peft:
            merged = PeftModel.from_pretrained(self._load(seed), adapter).merge_and_unload(safe_merge=True)
            merged.save_pretrained(target)
        self.tokenizer.save_pretrained(target)
        for folder in (target, adapter):
            # a pickle that nothing reads
            (folder / "training_args.bin").unlink(missing_ok=True)


def _multiple(args: RewardConfig) -> int | None:
    return args.pad_to_multiple_of if isinstance(args.pad_to_multiple_of, int) else None


def finish(
    worker: Worker,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    parts: tuple[datasets.Dataset, datasets.Dataset],
    metrics: dict[str, float],
    curve: list[tuple[float, Path]],
) -> Manifest:
    """Loads what was saved, measures it, and writes down the scale of its scores."""
    stage, folder = reward_stage(worker), worker.dir.model
    train, heldout = parts
    template = template_of(tokenizer)
    card = RewardCard(
        members=[_name(stage, number) for number in range(stage.num_models)],
        means=[0.0] * stage.num_models,
        deviations=[1.0] * stage.num_models,
        low=[0.0] * stage.num_models,
        high=[0.0] * stage.num_models,
        max_length=_max_length(stage),
        # others are trained on whole conversations, as their template writes them
        tail_ids=[] if stage.train else tail_of(tokenizer),
        dtype=stage.scores_in,
        chat_template_sha256=template.sha256 if template else None,
        seed=worker.file.seed,
    )
    write_json(folder / CARD, card.model_dump())
    np.save(folder / PROMPTS, np.array(train["place"]))
    models = load_rewards(folder, device=device())
    measured = heldout if len(heldout) else train.select(range(min(SCALED_OVER, len(train))))
    card = scaled_card(card, real_scores(models, measured))
    write_json(folder / CARD, card.model_dump())
    models.card = card

    found = {"heldout": measured} if len(heldout) else {}
    found |= {name: built.rows for name, built in rows.heldout.items()}
    named = {"heldout": (stage.data, rows.train.summary.sources)}
    named |= {name: (stage.heldout[name], built.summary.sources) for name, built in rows.heldout.items()}
    for name, each in found.items():
        own = measured_on(models, each) | ceiling(worker, *named[name])
        metrics |= {f"{name}/{key}": value for key, value in own.items()}
    if len(heldout):
        card = card.model_copy(update={"accuracy": metrics.get("heldout/accuracy")})
        write_json(folder / CARD, card.model_dump())
    curves = [learning_curve(card, curve, len(train), measured, metrics)] if curve else []
    return worker.manifest(
        model_dir=folder.name,
        adapter_dir=worker.dir.adapter.name if stage.peft else None,
        chat_template_sha256=card.chat_template_sha256,
        stop_token=template.stop_token if template else None,
        metrics=metrics,
        curves=curves,
        data=rows.train.summary,
        samples=samples(models, measured),
    )


if __name__ == "__main__":
    main("reward", run)
