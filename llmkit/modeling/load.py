"""Tokenizers and causal language models from a folder, a Python package or the Hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # type: ignore[attr-defined]
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llmkit.artifacts.shipped import in_package
from llmkit.errors import ModelError
from llmkit.online import LOG_IN, answers, cache_only, refusal
from llmkit.recipe.parts import ModelSpec

# without it transformers has a bot open a public pull request for a Hub model that has no safetensors
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")


def resolve(name_or_path: str) -> str:
    """A folder's path, or the Hub id as it is. Raises ModelError for a path that does not exist."""
    packaged = in_package(name_or_path)
    path = packaged if packaged is not None else Path(name_or_path).expanduser()
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", ADAPTER)):
            raise ModelError(
                str(path), "has no config.json, so it is not a model folder", "give the folder that holds it"
            )
        return str(path)
    if packaged is not None or path.is_file() or name_or_path.startswith((".", "/", "~")):
        raise ModelError(name_or_path, "no such model folder", f"the current folder is {Path.cwd()}")
    return name_or_path


ADAPTER = "adapter_config.json"


@cache
def _on_hub(name: str, revision: str | None) -> bool:
    """Asked once: False where the Hub cannot be reached. Raises ModelError where it refuses."""
    try:
        return answers(HfApi().model_info, name, revision=revision)
    except (HfHubHTTPError, HFValidationError) as error:
        raise _unreachable(name, revision, error) from error


@contextmanager
def source_of(name_or_path: str, revision: str | None) -> Iterator[str]:
    """The folder or Hub id to load from; without a network the local cache alone. Errors become ModelError."""
    path = resolve(name_or_path)
    online = Path(path).is_dir() or _on_hub(path, revision)
    try:
        with cache_only(not online):
            yield path
    except (OSError, ValueError, KeyError, HTTPError, SafetensorError) as error:
        raise _unreachable(name_or_path, revision, error) from error


def load_tokenizer(name_or_path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Raises ModelError where there is no tokenizer or the Hub cannot be reached."""
    path = resolve(name_or_path)
    if Path(path).is_dir() and not any(Path(path).glob("tokenizer*")):
        raise ModelError(path, "has no tokenizer", "copy the base model's tokenizer files beside config.json")
    with source_of(name_or_path, revision) as source:
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)


def load_config(name_or_path: str, revision: str | None = None) -> Any:
    with source_of(name_or_path, revision) as source:
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)


def stored_dtype(name_or_path: str, revision: str | None = None) -> str:
    """The type in which the weights are stored, or those of an adapter's base."""
    folder = Path(resolve(name_or_path))
    if (folder / ADAPTER).is_file():
        from peft import PeftConfig

        config = PeftConfig.from_pretrained(folder)
        return stored_dtype(config.base_model_name_or_path, config.revision)
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

    The folder of an adapter gives its base with the adapter folded in.
    """
    if (Path(resolve(name_or_path)) / ADAPTER).is_file():
        return _with_adapter(Path(resolve(name_or_path)), dtype, attn_implementation)
    options = weight_options(dtype, attn_implementation, quantization)
    with source_of(name_or_path, revision) as source:
        return AutoModelForCausalLM.from_pretrained(source, revision=revision, **options)


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


def _with_adapter(path: Path, dtype: str, attn_implementation: str | None) -> PreTrainedModel:
    """An adapter's base with the adapter folded in; rows of tokens that training added come from the adapter."""
    # imports bitsandbytes and takes seconds, which stages without an adapter save
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(path)
    options = {"dtype": dtype, "attn_implementation": attn_implementation, "revision": config.revision}
    model = load_model(config.base_model_name_or_path, **options)
    num_tokens = len(load_tokenizer(str(path)))
    if num_tokens > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(num_tokens, mean_resizing=False)
    return PeftModel.from_pretrained(model, path).merge_and_unload(safe_merge=True)


def load_spec(spec: ModelSpec, input_model: str, is_base: bool, **options: Any) -> PreTrainedModel:
    """The input model of a stage: the recipe's base with its revision, or an earlier stage's folder."""
    return load_model(
        input_model,
        dtype=spec.dtype,
        attn_implementation=spec.attn_implementation,
        revision=spec.revision if is_base else None,
        **options,
    )


def _unreachable(name: str, revision: str | None, error: Exception) -> ModelError:
    refused = refusal(error, "model", revision)
    if refused:
        return ModelError(name, *refused)
    first = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    if Path(resolve(name)).is_dir():
        return ModelError(name, f"cannot be loaded ({first})", "check that the folder is complete")
    what = f"is neither a local folder nor to be had from the Hub ({first})"
    cure = f"check the name and the network, {LOG_IN} if it is private, or give a local folder"
    return ModelError(name, what, cure)
