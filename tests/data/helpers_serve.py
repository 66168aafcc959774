"""A served model in this process: its port, its host, and a client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit.recipe.tools import CalculatorSpec
from llmkit.serving.app import make_app
from llmkit.stages.hosting import Limits, ModelHost
from llmkit.tools.tool import Tool
from llmkit.tools.toolbox import Toolbox, open_tools
from llmkit.web import listen, server_config


class Served:
    """One model at an address."""

    def __init__(self, host: ModelHost, port: int) -> None:
        self.host, self.port, self.url = host, port, f"http://127.0.0.1:{port}/"

    def client(self, **options: Any) -> Any:
        from openai import OpenAI

        return OpenAI(base_url=f"{self.url}v1", api_key="none", max_retries=0, timeout=60, **options)


@contextmanager
def served(folder: Path, *tools: Tool, key: str | None = None, own: bool = True, **limits: Any) -> Iterator[Served]:
    """Args: own: with the calculator among its tools."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    box = Toolbox([*tools, *(open_tools([CalculatorSpec(name="calculator")]).tools.values() if own else ())])
    host = ModelHost(model, tokenizer, box, "tiny", Limits(**{"max_new_tokens": 300} | limits))
    with listen("127.0.0.1", 0) as listening, ThreadPoolExecutor(20) as threads:
        port = listening.getsockname()[1]
        app = make_app(host, "127.0.0.1", port, key, threads)
        server = uvicorn.Server(server_config(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Served(host, port)
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
            host.close()


def chunks_of(text: str) -> list[Any]:
    """Of a stream as it was sent; the last one must be [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
