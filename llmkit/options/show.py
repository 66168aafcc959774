"""`llmkit show`."""

from __future__ import annotations

import argparse

from llmkit.options import parser_of


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit show", "Rows as the trainer sees them, text as tokens.")
    made.add_argument("--recipe", nargs="+", default=[], help="recipe, overlays and key=value words")
    made.add_argument("words", nargs="*", help="more overlays and key=value words")
    made.add_argument("--stage", help="a training stage; default: the only one")
    made.add_argument("--rows", type=int, default=3, help="rows to print")
    made.add_argument("--ids", action="store_true", help="also every token with its id")
    made.add_argument("--tokens", metavar="TEXT", help="show how this text is cut into tokens")
    made.add_argument("--model", help="with --tokens: model folder or Hub id (me/model, me/model@revision)")
    return made
