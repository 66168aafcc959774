"""The options of commands that name tools: `--tools FILE` and `--tool python --tool search:INDEX`."""

from __future__ import annotations

import argparse
from pathlib import Path

MAX_CALLS = 8


def add_tool_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tools", type=Path, metavar="FILE", help="YAML with a list `tools:`, as in a recipe")
    parser.add_argument(
        "--tool",
        action="append",
        default=[],
        metavar="NAME",
        help="python, calculator, search:INDEX or package.module:function; may be given several times",
    )
    parser.add_argument(
        "--max-calls", type=int, default=MAX_CALLS, metavar="N", help=f"calls of one answer (default: {MAX_CALLS})"
    )
