"""`llmkit chat`."""

from __future__ import annotations

import argparse

from llmkit.options import TARGET, parser_of
from llmkit.options.tools import add_tool_options

MAX_NEW_TOKENS = 256


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit chat", "Talk to a model in the terminal.")
    made.add_argument("target", help=TARGET)
    made.add_argument("--stage", help="with a run folder: the stage whose model it is")
    made.add_argument("--system", metavar="TEXT", help="system prompt")
    made.add_argument("--raw", action="store_true", help="no chat template: the model goes on from the text")
    made.add_argument("--prompt", metavar="TEXT", help="print the answer to this alone and exit")
    for name, kind in (("temperature", float), ("top-p", float), ("top-k", int), ("min-p", float)):
        made.add_argument(f"--{name}", type=kind, help="default: the model's generation config, else greedy")
    made.add_argument(
        "--max-new-tokens",
        type=int,
        default=MAX_NEW_TOKENS,
        metavar="N",
        help=f"longest answer (default {MAX_NEW_TOKENS})",
    )
    made.add_argument(
        "--max-thinking-tokens", type=int, metavar="N", help="then its reasoning is ended (default: no limit)"
    )
    made.add_argument("--seed", type=int, help="makes sampled answers repeatable")
    add_tool_options(made)
    made.add_argument("--best-of", type=int, metavar="N", help="answer N times; show what a reward model likes best")
    made.add_argument("--reward-model", metavar="FOLDER", help="with --best-of: of a 'reward' stage, or its model's")
    return made
