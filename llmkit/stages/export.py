"""`llmkit export TARGET --to ollama|llama.cpp|vllm --out DIR`: a folder that another program loads.

Adapters are folded in first. The chat template that goes out is proved equal to the one that was trained, by rendering.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from llmkit.artifacts.files import write_text
from llmkit.errors import ModelError, RunError, TemplateError, UserError
from llmkit.export.ollama import modelfile
from llmkit.export.template import plain_jinja, proof_conversations, render, turns_of
from llmkit.modeling.load import load_model, load_tokenizer, stored_dtype
from llmkit.modeling.tokens import stop_token_ids
from llmkit.options.export import GGUF, USES, parser
from llmkit.stages.command import as_command
from llmkit.stages.named import Named, model_of


@as_command
def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 2 and one line for what the user can mend."""
    args = parser().parse_args(argv)
    if args.pre_tokenizer and args.to == "vllm":
        raise UserError("--pre-tokenizer", "changes nothing with --to vllm", "remove it")
    out = Path(args.out).expanduser().resolve()
    if out == Path.cwd().resolve():
        raise RunError(str(out), "is the current folder, which cannot be put in place whole", "name a folder in it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(str(out), "is there and not empty", "name a folder that is not there yet")
    transformers_logging.disable_progress_bar()
    export(model_of(args.target, args.stage), args.to, out, args.dtype, args.pre_tokenizer)
    print(f"{out}: {USES[args.to].format(out=out)}")


def export(source: Named, to: str, out: Path, dtype: str | None, pre_tokenizer: str | None) -> None:
    """Writes beside `out` and renames, so that a folder that is there is whole. Raises ModelError or TemplateError."""
    tokenizer = load_tokenizer(*source)
    template = plain_jinja(tokenizer) if tokenizer.chat_template else None
    turns = turns_of(tokenizer, template) if to == "ollama" and template is not None else None
    if to == "ollama" and turns is None:
        raise TemplateError(source.path, "has no chat template", "export a model that was trained to chat")
    model = load_model(source.path, dtype=dtype or stored_dtype(*source), revision=source.revision).eval()
    if template is not None:
        tokenizer.chat_template = template
    made = out.with_name(out.name + ".part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    if to == "vllm":
        _write_folder(made, model, tokenizer)
    else:
        write_weights(made / GGUF, model, tokenizer, template, out.name, pre_tokenizer)
    if turns is not None:
        stops = tokenizer.convert_ids_to_tokens(stop_token_ids(tokenizer))
        context = int(model.config.max_position_embeddings)
        write_text(made / "Modelfile", modelfile(GGUF, turns, stops, model.generation_config, context))
    if out.is_dir():
        out.rmdir()
    made.rename(out)


def write_weights(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: str | None,
    name: str,
    pre_tokenizer: str | None,
) -> None:
    """Raises UserError where `gguf` is not installed."""
    try:
        from llmkit.export.gguf_file import write_gguf
    except ModuleNotFoundError as error:
        if error.name != "gguf":
            raise
        raise UserError("GGUF", "the gguf package is not installed", 'pip install "llmkit[gguf]"') from error
    write_gguf(path, model, tokenizer, template, name=name, pre_tokenizer=pre_tokenizer)


def _write_folder(out: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """What transformers, and so vLLM, load: read back, it must render as before and end where training ended."""
    model.generation_config.eos_token_id = stop_token_ids(tokenizer)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    again = load_tokenizer(str(out))
    if again.chat_template != tokenizer.chat_template or again.get_vocab() != tokenizer.get_vocab():
        raise ModelError(str(out), "its tokenizer reads back otherwise than it was written", "report this")
    for messages in proof_conversations() if tokenizer.chat_template else []:
        source = str(tokenizer.chat_template)
        if render(again, source, messages, True) != render(tokenizer, source, messages, True):
            raise TemplateError(str(out), "its template renders otherwise once it is read back", "report this")


if __name__ == "__main__":
    raise SystemExit(main())
