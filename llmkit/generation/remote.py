"""A model behind an OpenAI-compatible endpoint, as `llmkit.chat.ask.Engine`.

Messages go to `/chat/completions`, plain text to `/completions`. The key is read from the environment when the engine
is made, goes into requests alone, and is cut out of every text that an endpoint sends back.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import Any, Literal

from llmkit.chat.ask import Answer, Ask
from llmkit.errors import UserError
from llmkit.generation.choose import Sampling, hash_of
from llmkit.generation.endpoint import (
    Failed,
    cut_at,
    host_of,
    is_loopback,
    read_key,
    read_reply,
    retry_after,
)
from llmkit.generation.engine import check_positive, check_temperatures, unanswered

OPENAI = "https://api.openai.com/v1"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between tries, doubled from one to the other."""
LONGEST_RETRY_AFTER = 120.0
"""Seconds: an endpoint that asks for more is not waited for."""
LARGEST_REPLY = 2**24
"""Bytes."""
_RETRIED = (408, 409, 429)
_CURES = {
    401: "check the key in the environment variable {key_env}",
    403: "check that the key in {key_env} may use this model",
    404: "check base_url (it mostly ends in /v1) and the model's name",
}


class OpenAIEngine:
    """Answers of the model `name_or_path` at `base_url` (default: `OPENAI_BASE_URL`, else OpenAI's own).

    A request that times out, is refused for a while (408, 409, 429, 5xx), breaks off or is answered with rubbish is
    tried again `max_retries` times, then its answers carry the error. Sampled answers are repeatable only where the
    endpoint honours `seed`. Log-probabilities are not asked for.

    Raises:
        UserError: `openai` is not installed, the address is none, or there is no key (an endpoint on this machine
            needs none).
    """

    def __init__(
        self,
        name_or_path: str,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 60.0,
        max_retries: int = 5,
        concurrency: int = 8,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        check_positive("concurrency", concurrency)
        url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        self._host = host_of(url)
        self._key = read_key(api_key_env, needed=not is_loopback(url))
        self._key_env = api_key_env
        self._model = name_or_path
        self._timeout = timeout
        self._max_tries = max_retries + 1
        self._concurrency = concurrency
        self._on_progress = on_progress
        self._client = _client(url, self._key, timeout)

    def answer(
        self,
        asks: Sequence[Ask],
        *,
        max_new_tokens: int,
        top_p: float = 1.0,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[list[Answer]]:
        """Answers in the order of the asks, `concurrency` requests at a time.

        Raises:
            UserError: a sampling value out of its range; or, while answers come, an endpoint that refuses the key
                (401, 403) or does not know the model (404).
        """
        check_positive("max_new_tokens", max_new_tokens)
        options: dict[str, Any] = {self._limit_name(): max_new_tokens}
        if Sampling(top_p=top_p).cuts:
            options["top_p"] = top_p
        stops = [string for string in stop_strings if string]
        if stops:
            options["stop"] = stops[:4]  # OpenAI takes four; the answer is cut at all of them
        return self._answers(asks, options, stops, seed)

    def _answers(
        self, asks: Sequence[Ask], options: dict[str, Any], stops: list[str], seed: int
    ) -> Iterator[list[Answer]]:
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="llmkit-openai")
        ended = threading.Event()
        waiting: deque[Future[list[Answer]]] = deque()
        num_done = 0
        try:
            for ask in asks:
                check_temperatures(ask)
                waiting.append(pool.submit(self._ask, ask, options, stops, seed, ended))
                if len(waiting) >= 2 * self._concurrency:
                    num_done += 1
                    yield self._reported(waiting.popleft(), num_done, len(asks))
            while waiting:
                num_done += 1
                yield self._reported(waiting.popleft(), num_done, len(asks))
        finally:
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _reported(self, future: Future[list[Answer]], num_done: int, num_asks: int) -> list[Answer]:
        answers = future.result()
        if self._on_progress is not None:
            self._on_progress(num_done, num_asks)
        return answers

    def _ask(
        self, ask: Ask, options: dict[str, Any], stops: list[str], seed: int, ended: threading.Event
    ) -> list[Answer]:
        if not ask.prompt:
            return unanswered(ask, "the prompt is empty")
        answers: list[Answer] = []
        for temperature, group in groupby(ask.temperatures):
            wanted = len(answers) + len(list(group))
            tries = _Tries(self._max_tries, ended)
            while len(answers) < wanted:
                first = len(answers)
                # Another seed where answers are missing: the same one would bring the same answers again.
                own = {"temperature": temperature, "n": wanted - first, "seed": hash_of(seed, ask.key, first, 32) >> 1}
                try:
                    answers += self._request(ask, {**options, **own}, stops)[: wanted - first]
                except Failed as failed:
                    if not tries.again(failed):
                        error = f"{failed} ({tries.count} of {self._max_tries} tries)"
                        answers += [Answer("", "error", error=error)] * (wanted - len(answers))
        return answers

    def _request(self, ask: Ask, options: dict[str, Any], stops: list[str]) -> list[Answer]:
        """At least one answer. Raises Failed, or UserError where no request can succeed."""
        import openai

        is_text = isinstance(ask.prompt, str)
        completions: Any = self._client.completions if is_text else self._client.chat.completions
        prompt: dict[str, Any] = {"prompt": ask.prompt} if is_text else {"messages": list(ask.prompt)}
        started = time.monotonic()
        try:
            with completions.with_streaming_response.create(model=self._model, **prompt, **options) as reply:
                body = bytearray()
                for piece in reply.iter_bytes():
                    body += piece
                    if len(body) > LARGEST_REPLY:
                        raise Failed(f"the reply is longer than {LARGEST_REPLY} bytes")
                    if time.monotonic() - started > self._timeout:
                        raise Failed(f"no whole reply within {self._timeout:g} s")
        except openai.APIStatusError as error:
            raise self._refusal(error.status_code, error.response.headers, error.body) from None
        except openai.APITimeoutError:
            raise Failed(f"no reply within {self._timeout:g} s") from None
        except openai.OpenAIError as error:
            raise Failed(self._clean(f"cannot reach {self._host}: {error}")) from None
        except (OSError, ValueError, RuntimeError) as error:
            raise Failed(self._clean(f"{type(error).__name__}: {error}")) from None
        except Exception as error:
            # The HTTP client's own errors, of a connection that breaks off in the middle of a reply.
            if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2"):
                raise
            raise Failed(self._clean(f"the connection broke off ({type(error).__name__})")) from None
        return [cut_at(answer, stops) for answer in read_reply(bytes(body))]

    def _refusal(self, status: int, headers: Any, body: object) -> Exception:
        said = body.get("message", body) if isinstance(body, dict) else body
        text = self._clean(f"HTTP {status}" + (f": {said}" if said else ""))
        if status in _CURES:
            return UserError(self._host, text, _CURES[status].format(key_env=self._key_env))
        return Failed(text, status in _RETRIED or status >= 500, retry_after(headers))

    def _clean(self, text: str) -> str:
        """One line without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:300]

    def _limit_name(self) -> Literal["max_tokens", "max_completion_tokens"]:
        """OpenAI's newer models refuse `max_tokens`, which every other server knows."""
        return "max_completion_tokens" if self._host == host_of(OPENAI) else "max_tokens"


class _Tries:
    """How often a request was tried; the pause before the next."""

    def __init__(self, most: int, ended: threading.Event) -> None:
        self.count = 0
        self._most = most
        self._ended = ended

    def again(self, failed: Failed) -> bool:
        """Waits, unless it was the last try. Pauses double, and vary so that many requests do not return at once."""
        self.count += 1
        if not failed.can_retry or self.count >= self._most or (failed.retry_after or 0) > LONGEST_RETRY_AFTER:
            return False
        pause = min(FIRST_PAUSE * 2.0 ** min(self.count - 1, 30), LONGEST_PAUSE) * random.uniform(0.75, 1.0)
        return not self._ended.wait(max(pause, failed.retry_after or 0.0))


def _client(url: str, key: str | None, timeout: float) -> Any:
    try:
        import openai
    except ImportError:
        raise UserError("by: openai", "the openai package is not installed", "pip install llmkit[openai]") from None
    return openai.OpenAI(base_url=url, api_key=key or "none", timeout=timeout, max_retries=0)
