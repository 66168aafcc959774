"""Supervised fine-tuning.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.sft recipe.yaml --stage sft
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from llmkit.artifacts.manifest import Manifest, read_manifest
from llmkit.chat.template import ChatTemplate, load_template, template_of, with_stop_token
from llmkit.errors import TemplateError
from llmkit.modeling.adapter import let_fused_head_read, lora_config
from llmkit.modeling.load import load_config, load_spec, load_tokenizer
from llmkit.modeling.tokens import check_vocabulary, fit_model, prepare_tokenizer
from llmkit.stages.checks import check_rows
from llmkit.stages.common import Worker, main
from llmkit.stages.training import collator_for, finish, tokenise, train, train_stage, training_args


def run(worker: Worker) -> Manifest:
    file, stage = worker.file, train_stage(worker)
    spec, input_model = file.model, file.input_model
    assert input_model is not None
    is_base = file.parent is None
    revision = spec.revision if is_base else None
    args = training_args(worker)

    # Tokens and masks are proved before the model loads
    tokenizer = load_tokenizer(input_model, revision)
    config = load_config(input_model, revision).get_text_config()
    check_vocabulary(tokenizer, config.vocab_size, input_model)
    template = chat_template(worker, tokenizer)
    new_tokens = prepare_tokenizer(tokenizer, template)
    rows = tokenise(worker, tokenizer, args, getattr(config, "max_position_embeddings", None))
    check_rows(worker, rows, tokenizer, template, new_tokens)

    model = load_spec(spec, input_model, is_base, quantization=stage.peft.quantization if stage.peft else None)
    fit_model(model, tokenizer, new_tokens)
    token_ids = tokenizer.convert_tokens_to_ids(sorted({*new_tokens, *(template.special_tokens if template else ())}))
    collator = collator_for(worker, tokenizer, model)
    trainer = SFTTrainer(
        model=model,
        args=args,
        data_collator=collator,
        train_dataset=rows.train.dataset,
        processing_class=tokenizer,
        peft_config=lora_config(stage.peft, model, token_ids, revision) if stage.peft else None,
    )
    if stage.peft:
        let_fused_head_read(trainer.model.get_base_model())

    trained = train(worker, trainer, rows, collator)
    return finish(worker, trainer, tokenizer, rows, trained, new_tokens)


def chat_template(worker: Worker, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
    """The recipe's template, else the tokenizer's own. Raises TemplateError where it differs from the parent's,
    or where no stop token can be found."""
    named = worker.file.model.chat_template
    template = load_template(named) if named else template_of(tokenizer)
    if template is None:
        return None
    template = with_stop_token(tokenizer, template)
    parent = read_manifest(Path(worker.file.parent)) if worker.file.parent else None
    if parent and parent.chat_template_sha256 and parent.chat_template_sha256 != template.sha256:
        what = f"'{template.name}' is not the template that stage '{parent.stage}' was trained with"
        raise TemplateError("model.chat_template", what, "use one template for the whole chain")
    return template


if __name__ == "__main__":
    main("sft", run)
