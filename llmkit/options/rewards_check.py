"""`llmkit rewards check`."""

from __future__ import annotations

import argparse

from llmkit.options import parser_of


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit rewards check", "Score gold and corrupted solutions.")
    made.add_argument("words", nargs="+", help="recipe, overlays and key=value words")
    made.add_argument("--stage", help="one stage that practises (default: all)")
    made.add_argument("--json", action="store_true", help="for machines")
    return made
