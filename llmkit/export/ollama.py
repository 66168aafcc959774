"""A Modelfile: what Ollama makes a model from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from transformers import GenerationConfig

from llmkit.export.template import Turns

MAX_CONTEXT = 8192
"""Tokens for which Ollama is told to make room; more costs memory from the start."""


def modelfile(gguf: str, turns: Turns, stops: Sequence[str], generation: GenerationConfig, context: int) -> str:
    """Args:
    gguf: name of the weights' file beside it.
    stops: tokens that end an answer.
    context: tokens that the model can read.
    """
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{turns.as_go()}"""']
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines += [f"PARAMETER {name} {value}" for name, value in _parameters(generation, context).items()]
    return "\n".join(lines) + "\n"


def _parameters(generation: GenerationConfig, context: int) -> dict[str, Any]:
    """What Ollama would set otherwise: it samples at 0.8 and punishes repetition unless it is told."""
    found: dict[str, Any] = {"temperature": 0, "repeat_penalty": generation.repetition_penalty or 1.0}
    if generation.do_sample:
        found["temperature"] = 1.0 if generation.temperature is None else generation.temperature
        found["top_k"] = 0 if generation.top_k is None else generation.top_k
        found["top_p"] = 1.0 if generation.top_p is None else generation.top_p
        found["min_p"] = 0.0 if generation.min_p is None else generation.min_p
    return found | {"num_ctx": min(context, MAX_CONTEXT)}
