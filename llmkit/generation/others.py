"""Engines of other libraries behind `llmkit.chat.ask.Engine`: vLLM, and Transformers' continuous batching."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from llmkit.chat.ask import Answer
from llmkit.errors import UserError
from llmkit.generation.choose import hash_of
from llmkit.generation.decode import context_length, pad_id_of, stop_ids
from llmkit.generation.engine import check_positive
from llmkit.generation.sample import StopStrings
from llmkit.generation.windowed import Request, Settings, WindowEngine

_PAGE_SIZE = 32
"""Tokens per page of the cache on a CPU, where it is sized to what one batch needs."""


class VllmEngine(WindowEngine):
    """vLLM's offline `LLM`, which loads the model itself. Written against vLLM's documented interface and tested with
    a stand-in for it: it has not run on vLLM.

    Sampled answers depend on (seed, key, place) as far as vLLM's kernels give the same logits in every batch.

    Args:
        model_dir: folder or Hub id of a whole model, not of an adapter.
        batch_size: answers that vLLM writes at a time (`max_num_seqs`).
        options: further ones of `LLM` by their own names, such as `dtype` or `gpu_memory_utilization`.

    Raises:
        UserError: vLLM is not installed.
    """

    def __init__(
        self,
        model_dir: str,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 256,
        on_progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> None:
        check_positive("batch_size", batch_size)
        try:
            self._vllm: Any = import_module("vllm")
        except ImportError:
            raise no_vllm() from None
        # raw_logprobs: before temperature and cuts; safetensors: weights in pickles may run code
        own = {"max_num_seqs": batch_size, "enable_prefix_caching": True, "logprobs_mode": "raw_logprobs"}
        safe = {"load_format": "safetensors", "trust_remote_code": False}
        self._llm: Any = self._vllm.LLM(model=model_dir, **{**own, **safe, **options})
        super().__init__(tokenizer, batch_size, on_progress, self._llm.llm_engine.model_config.max_model_len)

    def _generate(self, requests: list[Request], settings: Settings) -> list[list[Answer]]:
        prompts = [{"prompt_token_ids": request.ids} for request in requests]
        params = [self._params(request, settings) for request in requests]
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        found = []
        for request, output in zip(requests, outputs, strict=True):
            answers = [_of_vllm(made, settings.stop) for made in output.outputs]
            # the greedy answers of one prompt are the same
            found.append(answers if request.temperature else answers * request.count)
        return found

    def _params(self, request: Request, settings: Settings) -> Any:
        return self._vllm.SamplingParams(
            n=request.count if request.temperature else 1,
            temperature=request.temperature,
            top_p=settings.top_p if request.temperature else 1.0,
            max_tokens=request.limit,
            seed=request.seed,
            stop=settings.stop.strings or None,
            stop_token_ids=[] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id],
            logprobs=1,
        )


def no_vllm() -> UserError:
    cure = "pip install llmkit[vllm] on a machine that it supports, or set engine: transformers"
    return UserError("engine: vllm", "vLLM is not installed", cure)


def _of_vllm(made: Any, stop: StopStrings) -> Answer:
    if made.finish_reason not in ("stop", "length"):
        return Answer("", "error", error=f"vLLM ended the answer with '{made.finish_reason}'")
    ids = tuple(made.token_ids)
    return Answer(stop.text(list(ids)), made.finish_reason, made.cumulative_logprob, len(ids), ids=ids)


class ContinuousEngine(WindowEngine):
    """Transformers' continuous batching (`model.generate_batch`), of transformers 5.23; runs on CPUs too.

    What it cannot do, as far as that version goes: the random numbers depend on the whole window, not on an ask's key
    alone; stop strings are cut off afterwards, so a row runs on to the end; log-probabilities are those after
    temperature and cuts, so only greedy answers carry them; models with linear attention are refused. Every window
    costs seconds for starting and stopping its manager, once per temperature: for many asks.

    Raises:
        UserError: `batch_size` below 1, or a model that it does not run.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 256,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        check_positive("batch_size", batch_size)
        if not hasattr(model, "generate_batch"):
            raise _not_run("this model has no generate_batch")
        if kinds := _unsupported_layers(model):
            raise _not_run(f"it does not run layers of kind {', '.join(kinds)}")
        super().__init__(tokenizer, batch_size, on_progress, context_length(model))
        self._model = model
        self._stops = stop_ids(model, tokenizer)

    def _generate(self, requests: list[Request], settings: Settings) -> list[list[Answer]]:
        found: list[list[Answer]] = [[] for _ in requests]
        # the number of answers and whether to sample are set for a whole call
        kinds = sorted({(request.temperature, request.count) for request in requests})
        for temperature, count in kinds:
            places = [p for p, r in enumerate(requests) if (r.temperature, r.count) == (temperature, count)]
            made = self._call([requests[place] for place in places], settings)
            for place, answers in zip(places, made, strict=True):
                found[place] = answers
        return found

    def _call(self, requests: list[Request], settings: Settings) -> list[list[Answer]]:
        is_sampled = requests[0].temperature > 0
        num_each = requests[0].count if is_sampled else 1
        config = GenerationConfig(
            max_new_tokens=max(request.limit for request in requests),
            eos_token_id=self._stops or None,
            pad_token_id=pad_id_of(self._tokenizer),
            num_return_sequences=num_each,
            do_sample=is_sampled,
            **({"temperature": requests[0].temperature, "top_p": settings.top_p, "top_k": 0} if is_sampled else {}),
        )
        try:
            outputs = self._model.generate_batch(
                [request.ids for request in requests],
                generation_config=config,
                continuous_batching_config=self._batching(requests, config.max_new_tokens),
                warmup=False,
            )
        except (ValueError, TypeError, AttributeError, NotImplementedError, ImportError) as error:
            raise _not_run(str(error)[:300]) from error
        if len(outputs) != len(requests) * num_each:
            raise _not_run(f"it broke off after {len(outputs)} of {len(requests) * num_each} answers, see above")
        made = iter(outputs.values())
        answers = [[self._answer(next(made), request, settings.stop) for _ in range(num_each)] for request in requests]
        return (
            answers if is_sampled else [each * request.count for each, request in zip(answers, requests, strict=True)]
        )

    def _batching(self, requests: list[Request], max_new_tokens: int) -> Any:
        from transformers import ContinuousBatchingConfig

        options: dict[str, Any] = {"return_logprobs": True, "max_requests_per_batch": self._batch_size}
        options["seed"] = hash_of(requests[0].seed, str(requests[-1].seed), len(requests), 32) >> 1
        if self._model.device.type == "cpu":
            # Left to itself it takes 60 % of the machine's memory.
            longest = max(len(request.ids) for request in requests) + max_new_tokens
            options["page_size"] = _PAGE_SIZE
            options["num_blocks"] = self._batch_size * (math.ceil(longest / _PAGE_SIZE) + 1)
            options["max_batch_tokens"] = max(512, self._batch_size, longest)
        return ContinuousBatchingConfig(**options)

    def _answer(self, output: Any, request: Request, stop: StopStrings) -> Answer:
        if output.error is not None:
            return Answer("", "error", error=f"continuous batching: {output.error}"[:300])
        ids = output.generated_tokens[: request.limit]
        end = stop.end(ids)
        is_stopped = end is not None or bool(ids and ids[-1] in self._stops)
        ids = ids if end is None else ids[:end]
        logprob = None if request.temperature else math.fsum(output.logprobs[: len(ids)])
        return Answer(stop.text(ids), "stop" if is_stopped else "length", logprob, len(ids), ids=tuple(ids))


def _unsupported_layers(model: PreTrainedModel) -> list[str]:
    """Kinds of layers without pages for keys and values."""
    kinds = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ())
    stateful = {"state space"} if getattr(model, "_is_stateful", False) else set()
    return sorted((kinds - {"full_attention", "sliding_attention"}) or stateful)


def _not_run(what: str) -> UserError:
    return UserError("engine: continuous", f"Transformers' continuous batching: {what}", "set engine: transformers")
