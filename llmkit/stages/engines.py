"""Engines of a stage: the model that it asks, and other models that write questions or judge answers."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from huggingface_hub import HfApi, try_to_load_from_cache

from llmkit.chat.ask import Ask, Engine
from llmkit.chat.calls import opens_thought
from llmkit.chat.template import template_of
from llmkit.data.problems import Problems
from llmkit.errors import ModelError, UserError
from llmkit.generation.engine import ids_of, open_engine
from llmkit.generation.others import no_vllm
from llmkit.generation.remote import OpenAIEngine
from llmkit.knowledge.judge import PROMPT as JUDGE_PROMPT
from llmkit.knowledge.judge import Judge, open_judge
from llmkit.knowledge.writer import PROMPT as WRITER_PROMPT
from llmkit.knowledge.writer import TemplateWriter
from llmkit.modeling.load import load_config, load_model, load_spec, load_tokenizer, max_positions, stored_dtype
from llmkit.modeling.source import adapter_folder, resolve
from llmkit.online import answers
from llmkit.recipe.knowledge import EngineSpec, JudgeSpec, WriterSpec
from llmkit.stages.common import Worker, where_of
from llmkit.stages.prompting import fitting

Progress = Callable[[int, int], None]
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class AskedModel:
    """The stage's input model, or another stage's. Its weights are loaded with the first question, so that a stage that
    only goes on to judge or to count needs none.

    Args:
        input_model: folder of another stage's model.

    Attributes:
        revision: of an input model on the Hub.
        template: its chat template; None: it is asked in plain text.
        on_progress: called with (answered asks, all asks) of the running call.
    """

    def __init__(self, worker: Worker, engine: str, batch_size: int, input_model: str | None = None) -> None:
        file = worker.file
        self.input_model = input_model or file.input_model or ""
        self._is_base = file.parent is None and self.input_model == file.input_model
        self._worker, self._engine, self._batch_size = worker, engine, batch_size
        self.revision = file.model.revision if self._is_base else None
        self.tokenizer = load_tokenizer(self.input_model, self.revision)
        self.template = template_of(self.tokenizer)
        self.on_progress: Progress | None = None

    @property
    def chat(self) -> bool:
        return self.template is not None

    def fitting(self, problems: Problems, max_truncated: float, schemas: Sequence[dict[str, Any]] = ()) -> Problems:
        """Those whose prompt leaves room for an answer. Raises UserError as `llmkit.stages.room.fitting` does."""
        options: dict[str, Any] = {"max_truncated": max_truncated, "schemas": schemas}
        options |= {"where": where_of(self._worker, "data"), "warn": self._worker.warn}
        context = max_positions(self.input_model, self.revision)
        return problems.only(fitting(problems, self.tokenizer, context, **options))

    def thinks_from(self, ask: Ask) -> bool:
        """Whether its template opens the reasoning of an answer to this."""
        return self.chat and opens_thought(self.tokenizer, ids_of(self.tokenizer, ask))

    @cached_property
    def engine(self) -> Engine:
        file = self._worker.file
        self._worker.log("load", 0, 1)
        common: dict[str, Any] = {"batch_size": self._batch_size, "on_progress": self.progress}
        if self._engine == "vllm":
            own: dict[str, Any] = {"dtype": file.model.dtype, "revision": self.revision}
            whole = whole_model(self.input_model, self.revision)
            return open_engine("vllm", self.tokenizer, model_dir=whole, **common, **own)
        model = load_spec(file.model, self.input_model, self._is_base).to(PartialState().device).eval()
        return open_engine(self._engine, self.tokenizer, model=model, **common)  # type: ignore[arg-type]

    def free(self) -> None:
        """Give its memory back: another model may need it."""
        self.__dict__.pop("engine", None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def progress(self, done: int, total: int) -> None:
        """Of whichever engine is at work for the stage."""
        if self.on_progress is not None:
            self.on_progress(done, total)


def engine_of(spec: EngineSpec, by: str, asked: AskedModel, batch_size: int) -> tuple[Engine | None, bool]:
    """The engine of a writer or judge, and whether it takes messages. `rules` and `templates` have none.

    A model of its own takes the place of the asked one in memory.
    """
    if by == "self":
        return asked.engine, asked.chat
    if by not in ("openai", "model"):
        return None, False
    if by == "model":
        asked.free()
    return own_engine(spec, by, batch_size, asked.progress)


def own_engine(
    spec: EngineSpec, by: str, batch_size: int = 64, on_progress: Progress | None = None
) -> tuple[Engine, bool]:
    """As `engine_of`, of an endpoint or of a model that is loaded here."""
    if by == "openai":
        return _endpoint(spec, on_progress), True
    assert spec.name_or_path is not None
    tokenizer = load_tokenizer(spec.name_or_path, spec.revision)
    chat = template_of(tokenizer) is not None
    own: dict[str, Any] = {"dtype": "bfloat16" if torch.cuda.is_available() else "float32", "revision": spec.revision}
    common: dict[str, Any] = {"batch_size": batch_size, "on_progress": on_progress}
    if spec.engine == "vllm":
        whole = whole_model(spec.name_or_path, spec.revision)
        return open_engine("vllm", tokenizer, model_dir=whole, **common, **own), chat
    model = load_model(spec.name_or_path, **own).to(PartialState().device).eval()
    return open_engine(spec.engine, tokenizer, model=model, **common), chat


def judge_of(spec: JudgeSpec, asked: AskedModel, batch_size: int, seed: int) -> Judge:
    """The recipe's judge, its model loaded."""
    engine, chat = engine_of(spec, spec.by, asked, batch_size)
    return open_judge(spec, engine, spec.refusals, seed=seed, chat=chat)


def check_judge(spec: JudgeSpec) -> None:
    """As `check_engine`, with the judge's prompt."""
    if spec.by != "rules":
        JUDGE_PROMPT.load(spec.prompt)
        check_engine(spec, spec.by)


def check_writer(spec: WriterSpec) -> None:
    """As `check_engine`, with the writer's prompt or templates. Raises RecipeError for malformed templates."""
    if spec.by == "templates":
        TemplateWriter(spec.templates)
        return
    WRITER_PROMPT.load(spec.prompt)
    check_engine(spec, spec.by)


def check_engine(spec: EngineSpec, by: str) -> None:
    """Finds before any model is loaded what would stop the stage after hours of asking.

    Raises:
        UserError: no key, no address, or a package that is not installed.
        ModelError: a model that is neither here nor to be had.
    """
    if by == "openai":
        _endpoint(spec)
    if by == "model":
        assert spec.name_or_path is not None
        check_model(spec.name_or_path, spec.revision)
        check_installed(spec.engine, spec.name_or_path, spec.revision)


def check_installed(engine: str, name_or_path: str, revision: str | None = None) -> None:
    """Raises UserError where an engine's package is missing, or where it cannot load such a model."""
    if engine != "vllm":
        return
    if find_spec("vllm") is None:
        raise no_vllm()
    whole_model(name_or_path, revision)


def check_model(name_or_path: str, revision: str | None = None) -> None:
    """Loads the small files of a model, and looks for its weights. Raises ModelError."""
    load_tokenizer(name_or_path, revision)
    adapter = adapter_folder(name_or_path, revision)
    if adapter is not None:
        stored_dtype(name_or_path, revision)  # its base's config is there
    folder = adapter or Path(resolve(name_or_path))
    if folder.is_dir():
        if not any(folder.glob("*.safetensors")):
            raise ModelError(str(folder), "holds no weights (*.safetensors)", "check that the folder is complete")
        return
    load_config(name_or_path, revision)
    cached = (try_to_load_from_cache(name_or_path, file, revision=revision) for file in _WEIGHTS)
    if not any(isinstance(path, str) for path in cached) and not answers(
        HfApi().model_info, name_or_path, revision=revision
    ):
        cure = "check the network, or give a local folder"
        raise ModelError(name_or_path, "its weights are not in the cache, and the Hub cannot be reached", cure)


def whole_model(name_or_path: str, revision: str | None = None) -> str:
    """Folder or Hub id for an engine that loads the weights itself.

    Raises:
        UserError: it holds an adapter, which such an engine takes for a broken model.
    """
    found = resolve(name_or_path)
    if adapter_folder(name_or_path, revision) is not None:
        cure = "set 'peft.merge: true' in the stage that made it, or 'engine: transformers'"
        raise UserError("engine: vllm", f"{found} holds an adapter, not a whole model", cure)
    return found


def _endpoint(spec: EngineSpec, on_progress: Progress | None = None) -> Engine:
    """Asks nothing yet."""
    assert spec.name_or_path is not None
    limits = (spec.timeout, spec.max_retries, spec.concurrency)
    return OpenAIEngine(spec.name_or_path, spec.base_url, spec.api_key_env, *limits, on_progress)
