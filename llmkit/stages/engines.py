"""Engines of a stage: the model that it asks, and other models that write questions or judge answers."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from llmkit.chat.ask import Engine
from llmkit.chat.template import template_of
from llmkit.errors import UserError
from llmkit.generation.engine import open_engine
from llmkit.generation.remote import OpenAIEngine
from llmkit.modeling.load import ADAPTER, load_model, load_spec, load_tokenizer, resolve
from llmkit.recipe.knowledge import EngineSpec
from llmkit.stages.common import Worker

Progress = Callable[[int, int], None]


class AskedModel:
    """The stage's input model. Its weights are loaded with the first question, so that a stage that only goes on to
    judge or to count needs none.

    Attributes:
        template: its chat template; None: it is asked in plain text.
        on_progress: called with (answered asks, all asks) of the running call.
    """

    def __init__(self, worker: Worker, engine: str, batch_size: int) -> None:
        file = worker.file
        assert file.input_model is not None
        self._worker, self._engine, self._batch_size = worker, engine, batch_size
        self._revision = file.model.revision if file.parent is None else None
        self.tokenizer = load_tokenizer(file.input_model, self._revision)
        self.template = template_of(self.tokenizer)
        self.on_progress: Progress | None = None

    @property
    def chat(self) -> bool:
        return self.template is not None

    @cached_property
    def engine(self) -> Engine:
        file = self._worker.file
        assert file.input_model is not None
        self._worker.log("load", 0, 1)
        common: dict[str, Any] = {"batch_size": self._batch_size, "on_progress": self._progress}
        if self._engine == "vllm":
            own: dict[str, Any] = {"dtype": file.model.dtype, "revision": self._revision}
            return open_engine("vllm", self.tokenizer, model_dir=whole_model(file.input_model), **common, **own)
        model = load_spec(file.model, file.input_model, file.parent is None).to(PartialState().device).eval()
        return open_engine(self._engine, self.tokenizer, model=model, **common)  # type: ignore[arg-type]

    def free(self) -> None:
        """Give its memory back: another model may need it."""
        self.__dict__.pop("engine", None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _progress(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(done, total)


def engine_of(spec: EngineSpec, by: str, asked: AskedModel, batch_size: int) -> tuple[Engine | None, bool]:
    """The engine of a writer or judge, and whether it takes messages. `rules` and `templates` have none.

    A model of its own takes the place of the asked one in memory.
    """
    if by == "self":
        return asked.engine, asked.chat
    if by == "openai":
        return _endpoint(spec), True
    if by != "model":
        return None, False
    assert spec.name_or_path is not None
    asked.free()
    tokenizer = load_tokenizer(spec.name_or_path, spec.revision)
    chat = template_of(tokenizer) is not None
    own: dict[str, Any] = {"dtype": "bfloat16" if torch.cuda.is_available() else "float32", "revision": spec.revision}
    if spec.engine == "vllm":
        folder = whole_model(spec.name_or_path)
        return open_engine("vllm", tokenizer, model_dir=folder, batch_size=batch_size, **own), chat
    model = load_model(spec.name_or_path, **own).to(PartialState().device).eval()
    return open_engine(spec.engine, tokenizer, model=model, batch_size=batch_size), chat


def whole_model(name_or_path: str) -> str:
    """Folder or Hub id for an engine that loads the weights itself.

    Raises:
        UserError: the folder holds an adapter, which such an engine takes for a broken model.
    """
    found = resolve(name_or_path)
    if (Path(found) / ADAPTER).is_file():
        cure = "set 'peft.merge: true' in the stage that made it, or 'engine: transformers'"
        raise UserError("engine: vllm", f"{found} holds an adapter, not a whole model", cure)
    return found


def _endpoint(spec: EngineSpec) -> Engine:
    assert spec.name_or_path is not None
    return OpenAIEngine(
        spec.name_or_path, spec.base_url, spec.api_key_env, spec.timeout, spec.max_retries, spec.concurrency
    )
