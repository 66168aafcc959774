"""vLLM's own server behind llmkit's page and gate: what `llmkit serve --engine vllm` runs.

It is a child on a loopback port of its own, with a key that this process alone knows, and ends with this process,
however that ends. It writes; who is let in, and to what, is decided here.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from httpx2 import Client, HTTPError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from llmkit.chat.calls import format_of
from llmkit.errors import LlmkitError, TemplateError, UserError
from llmkit.generation.conversation import Settings
from llmkit.launch import guard
from llmkit.modeling.load import load_tokenizer
from llmkit.modeling.source import adapter_folder, resolve
from llmkit.options.serve import KEY
from llmkit.serving.forward import make_forwarding_app
from llmkit.stages.named import model_of
from llmkit.stages.serve import name_of, say, url_of
from llmkit.web import LOOPBACK, listen, server_of

GRACE = 10.0
"""Seconds that vLLM has to end."""
_POLL = 0.2


def serve_with_vllm(args: argparse.Namespace, key: str | None) -> None:
    """Blocks until it is told to stop.

    Raises:
        UserError: there is no vLLM, it does not start, or the target is none for it.
        LlmkitError: it ended by itself.
    """
    command, (path, revision) = vllm_command(), model_of(args.target, args.stage)
    model = resolve(path)
    if adapter_folder(path, revision) is not None:
        what = "is an adapter alone, and vLLM is started with whole weights"
        raise UserError(args.target, what, "set 'peft.merge: true' in its stage, or serve it without '--engine vllm'")
    name, settings = args.name or name_of(args.target), _settings_of(model, revision)
    with listen(args.host, args.port) as listening:
        child_port, child_key = _free_port(), secrets.token_urlsafe(24)
        argv = vllm_argv(
            command,
            model,
            name,
            child_port,
            reads_calls=reads_calls(load_tokenizer(model, revision)),
            settings=settings,
            max_model_len=args.max_model_len,
            revision=revision,
            more=shlex.split(args.vllm_args or ""),
        )
        with _running(argv, environment(child_key)) as child:
            upstream = f"http://{LOOPBACK}:{child_port}"
            about = _about(child, upstream, child_key, settings)
            port = listening.getsockname()[1]
            app = make_forwarding_app(upstream, child_key, name, about, args.host, port, key)
            say(url_of(args.host, port), name)
            _serve(app, listening, child)


def vllm_command() -> str:
    """The program, on PATH or beside this Python. Raises UserError without one."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("vllm") or shutil.which("vllm", path=beside)
    if found is None:
        cure = "install vLLM (pip install vllm), or leave '--engine vllm' out"
        raise UserError("--engine vllm", "there is no command 'vllm'", cure)
    return found


def reads_calls(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether vLLM's parser `hermes` is for the calls of this model's template."""
    with suppress(TemplateError):
        return format_of(tokenizer) == "json"
    return False


def vllm_argv(
    command: str,
    model: str,
    name: str,
    port: int,
    *,
    reads_calls: bool,
    settings: Settings,
    max_model_len: int | None = None,
    revision: str | None = None,
    more: Sequence[str] = (),
) -> list[str]:
    """The command that starts it. The chat template is the model folder's own.

    Args:
        reads_calls: requests may have tools.
        settings: of requests that say nothing, as `llmkit chat` has them.
        revision: of a model on the Hub.
        more: words of the user's, which come last and so win.
    """
    calls = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"] if reads_calls else []
    length = ["--max-model-len", str(max_model_len)] if max_model_len else []
    at = ["--revision", revision, "--tokenizer-revision", revision] if revision else []
    where = ["--host", LOOPBACK, "--port", str(port), "--served-model-name", name]
    sampling = ["--override-generation-config", json.dumps(_sampling(settings))]
    return [command, "serve", model, *at, *where, *calls, *length, *sampling, *more]


def _sampling(settings: Settings) -> dict[str, float]:
    """Without cuts that cut nothing: vLLM and its versions write these differently."""
    neutral = Settings()
    cuts = {name: getattr(settings, name) for name in ("top_k", "top_p", "min_p")}
    return {"temperature": settings.temperature} | {n: v for n, v in cuts.items() if v != getattr(neutral, n)}


def environment(key: str) -> dict[str, str]:
    """Of the child: a key of its own, no telemetry, and not what lets people in here."""
    own = {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {name: value for name, value in os.environ.items() if name != KEY} | own


def _settings_of(model: str, revision: str | None) -> Settings:
    try:
        return Settings.of_config(GenerationConfig.from_pretrained(model, revision=revision or "main"))
    except OSError:  # it has none
        return Settings()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return int(found.getsockname()[1])


@contextmanager
def _running(argv: Sequence[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Held by `guard`, which ends it and all that it started once this process closes its end, or dies."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, str(GRACE), *argv],
        env=env,
        stdin=subprocess.PIPE,
        stdout=2,  # what it says is no output of ours
        start_new_session=True,
    )
    try:
        yield child
    finally:
        assert child.stdin is not None
        child.stdin.close()
        child.wait()


def _about(child: subprocess.Popen[bytes], upstream: str, key: str, settings: Settings) -> dict[str, Any]:
    """For the page, once it answers: large models take minutes. Raises UserError where it ends instead."""
    with Client(base_url=upstream, headers={"authorization": f"Bearer {key}"}, timeout=10.0, trust_env=False) as client:
        while True:
            if child.poll() is not None:
                what = f"ended with exit code {child.returncode} before it answered"
                raise UserError("vllm serve", what, "what it said stands above")
            with suppress(HTTPError):
                if client.get("/health").status_code == 200:
                    break
            time.sleep(_POLL)
        models = client.get("/v1/models").json()
    context = models["data"][0].get("max_model_len") or 2**31
    sampling = {"temperature": settings.temperature, "top_p": settings.top_p}
    return {"context": context, "tools": [], "reasons": False, **sampling}


def _serve(app: Any, listening: socket.socket, child: subprocess.Popen[bytes]) -> None:
    """Raises LlmkitError where the child ends before it was told to."""
    told = threading.Event()
    server = server_of(app, told.set)

    def watch() -> None:
        child.wait()
        server.should_exit = True

    threading.Thread(target=watch, name="vllm", daemon=True).start()
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    if not told.is_set():
        raise LlmkitError(f"vllm serve: ended by itself with exit code {child.returncode}; what it said stands above")
