"""Serve a model over OpenAI's API, with a page to chat: what `llmkit serve` runs.

python -m llmkit.stages.serve runs/tiny-assistant [--tool python] [--port 8000]
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

from transformers.utils import logging as transformers_logging

from llmkit.errors import UserError
from llmkit.options.serve import KEY, LOOPBACKS, OWN, Limits, parser
from llmkit.options.tools import max_calls_of
from llmkit.stages.chat import load
from llmkit.stages.command import as_command
from llmkit.stages.hosting import ModelHost
from llmkit.stages.named import named
from llmkit.stages.tool_words import tools_of


@as_command
def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 2 and one line for what the user can mend."""
    args = parser().parse_args(argv)
    key = os.environ.get(KEY)
    _check(args, key)
    max_calls = max_calls_of(args)
    # what belongs to an extra is imported where it is needed
    if args.engine == "vllm":
        from llmkit.stages.serve_vllm import serve_with_vllm

        serve_with_vllm(args, key)
        return
    from llmkit.web import listen

    with ExitStack() as stack:
        listening = stack.enter_context(listen(args.host, args.port))
        tools = stack.enter_context(tools_of(args))
        transformers_logging.disable_progress_bar()
        model, tokenizer = load(args.target, args.stage)
        own = {name: value for name in OWN if (value := getattr(args, name)) is not None}
        limits = Limits(max_calls=max_calls, **own)
        host = ModelHost(model, tokenizer, tools, args.name or name_of(args.target), limits)
        stack.callback(host.close)
        if not tokenizer.chat_template:
            print("this model has no chat template: it takes /v1/completions alone, the page cannot ask it")
        serve(host, listening, args.host, key, say)


def _check(args: argparse.Namespace, key: str | None) -> None:
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise UserError("llmkit serve", "starlette and uvicorn are not installed", 'pip install "llmkit[serve]"')
    if not 0 <= args.port < 65536:
        raise UserError("--port", f"is {args.port}", "give 0 to 65535")
    for name in (*OWN, "tools", "tool", "max_calls") if args.engine == "vllm" else ("max_model_len", "vllm_args"):
        if getattr(args, name) not in (None, []):
            what = f"has no effect with '--engine {args.engine}'"
            raise UserError(f"--{name.replace('_', '-')}", what, "leave it out, or take the other engine")
    for name, least in (("max_new_tokens", 1), ("max_rows", 1), ("max_waiting", 0), ("max_model_len", 1)):
        if (value := getattr(args, name)) is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')}", f"is {value}", f"give {least} or more")
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key and key):
        raise UserError(KEY, "is empty or holds what no header can", "give letters and digits")
    if args.host not in LOOPBACKS and key is None:
        what = "others reach this address, and no key is set"
        raise UserError(f"--host {args.host}", what, f"set {KEY} to a secret, which clients send as their API key")


def name_of(target: str) -> str:
    """What requests call the model: the last word of a path or Hub id, at whatever revision."""
    path = Path(target).expanduser()
    name = path.resolve().name if path.exists() else re.split(r"[/:]", named(target).path)[-1]
    return name or "model"


def say(url: str, name: str) -> None:
    print(f"{name}: chat at {url}\nOpenAI's API at {url}v1; end with Ctrl-C", flush=True)


def serve(host: ModelHost, listening: object, address: str, key: str | None, ready: Callable[[str, str], None]) -> None:
    """Blocks until it is told to stop."""
    from llmkit.serving.app import make_app
    from llmkit.web import server_of

    port = listening.getsockname()[1]  # type: ignore[attr-defined]
    with ThreadPoolExecutor(host.limits.max_rows + host.limits.max_waiting, "request") as threads:
        app = make_app(host, address, port, key, threads)
        ready(url_of(address, port), host.name)
        with suppress(KeyboardInterrupt):
            server_of(app, host.pool.stop).run(sockets=[listening])  # type: ignore[list-item]
        host.close()


def url_of(address: str, port: int) -> str:
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/"


if __name__ == "__main__":
    sys.exit(main())
