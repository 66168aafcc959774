"""`llmkit eval`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from llmkit.options import TARGET, parser_of

FILE = "results.json"
API_KEY_ENV = "OPENAI_API_KEY"
CONCURRENCY = 8
BATCH_SIZE = 32


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit eval", "Run lm-eval tasks on a model, or on two.")
    add: Callable[..., Any] = made.add_argument
    add("target", nargs="?", metavar="MODEL", help=TARGET)
    add("--stage", help="with a run folder: the stage whose model it is")
    add("--tasks", required=True, metavar="A,B", help="names of lm-eval tasks")
    add("--against", metavar="OTHER", help="a model to compare with, on the same documents")
    add("--against-stage", metavar="STAGE", help="with a run folder as OTHER")
    add("--against-model", metavar="NAME", help="with --base-url: another model there in place of OTHER")
    add("--limit", type=int, metavar="N", help="first so many documents of each task")
    add("--num-fewshot", type=int, metavar="N", help="worked examples in each prompt")
    add("--raw", action="store_true", help="no chat template")
    add("--data", action="append", default=[], metavar="TASK=FOLDER", help="a task's data on this machine")
    add("--include-path", metavar="FOLDER", help="task files of your own")
    add("--allow-code-execution", action="store_true", help="let code tasks run what the model writes, in a sandbox")
    add("--base-url", metavar="URL", help="an OpenAI-compatible endpoint in place of MODEL")
    add("--model", metavar="NAME", help="with --base-url: the model's name there")
    add("--api-key-env", metavar="NAME", help=f"variable that holds the endpoint's key (default: {API_KEY_ENV})")
    add("--concurrency", type=int, metavar="N", help=f"requests to the endpoint at once (default: {CONCURRENCY})")
    add("--batch-size", type=int, metavar="N", help=f"of a model that is loaded here (default: {BATCH_SIZE})")
    add("--seed", type=int, default=0, help="of worked examples, sampled answers and intervals")
    add("--cache", metavar="FOLDER", help="where answers are kept (default: ~/.cache/llmkit/answers)")
    add("--no-cache", action="store_true", help="ask everything again and keep nothing")
    add("--out", metavar="FOLDER", help=f"write {FILE} and every document there")
    add("--json", action="store_true", help="for machines")
    return made
