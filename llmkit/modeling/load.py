"""Tokenizers and causal language models from a folder, a Python package or the Hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llmkit.errors import ModelError
from llmkit.modeling.source import ADAPTER, ADAPTER_WEIGHTS, adapter_folder, first_line, fold, resolve, source_of
from llmkit.recipe.parts import ModelSpec

if TYPE_CHECKING:
    from peft import PeftConfig

_PACKS = "support_avx512bf16_for_cpu"  # of bitsandbytes' Linear4bit
# without it transformers has a bot open a public pull request for a Hub model that has no safetensors
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")


def load_tokenizer(name_or_path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Raises ModelError where there is no tokenizer or the Hub cannot be reached."""
    adapter = adapter_folder(name_or_path, revision)
    path = resolve(name_or_path) if adapter is None else str(adapter)
    if Path(path).is_dir() and not any(Path(path).glob("tokenizer*")):
        raise ModelError(name_or_path, "has no tokenizer", "copy the base model's tokenizer files beside config.json")
    with source_of(path, revision) as source:
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)


def load_config(name_or_path: str, revision: str | None = None) -> Any:
    """Of a whole model, from which training starts. Raises ModelError, also for an adapter."""
    if adapter_folder(name_or_path, revision) is not None:
        what = "is an adapter alone, which cannot be trained further"
        raise ModelError(name_or_path, what, fold(name_or_path, revision))
    with source_of(name_or_path, revision) as source:
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)


def max_positions(name_or_path: str, revision: str | None = None) -> int | None:
    """Tokens in the model's context, or in that of an adapter's base; None: its config does not say."""
    folder = adapter_folder(name_or_path, revision)
    if folder is not None:
        with _base_of(name_or_path, folder) as base:
            return max_positions(str(base.base_model_name_or_path), base.revision)
    found: int | None = getattr(load_config(name_or_path, revision).get_text_config(), "max_position_embeddings", None)
    return found


def stored_dtype(name_or_path: str, revision: str | None = None) -> str:
    """The type in which the weights are stored, or those of an adapter's base."""
    folder = adapter_folder(name_or_path, revision)
    if folder is not None:
        with _base_of(name_or_path, folder) as base:
            return stored_dtype(str(base.base_model_name_or_path), base.revision)
    return str(load_config(name_or_path, revision).dtype or torch.float32).removeprefix("torch.")


def load_model(
    name_or_path: str,
    *,
    dtype: str = "float32",
    attn_implementation: str | None = None,
    revision: str | None = None,
    quantization: str | None = None,
) -> PreTrainedModel:
    """Weights from safetensors only, in `dtype`; `quantization="nf4"` holds them in 4 bits (Dettmers 2023).

    An adapter, in a folder or on the Hub, gives its base with the adapter folded in.
    """
    adapter = adapter_folder(name_or_path, revision)
    if adapter is not None:
        return _with_adapter(name_or_path, adapter, dtype, attn_implementation)
    options = weight_options(dtype, attn_implementation, quantization)
    with source_of(name_or_path, revision) as source:
        return keep_gradients(AutoModelForCausalLM.from_pretrained(source, revision=revision, **options))


def keep_gradients(model: PreTrainedModel) -> PreTrainedModel:
    """Keeps weights of 4 bits as training reads them. On a CPU with avx512_bf16 bitsandbytes 0.50 packs them anew for
    inference when held-out rows are first measured, and has no gradients for what it packed: they would be wrong."""
    for module in model.modules():
        if hasattr(module, _PACKS):
            setattr(module, _PACKS, False)
    return model


def weight_options(
    dtype: str, attn_implementation: str | None = None, quantization: str | None = None
) -> dict[str, Any]:
    """Options of `from_pretrained`: weights from safetensors only, and nobody's code."""
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "use_safetensors": True, "trust_remote_code": False}
    if attn_implementation:
        options["attn_implementation"] = attn_implementation
    return options | (_quantized() if quantization else {})


def _quantized() -> dict[str, Any]:
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": device}}


def _with_adapter(name: str, path: Path, dtype: str, attn_implementation: str | None) -> PreTrainedModel:
    """An adapter's base with the adapter folded in; rows of tokens that training added come from the adapter.

    Raises ModelError where its base is not to be had, or where the two do not fit.
    """
    # imports bitsandbytes and takes seconds, which stages without an adapter save
    from peft import PeftModel

    if not (path / ADAPTER_WEIGHTS).is_file():
        cure = "check that it is complete and, without a network, that it was fetched before; pickles are not loaded"
        raise ModelError(name, f"is an adapter without {ADAPTER_WEIGHTS}", cure)
    with _base_of(name, path) as base:
        options = {"dtype": dtype, "attn_implementation": attn_implementation, "revision": base.revision}
        model = load_model(str(base.base_model_name_or_path), **options)
    num_tokens = len(load_tokenizer(str(path)))
    if num_tokens > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(num_tokens, mean_resizing=False)
    try:
        return PeftModel.from_pretrained(model, path).merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        what = f"does not fit its base '{base.base_model_name_or_path}' ({first_line(error)})"
        raise ModelError(name, what, "check which model, and which revision of it, it was trained on") from error


@contextmanager
def _base_of(name: str, folder: Path) -> Iterator[PeftConfig]:
    """What an adapter says of its base. Errors about the base, also of what is done with it, name the adapter.

    Raises ModelError for a base that cannot be one.
    """
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"its {ADAPTER} cannot be read ({first_line(error)})"
        raise ModelError(name, what, "check that the file is whole") from error
    base = config.base_model_name_or_path
    _check_base(name, config, is_on_hub=not Path(resolve(name)).is_dir())
    try:
        if adapter_folder(base, config.revision) is not None:
            raise ModelError(base, "is an adapter itself", fold(base, config.revision))
        yield config
    except ModelError as error:
        what = f"is an adapter whose base is not to be had ({base}: {error.problems[0].what})"
        raise ModelError(name, what, error.problems[0].cure) from error


def _check_base(name: str, config: PeftConfig, is_on_hub: bool) -> None:
    """Raises ModelError for what somebody else's adapter must not name: paths and packages of this machine, code."""
    if getattr(config, "megatron_config", None):  # peft imports the module that it names
        raise ModelError(name, "is an adapter for Megatron's layers", "give an adapter for a model of transformers")
    base = config.base_model_name_or_path
    if not isinstance(base, str) or (is_on_hub and not _is_hub_id(base)):
        what = f"is an adapter whose base '{base}' is no Hub id"
        cure = f"download it (`hf download`), set 'base_model_name_or_path' in {ADAPTER}, and give the folder"
        raise ModelError(name, what, cure)


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def load_spec(spec: ModelSpec, input_model: str, is_base: bool, **options: Any) -> PreTrainedModel:
    """The input model of a stage: the recipe's base with its revision, or an earlier stage's folder."""
    return load_model(
        input_model,
        dtype=spec.dtype,
        attn_implementation=spec.attn_implementation,
        revision=spec.revision if is_base else None,
        **options,
    )
