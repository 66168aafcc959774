"""`llmkit arena`."""

from __future__ import annotations

import argparse

from llmkit.options import parser_of


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit arena", "Rate the models of a run against one another.")
    made.add_argument("run", help="run folder")
    made.add_argument("--by", help="evaluation 'preference' or 'rank' stage whose comparisons count (default: all)")
    made.add_argument("--json", action="store_true", help="for machines")
    return made
