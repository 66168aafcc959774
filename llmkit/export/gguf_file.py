"""A model as one GGUF file, written by the `gguf` library of llama.cpp: weights under its names, tokenizer, template.

No kept library converts Hugging Face models to GGUF; `gguf` has the names of tensors and the format. Here are the
architectures that need no more than that, and what is not sure to be read alike is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType, TokenType
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llmkit.errors import ModelError
from llmkit.export.template import render
from llmkit.export.vocabulary import pre_tokenizer_of, token_types, vocabulary
from llmkit.modeling.tokens import stop_token_ids

ARCHITECTURES = {"qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3, "llama": gguf.MODEL_ARCH.LLAMA}
LLAMA3 = "llama3"
"""How Llama 3.1 scales positions. llama.cpp reads it, as factors in a tensor, for Llama's architecture alone."""
CURE = "write --to vllm and convert that folder with llama.cpp's own convert_hf_to_gguf.py"
_STORED = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
_FILE_TYPES = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "bf16": LlamaFileType.MOSTLY_BF16}


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: str | None,
    *,
    name: str,
    pre_tokenizer: str | None = None,
) -> None:
    """Weights in the model's own type, vectors in float32 as llama.cpp wants them; read back and compared.

    Args:
        template: Jinja, as `plain_jinja` gives it.
        pre_tokenizer: llama.cpp's name for how text is cut before BPE, where llmkit does not know it.

    Raises:
        ModelError: an architecture, scaling of positions or tokenizer that is not known to be read alike.
    """
    arch = _architecture(model.config)
    pre = pre_tokenizer_of(tokenizer, pre_tokenizer)
    stored = _STORED[next(model.parameters()).dtype]
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    _add_shape(writer, model.config, name, stored)
    _add_tokenizer(writer, tokenizer, pre, int(model.config.vocab_size), template)
    tensors = tensors_of(model, arch)
    for key, tensor in tensors.items():
        data, kind = _data(tensor)
        writer.add_tensor(key, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check(path, tensors)


def check(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Reads the file back. Raises ModelError where a tensor is not what was written."""
    found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    if found.keys() != tensors.keys():
        raise ModelError(str(path), "does not hold the tensors that were written", "check the disk and write it again")
    for key, tensor in tensors.items():
        written = _data(tensor)[0]
        if written.tobytes() != found[key].data.tobytes():
            raise ModelError(str(path), f"holds another {key} than was written", "check the disk and write it again")


def tensors_of(model: PreTrainedModel, arch: gguf.MODEL_ARCH) -> dict[str, torch.Tensor]:
    """By llama.cpp's names. A head that is tied to the embeddings is left out, as there."""
    config = model.config
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        key = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if key is None:
            raise ModelError(str(config.name_or_path), f"{name} has no name in llama.cpp", CURE)
        if arch is gguf.MODEL_ARCH.LLAMA and ".self_attn.q_proj." in name:
            tensor = interleaved(tensor, config.num_attention_heads)
        if arch is gguf.MODEL_ARCH.LLAMA and ".self_attn.k_proj." in name:
            tensor = interleaved(tensor, config.num_key_value_heads)
        found[key] = tensor.detach().cpu()
    if _scaling(config) == LLAMA3:
        found[f"{gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FREQS]}.weight"] = rope_factors(config)
    return found


def rope_factors(config: Any) -> torch.Tensor:
    """(head_dim / 2,) float32: what llama.cpp divides the frequencies of positions by, from transformers' own."""
    theta, num = float(_rope(config)["rope_theta"]), _head_dim(config)
    plain = torch.pow(theta, -torch.arange(0, num, 2, dtype=torch.float64) / num)
    scaled: torch.Tensor = ROPE_INIT_FUNCTIONS[LLAMA3](config, torch.device("cpu"))[0]
    return (plain / scaled.double()).float()


def interleaved(tensor: torch.Tensor, num_heads: int) -> torch.Tensor:
    """llama.cpp turns neighbouring rows of Llama's queries and keys together, transformers row i and row i + half."""
    halves = tensor.reshape(num_heads, 2, tensor.shape[0] // num_heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _architecture(config: Any) -> gguf.MODEL_ARCH:
    where = str(config.name_or_path or config.model_type)
    if config.model_type not in ARCHITECTURES:
        what = f"models of type '{config.model_type}' are not written as GGUF here ({', '.join(ARCHITECTURES)} are)"
        raise ModelError(where, what, CURE)
    arch, kind = ARCHITECTURES[config.model_type], _scaling(config)
    if kind != "default" and (kind, arch) != (LLAMA3, gguf.MODEL_ARCH.LLAMA):
        raise ModelError(where, f"its positions are scaled by '{kind}', which is not written as GGUF here", CURE)
    if getattr(config, "use_sliding_window", False):
        raise ModelError(where, "its attention has a sliding window, which is not written as GGUF here", CURE)
    return arch


def _rope(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {})


def _scaling(config: Any) -> str:
    return str(_rope(config).get("rope_type", "default"))


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _add_shape(writer: GGUFWriter, config: Any, name: str, stored: str) -> None:
    head_dim = _head_dim(config)
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[stored])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(_rope(config).get("rope_theta", 10_000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(
    writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, pre: str, num_rows: int, template: str | None
) -> None:
    tokens, merges = vocabulary(tokenizer, num_rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType[kind] for kind in token_types(tokenizer, num_rows)])
    writer.add_token_merges(merges)
    stop, *others = stop_token_ids(tokenizer)
    writer.add_eos_token_id(stop)
    if others:
        writer.add_eot_token_id(others[0])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(_needs_bos(tokenizer, template))
    if template is not None:
        writer.add_chat_template(template)


def _needs_bos(tokenizer: PreTrainedTokenizerBase, template: str | None) -> bool:
    """Whether readers must put a beginning before every text. Where the template writes it, it would stand twice."""
    bos = tokenizer.bos_token
    if bos is None or tokenizer("a").input_ids[:1] != [tokenizer.bos_token_id]:
        return False
    text = render(tokenizer, template, [{"role": "user", "content": "a"}], True) if template else None
    return not (text or "").startswith(str(bos))


def _data(tensor: torch.Tensor) -> tuple[np.ndarray, GGMLQuantizationType]:
    """bfloat16, which numpy does not know, goes in as bytes."""
    if tensor.ndim == 1 or tensor.dtype == torch.float32:
        return tensor.float().contiguous().numpy(), GGMLQuantizationType.F32
    if tensor.dtype == torch.float16:
        return tensor.contiguous().numpy(), GGMLQuantizationType.F16
    return tensor.contiguous().view(torch.uint8).numpy(), GGMLQuantizationType.BF16
