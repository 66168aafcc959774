"""A model behind an OpenAI-compatible endpoint as lm-eval sees it: asked in messages, never for likelihoods."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import Task
from lm_eval.models.utils import normalize_gen_kwargs

from llmkit.chat.ask import Ask, Engine
from llmkit.errors import DataError, RunError
from llmkit.evaluate.answers import Answers, key_of, remembered

MAX_NEW_TOKENS = 256
"""Where a task sets none: lm-eval's own default."""
CHUNK = 64
"""Requests between two writings."""
_KNOWN = {"do_sample", "temperature", "top_p"}


class EndpointModel(LM):  # type: ignore[misc]
    """Answers lm-eval's requests by asking an engine; worked examples are earlier turns of the conversation.

    Args:
        name: of the model, for messages.
        answers: what the endpoint said before.
    """

    def __init__(self, engine: Engine, name: str, *, seed: int, answers: Answers | None = None) -> None:
        super().__init__()
        self._engine, self._name, self._seed, self._answers = engine, name, seed, answers
        self._messages: dict[str, tuple[dict[str, str], ...]] = {}
        self.num_truncated = 0
        self.on_documents: Callable[[int], None] | None = None

    @property
    def tokenizer_name(self) -> str:
        return self._name

    def check(self, task: Task) -> None:
        """Raises DataError for a task that needs what such endpoints do not tell or take."""
        where = f"task {task.task_name}"
        if task.OUTPUT_TYPE != "generate_until":
            what = "needs the likelihood of given answers, which chat endpoints do not tell"
            raise DataError(where, what, "choose a task in which the model writes, such as gsm8k, or load the model")
        if task.get_config("gen_prefix"):
            what = "begins the answer for the model, which chat endpoints do not take"
            raise DataError(where, what, "choose its variant without 'gen_prefix', or load the model")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages as JSON: the endpoint renders them."""
        text = json.dumps(chat_history, ensure_ascii=False)
        self._messages[text] = tuple(chat_history)
        return text

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        if self._answers is None:
            return self._ask(requests)
        keys = [key_of("generate_until", each.args, True, self._seed, place) for place, each in enumerate(requests)]
        return remembered(self._answers, keys, requests, self._ask, CHUNK)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        raise NotImplementedError("check() refuses these tasks")

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        raise NotImplementedError("check() refuses these tasks")

    def _ask(self, requests: list[Instance]) -> list[str]:
        groups: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[json.dumps(request.args[1], sort_keys=True)].append(index)
        texts = [""] * len(requests)
        for indices in groups.values():
            found = self._ask_alike([requests[index] for index in indices], indices)
            for index, text in zip(indices, found, strict=True):
                texts[index] = text
        return texts

    def _ask_alike(self, requests: list[Instance], places: list[int]) -> list[str]:
        """Requests with the same generation settings. Raises RunError where one gets no answer."""
        settings: dict[str, Any] = normalize_gen_kwargs(requests[0].args[1], MAX_NEW_TOKENS)
        until, max_new_tokens = settings.pop("until"), settings.pop("max_gen_toks")
        if unknown := sorted(set(settings) - _KNOWN):
            what = f"sets {', '.join(unknown)}, which chat endpoints do not know"
            raise DataError(f"task {requests[0].task_name}", what, "load the model itself")
        temperature = float(settings.get("temperature") or 0.0) if settings["do_sample"] else 0.0
        asks = [
            Ask(self._messages.get(request.args[0], request.args[0]), f"{place}", (temperature,))
            for request, place in zip(requests, places, strict=True)
        ]
        stops = [string for string in ([until] if isinstance(until, str) else until) if string]
        top_p = float(settings.get("top_p", 1.0))
        answered = self._engine.answer(
            asks, max_new_tokens=max_new_tokens, top_p=top_p, stop_strings=stops, seed=self._seed
        )
        texts = []
        for (answer,) in answered:
            if answer.finish_reason == "error":
                raise RunError(self._name, f"gave no answer ({answer.error})", "start again: what it said is kept")
            texts.append(answer.text)
            if self.on_documents:
                self.on_documents(len(texts))
        return texts
