"""Continued pretraining, or pretraining from scratch: next-token loss on documents.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.pretrain recipe.yaml --stage cpt
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from peft import get_peft_model
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl import SFTConfig

from llmkit.artifacts.manifest import Manifest
from llmkit.data.build import texts
from llmkit.modeling.adapter import lora_config
from llmkit.modeling.load import load_config, load_spec, load_tokenizer
from llmkit.modeling.scratch import new_model, train_tokenizer
from llmkit.modeling.tokens import check_vocabulary, fit_model, prepare_tokenizer
from llmkit.recipe.stages import PretrainStage
from llmkit.stages.checks import check_rows
from llmkit.stages.common import Worker, main
from llmkit.stages.training import collator_for, finish, tokenise, train, training_args


def run(worker: Worker) -> Manifest:
    stage = worker.file.stage
    assert isinstance(stage, PretrainStage)
    args = training_args(worker)

    # Tokens are checked before the model loads
    tokenizer, max_positions = (
        scratch_tokenizer(worker, stage, args) if stage.init == "scratch" else input_tokenizer(worker)
    )
    new_tokens = prepare_tokenizer(tokenizer, None)
    rows = tokenise(worker, tokenizer, args, max_positions)
    check_rows(worker, rows, tokenizer, None, new_tokens)

    model = build_model(worker, stage, tokenizer)
    fit_model(model, tokenizer, new_tokens)
    if stage.peft:
        token_ids = tokenizer.convert_tokens_to_ids(new_tokens)
        model = get_peft_model(model, lora_config(stage.peft, model, token_ids, worker.file.revision))
        if args.gradient_checkpointing:
            model.enable_input_require_grads()
    collator = collator_for(worker, tokenizer, model)
    trainer = Trainer(
        model=model, args=args, data_collator=collator, train_dataset=rows.train.dataset, processing_class=tokenizer
    )

    trained = train(worker, trainer, rows, collator)
    return finish(worker, trainer, tokenizer, rows, trained, new_tokens)


def input_tokenizer(worker: Worker) -> tuple[PreTrainedTokenizerBase, int | None]:
    """The input model's tokenizer and the longest row that it reads, in tokens."""
    file = worker.file
    assert file.input_model is not None
    revision = file.model.revision if file.parent is None else None
    tokenizer = load_tokenizer(file.input_model, revision)
    config = load_config(file.input_model, revision).get_text_config()
    check_vocabulary(tokenizer, config.vocab_size, file.input_model)
    return tokenizer, getattr(config, "max_position_embeddings", None)


def scratch_tokenizer(
    worker: Worker, stage: PretrainStage, args: SFTConfig
) -> tuple[PreTrainedTokenizerBase, int | None]:
    """Trained on the first documents of the mixture; kept, so that a resumed stage reads the same one."""
    assert stage.tokenizer is not None and stage.architecture is not None
    folder = worker.dir.path / "tokenizer"
    max_positions = stage.architecture.get("max_position_embeddings")
    with args.main_process_first(local=False, desc="tokenizer"):
        if not (folder / "tokenizer.json").is_file():
            train_tokenizer(_documents(worker, stage), stage.tokenizer, max_positions or 1024).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder), max_positions


def _documents(worker: Worker, stage: PretrainStage) -> Iterator[str]:
    assert stage.tokenizer is not None and stage.seed is not None
    data_stages = {name: Path(path) for name, path in worker.file.data_stages.items()}
    rows = texts(
        stage.data, data_stages=data_stages, seed=stage.seed, max_rejected=stage.max_rejected, dedup=stage.dedup
    )
    return islice(rows, stage.tokenizer.num_rows)


def build_model(worker: Worker, stage: PretrainStage, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    file = worker.file
    if stage.init == "scratch":
        assert stage.architecture is not None and stage.seed is not None
        return new_model(stage.architecture, tokenizer, stage.seed, file.model.attn_implementation)
    assert file.input_model is not None
    options: dict[str, Any] = {"quantization": stage.peft.quantization if stage.peft else None}
    return load_spec(file.model, file.input_model, file.parent is None, **options)


if __name__ == "__main__":
    main("pretrain", run)
