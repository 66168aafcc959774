"""Errors as OpenAI's API words them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A request that cannot be answered, and the status that says so."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def check_model(asked: str, name: str) -> None:
    """Raises ApiError for another than the one that is served."""
    if asked != name:
        raise ApiError(404, f"There is no model '{asked}' here; there is '{name}'.", code="model_not_found")


def too_long(num_prompt: int, context: int) -> ApiError:
    """For a prompt that leaves no room for an answer."""
    what = f"This model's context holds {context} tokens, and your prompt has {num_prompt}. Shorten it."
    return ApiError(400, what, param="messages", code="context_length_exceeded")
