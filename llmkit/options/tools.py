"""The options of commands that name tools: `--tools FILE` and `--tool python --tool search:INDEX`."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmkit.errors import UserError

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
        "--max-calls", type=int, metavar="N", help=f"with tools: calls of one answer (default: {MAX_CALLS})"
    )


def max_calls_of(args: argparse.Namespace) -> int:
    """Raises UserError for none at all, and for a number where there is nothing to call."""
    if args.max_calls is None:
        return MAX_CALLS
    if args.max_calls < 1:
        raise UserError("--max-calls", f"is {args.max_calls}", "give 1 or more")
    if args.tools is None and not args.tool:
        raise UserError("--max-calls", "has no effect without tools", "add --tool or --tools, or leave it out")
    return int(args.max_calls)
