"""`llmkit serve`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from llmkit.options import TARGET, parser_of
from llmkit.options.tools import MAX_CALLS, add_tool_options

KEY = "LLMKIT_API_KEY"
LOOPBACKS = ("127.0.0.1", "localhost", "::1")
"""Hosts that nobody but this machine reaches."""
OWN = {
    "max_new_tokens": "of answers that set no limit",
    "max_rows": "answers written at a time",
    "max_waiting": "requests that may wait",
}
"""Settings of llmkit's own engine."""


@dataclass(frozen=True)
class Limits:
    """Of the whole server."""

    max_new_tokens: int = 1024
    """Of an answer that does not say how long it may be."""
    max_calls: int = MAX_CALLS
    max_rows: int = 8
    max_waiting: int = 64


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit serve", "Serve a model over OpenAI's API, with a page to chat. Ends with Ctrl-C.")
    made.add_argument("target", help=TARGET)
    made.add_argument("--stage", help="with a run folder: the stage whose model it is")
    made.add_argument("--host", default="127.0.0.1", help=f"default: this machine alone; others need {KEY}")
    made.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0: any that is free")
    made.add_argument("--name", help="of the model in requests (default: the target's last word)")
    for name, what in OWN.items():
        words = f"{what} (default: {getattr(Limits(), name)})"
        made.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=words)
    add_tool_options(made)
    made.add_argument("--engine", choices=("llmkit", "vllm"), default="llmkit", help="vllm: its server, for many users")
    made.add_argument("--max-model-len", type=int, metavar="N", help="with --engine vllm: of prompt and answer")
    made.add_argument("--vllm-args", metavar="WORDS", help="with --engine vllm: more words for `vllm serve`")
    return made
