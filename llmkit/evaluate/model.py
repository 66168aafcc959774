"""lm-eval's Hugging Face model with llmkit's generation and prompt ids."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.chat.render import prompt_ids
from llmkit.errors import TemplateError
from llmkit.evaluate.answers import MIN_CHUNK, Answers, key_of, remembered
from llmkit.generation.sample import generate

_SAMPLING = {"do_sample", "temperature", "top_p", "top_k", "min_p"}


class EvalModel(HFLM):  # type: ignore[misc]
    """Answers lm-eval's requests with a model that is already loaded.

    `generate_until` runs on `generation.sample`, where finished rows leave the batch and stop strings cost little;
    likelihoods are HFLM's. With several processes each takes every n-th document, and rank 0 gets all results.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int,
        seed: int,
        answers: Answers | None = None,
    ) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        state = PartialState()
        self._rank, self._world_size = state.process_index, state.num_processes
        self._seed = seed
        self._answers = answers
        self._chat_ids: dict[str, list[int]] = {}
        self.num_truncated = 0
        self.num_generated_tokens = 0
        self.on_documents: Callable[[int], None] | None = None

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return gather(tensor) if self.world_size > 1 else tensor

    def barrier(self) -> None:
        PartialState().wait_for_everyone()

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Also keeps the ids that training and chat would use: text alone cannot tell a token from its spelling."""
        text: str = super().apply_chat_template(chat_history, add_generation_prompt)
        if add_generation_prompt:
            try:
                self._chat_ids[text] = prompt_ids(self.tokenizer, chat_history)
            except TemplateError:
                # the template refused a system message, and lm-eval has left it out
                self._chat_ids.pop(text, None)
        return text

    def check(self, task: Task) -> None:
        """Every text task can be asked."""

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        ask = partial(super().loglikelihood, disable_tqdm=disable_tqdm)
        return [(found[0], found[1]) for found in self._remembered("loglikelihood", requests, ask)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        ask = partial(super().loglikelihood_rolling, disable_tqdm=disable_tqdm)
        return self._remembered("loglikelihood_rolling", requests, ask)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        # before answers that are kept are left out: theirs lost their beginning, too
        self.num_truncated += sum(self._is_cut(request) for request in requests)
        return self._remembered("generate_until", requests, self._generate_all)

    def _remembered(self, kind: str, requests: list[Instance], ask: Callable[[list[Instance]], list[Any]]) -> list[Any]:
        if self._answers is None:
            return ask(requests)
        templated = [request.args[0] in self._chat_ids for request in requests]
        keys = [
            key_of(kind, request.args, is_chat, self._seed, place)
            for place, (request, is_chat) in enumerate(zip(requests, templated, strict=True))
        ]
        chunk = max(MIN_CHUNK, 8 * self.batch_size)
        return remembered(self._answers, keys, requests, ask, chunk)

    def _generate_all(self, requests: list[Instance]) -> list[str]:
        groups: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[json.dumps(request.args[1], sort_keys=True)].append(index)
        texts = [""] * len(requests)
        for indices in groups.values():
            members = [requests[index] for index in indices]
            for index, text in zip(indices, self._generate(members), strict=True):
                texts[index] = text
        return texts

    def _generate(self, requests: list[Instance]) -> list[str]:
        """Requests with the same generation settings."""
        settings: dict[str, Any] = normalize_gen_kwargs(requests[0].args[1], self.max_gen_toks)
        until, max_new_tokens = settings.pop("until"), settings.pop("max_gen_toks")
        if set(settings) - _SAMPLING:
            # beams, repetition penalties and the like
            texts: list[str] = super().generate_until(requests, disable_tqdm=True)
            return texts
        sampling = {name: settings[name] for name in ("top_p", "top_k", "min_p") if name in settings}
        completions = generate(
            self.model,
            self.tokenizer,
            [self._context_ids(request.args[0], max_new_tokens) for request in requests],
            max_new_tokens=max_new_tokens,
            temperature=settings["temperature"] if settings["do_sample"] else 0.0,
            stop_strings=[string for string in ([until] if isinstance(until, str) else until) if string],
            seed=self._seed,
            batch_size=self.batch_size,
            on_progress=lambda done, _: self.on_documents(done) if self.on_documents else None,
            **sampling,
        )
        self.num_generated_tokens += sum(len(completion.ids) for completion in completions)
        return [completion.text for completion in completions]

    def _is_cut(self, request: Instance) -> bool:
        room = self._room(normalize_gen_kwargs(request.args[1], self.max_gen_toks)["max_gen_toks"])
        return len(self._whole_ids(request.args[0])) > room

    def _context_ids(self, context: str, max_new_tokens: int) -> list[int]:
        """As in HFLM, a prompt that is too long loses its beginning; `generate_until` counts it."""
        return self._whole_ids(context)[-self._room(max_new_tokens) :]

    def _whole_ids(self, context: str) -> list[int]:
        return self._chat_ids.get(context) or self.tok_encode(context) or [self.prefix_token_id]

    def _room(self, max_new_tokens: int) -> int:
        return max(1, int(self.max_length) - max_new_tokens)
