"""Speaks as `vllm serve` does, as far as llmkit asks: what it was started with, health, models, and a few answers."""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any

NOTES = Path(os.environ["STUB_VLLM"])
WORDS = sys.argv[1:]
NAME, PORT = (WORDS[WORDS.index(word) + 1] for word in ("--served-model-name", "--port"))

USAGE = {"prompt_tokens": 4, "total_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None}
"""Without the details of what was written, as vLLM has it."""


def note(name: str, value: Any) -> None:
    """Whole or not at all."""
    half = NOTES / f".{name}"
    half.write_text(json.dumps(value))
    half.rename(NOTES / name)


class Stub(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, body: Any) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self) -> None:
        if self.path == "/health":
            note("asked", 1)
            self.reply(200 if (NOTES / "ready").exists() else 503, {})
        elif self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.reply(401, {"error": "Unauthorized"})
        elif self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": NAME, "max_model_len": 321}]})

    def do_POST(self) -> None:
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            return self.reply(401, {"error": "Unauthorized"})
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        note("body", body)
        text = body.get("prompt") or body["messages"][-1]["content"]
        if text == "end":
            os._exit(7)
        if text == "never":
            note("left", self.connection.recv(1) == b"")
        elif body["model"] != NAME:
            self.reply(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        elif body.get("stream"):
            has_usage = (body.get("stream_options") or {}).get("include_usage")
            self.stream(for_ever=text == "on and on", has_usage=bool(has_usage))
        else:
            message = {"role": "assistant", "content": f"You said {text}."}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            head = {"id": "a", "object": "chat.completion", "created": 0, "model": NAME}
            self.reply(200, {**head, "choices": [choice], "usage": USAGE})

    def stream(self, for_ever: bool, has_usage: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        try:
            words = ("One", " two", " three")
            for word in cycle(words) if for_ever else words:
                choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
                chunk = {"id": "a", "object": "chat.completion.chunk", "created": 0, "model": NAME, "choices": [choice]}
                self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
                time.sleep(0.01)
            if has_usage:
                chunk |= {"choices": [], "usage": USAGE}
                self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            note("left", True)


if "--fail" in WORDS:
    sys.exit("no GPU here")
note("started", {"words": WORDS, "pid": os.getpid(), "keys": [name for name in os.environ if "API_KEY" in name]})
ThreadingHTTPServer(("127.0.0.1", int(PORT)), Stub).serve_forever()
