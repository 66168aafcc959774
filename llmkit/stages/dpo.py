"""Direct preference optimisation on pairs of a better and a worse answer (Rafailov et al. 2023), by TRL's DPOTrainer.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.dpo recipe.yaml --stage dpo

The reference model is the stage's input model, frozen; with an adapter it is the same model with the adapter off.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from llmkit.artifacts.manifest import Manifest, Sample, read_manifest
from llmkit.chat.encode import document_eos
from llmkit.chat.preflight import PreflightContext, preflight
from llmkit.chat.template import ChatTemplate
from llmkit.data.build import Built
from llmkit.data.encode import IGNORE
from llmkit.data.pairs import SIDES, build_pairs, sequences
from llmkit.errors import PreflightError, Problem, UserError
from llmkit.modeling.adapter import let_fused_head_read, lora_config
from llmkit.modeling.load import load_spec
from llmkit.modeling.sharding import wants
from llmkit.modeling.tokens import fit_model, prepare_tokenizer, stop_token_ids
from llmkit.recipe.stages import DpoStage
from llmkit.recipe.trainer_keys import declared
from llmkit.stages.common import Worker, main
from llmkit.stages.heldout_pairs import Measured
from llmkit.stages.pretrain import input_tokenizer
from llmkit.stages.sft import chat_template
from llmkit.stages.training import Rows, Trained, build_rows, check_length, finish, train_between, trainer_config


def run(worker: Worker) -> Manifest:
    stage = dpo_stage(worker)
    args = dpo_args(worker)

    # Tokens and masks are proved before the model loads
    tokenizer, max_positions = input_tokenizer(worker)
    template = chat_template(worker, tokenizer)
    new_tokens = prepare_tokenizer(tokenizer, template)
    max_length = stage.trainer.get("max_length") or declared("dpo")["max_length"]
    check_length(worker, max_length, max_positions)
    rows = build_rows(worker, args, partial(build_pairs, tokenizer=tokenizer, max_length=max_length))
    check_pairs(worker, rows, tokenizer, template, new_tokens)

    trainer = build_trainer(worker, args, rows, tokenizer, template, new_tokens)
    before, after, metrics, seconds = train_between(worker, trainer, Measured(trainer, rows.heldout))
    for when, numbers in (("before", before), ("after", after)):
        metrics |= {f"heldout/{name}/{when}/{key}": x for name, found in numbers.items() for key, x in found.items()}
    manifest = finish(worker, trainer, tokenizer, rows, Trained({}, metrics, seconds), new_tokens)
    return manifest.model_copy(update={"samples": samples(rows.train, tokenizer)})


def dpo_stage(worker: Worker) -> DpoStage:
    stage = worker.file.stage
    assert isinstance(stage, DpoStage), stage.kind
    return stage


def dpo_args(worker: Worker) -> DPOConfig:
    """The trainer's config. Raises UserError for what TRL would refuse only once the model is loaded."""
    stage = dpo_stage(worker)
    fixed: dict[str, Any] = {"max_length": None}
    if stage.trainer.get("sync_ref_model"):
        # TRL does not save the reference, so a stage that went on from a checkpoint would train against another one
        fixed["save_strategy"] = "no"
        worker.warn("with 'sync_ref_model' no checkpoints are saved: a stage that is killed begins anew")
    return trainer_config(worker, DPOConfig, ("max_length",), **fixed)


def check_pairs(
    worker: Worker, rows: Rows, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None, new_tokens: list[str]
) -> None:
    """Raises PreflightError with all that is wrong in training and held-out pairs; warnings go to the manifest."""
    problems: list[Problem] = []
    for name, built in {"train": rows.train, **rows.heldout}.items():
        if spelling := built.summary.num_spelling_tokens:
            worker.warn(f"{name}: {spelling} pairs spell out special tokens, which stay plain text")
        for side in SIDES:
            context = _context(worker, f"{name} {side}", built, tokenizer, template, new_tokens)
            if side == "rejected":
                context = replace(context, num_truncated=0)  # cut pairs are counted once
            try:
                report = preflight(sequences(built.rows, side), tokenizer, context)
            except PreflightError as error:
                problems += error.problems
            else:
                for warning in report.warnings:
                    worker.warn(f"{name} {side}: {warning}")
    if problems:
        raise PreflightError(problems)


def _context(
    worker: Worker,
    name: str,
    built: Built,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate | None,
    new_tokens: list[str],
) -> PreflightContext:
    stage = dpo_stage(worker)
    end = template.stop_token if template else document_eos(tokenizer)
    parent = read_manifest(Path(worker.file.parent)) if worker.file.parent else None
    return PreflightContext(
        stop_token_id=tokenizer.convert_tokens_to_ids(end),
        generation_eos_ids=tuple(stop_token_ids(tokenizer)),
        conversational=template is not None,
        num_rows=len(built.rows),
        num_truncated=built.summary.num_truncated,
        max_truncated=stage.max_truncated,
        embedding_rows=len(tokenizer),
        parent_template_sha=parent.chat_template_sha256 if parent and template else None,
        new_token_ids=tuple(tokenizer.convert_tokens_to_ids(new_tokens)),
        trainable_token_ids=tuple(_trained_tokens(tokenizer, template, new_tokens)) if stage.peft else None,
        name=f"stage '{stage.name}': {name}",
    )


def _trained_tokens(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None, new_tokens: list[str]
) -> list[int]:
    """Ids whose embedding rows an adapter trains whole."""
    ids: list[int] = tokenizer.convert_tokens_to_ids(
        sorted({*new_tokens, *(template.special_tokens if template else ())})
    )
    return ids


class ReadyRows(DPOTrainer):
    """Takes rows of token ids as they are; TRL 1.16 would render and tokenise texts itself."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def build_trainer(
    worker: Worker,
    args: DPOConfig,
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate | None,
    new_tokens: list[str],
) -> DPOTrainer:
    """Loads the model, and the reference where the trainer cannot do without one. Raises UserError as TRL refuses."""
    stage = dpo_stage(worker)
    model = _load(worker, tokenizer, new_tokens)
    # before FSDP shards the model, TRL would load a reference by itself, without the rows of new tokens
    needs_reference = not stage.peft and (not args.precompute_ref_log_probs or wants("FSDP"))
    token_ids = _trained_tokens(tokenizer, template, new_tokens)
    try:
        trainer = ReadyRows(
            model=model,
            ref_model=_load(worker, tokenizer, new_tokens) if needs_reference else None,
            args=args,
            train_dataset=rows.train.dataset,
            eval_dataset={name: built.dataset for name, built in rows.heldout.items()} or None,
            processing_class=tokenizer,
            peft_config=lora_config(stage.peft, model, token_ids, worker.file.revision) if stage.peft else None,
        )
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"stage '{stage.name}': trainer", str(error).strip().splitlines()[0]) from error
    if stage.peft:
        let_fused_head_read(trainer.model.get_base_model())
    return trainer


def _load(worker: Worker, tokenizer: PreTrainedTokenizerBase, new_tokens: list[str]) -> PreTrainedModel:
    file, peft = worker.file, dpo_stage(worker).peft
    assert file.input_model is not None
    model = load_spec(
        file.model, file.input_model, file.parent is None, quantization=peft.quantization if peft else None
    )
    fit_model(model, tokenizer, new_tokens)
    return model


def samples(built: Built, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """The first two pairs, for people."""
    found = []
    for example in built.examples[:4]:
        start = example.labels.count(IGNORE)
        prompt, answer = tokenizer.decode(example.input_ids[:start]), tokenizer.decode(example.input_ids[start:])
        found.append(Sample(prompt=prompt, completion=answer, label=example.row["side"]))
    return found


if __name__ == "__main__":
    main("dpo", run)
