"""What is known of an OpenAI-compatible endpoint before and after a request: its address, its key, its replies."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from llmkit.chat.ask import Answer
from llmkit.errors import UserError


class Failed(Exception):
    """A request without an answer."""

    def __init__(self, text: str, can_retry: bool = True, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.can_retry = can_retry
        self.retry_after = retry_after


def read_key(name: str, needed: bool) -> str | None:
    key = os.environ.get(name, "").strip()
    if not key:
        if needed:
            raise UserError(name, "the environment holds no key", f"export {name}=... before you start llmkit")
        return None
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(name, "holds spaces or other characters that no key has", f"set {name} to the key alone")
    return key


def host_of(url: str) -> str:
    """Host and port: an address may itself hold a password. Raises UserError for what is no address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https"):
        raise UserError("base_url", "is no address", "write it like http://localhost:8000/v1")
    return host if port is None else f"{host}:{port}"


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def retry_after(headers: Any) -> float | None:
    """Seconds, of a header that gives seconds or a date."""
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def read_reply(body: bytes) -> list[Answer]:
    """The usable answers of a reply, at least one. Raises Failed with what is wrong with the first that is not."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        raise Failed("the reply is not JSON") from None
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Failed("the reply has no choices")
    usage = reply.get("usage")
    num_tokens = usage.get("completion_tokens") if isinstance(usage, dict) and len(choices) == 1 else None
    read = [_read_choice(choice, num_tokens if isinstance(num_tokens, int) else None) for choice in choices]
    if usable := [answer for answer in read if answer.finish_reason != "error"]:
        return usable
    raise Failed(read[0].error)


def _read_choice(choice: Any, num_tokens: int | None) -> Answer:
    if not isinstance(choice, dict):
        return Answer("", "error", error="the reply has a choice that is none")
    message = choice.get("message")
    if isinstance(message, dict) and message.get("refusal"):
        return Answer("", "error", error="the model refused")
    if choice.get("finish_reason") == "content_filter":
        return Answer("", "error", error="the endpoint's filter cut the answer")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if not isinstance(text, str):
        return Answer("", "error", error="the reply has no text")
    return Answer(text, "length" if choice.get("finish_reason") == "length" else "stop", num_tokens=num_tokens)


def cut_at(answer: Answer, stops: list[str]) -> Answer:
    text = answer.text
    for string in stops:
        text = text.partition(string)[0]
    if text == answer.text:
        return answer
    return Answer(text, "stop", num_tokens=answer.num_tokens)
