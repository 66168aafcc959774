"""`llmkit judge-check`."""

from __future__ import annotations

import argparse

from llmkit.artifacts.shipped import shipped
from llmkit.options import parser_of


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit judge-check", "Measure a judge against labelled answers.")
    labelled = shipped("evals") / "judge" / "labelled.jsonl"
    rows = "rows with question, answers, answer, verdict, perhaps document (default: the slice that llmkit ships)"
    made.add_argument("file", nargs="?", default=str(labelled), help=rows)
    made.add_argument("--judge", choices=("rules", "self", "model", "openai"), default="rules", help="default: rules")
    made.add_argument(
        "--model", help="run folder, model folder or Hub id (me/model, me/model@revision); with openai: its name there"
    )
    made.add_argument("--json", action="store_true", help="for machines")
    # the recipe's own settings, which have their defaults there
    own = made.add_argument_group("as in a recipe's 'judge'")
    own.add_argument("--revision", help="with model: branch, tag or commit on the Hub")
    own.add_argument("--engine", choices=("transformers", "continuous", "vllm"), help="with model: what runs it")
    own.add_argument("--base-url", help="with openai: address of the endpoint (default: OPENAI_BASE_URL)")
    own.add_argument("--api-key-env", metavar="NAME", help="with openai: environment variable that holds the key")
    own.add_argument("--timeout", type=float, metavar="SECONDS", help="with openai: that one request may take")
    own.add_argument("--max-retries", type=int, metavar="N", help="with openai: tries after the first")
    own.add_argument("--concurrency", type=int, metavar="N", help="with openai: requests at a time")
    own.add_argument("--prompt", metavar="FILE", help="Jinja prompt of your own")
    own.add_argument("--max-new-tokens", type=int, metavar="N", help="longest reply")
    return made
