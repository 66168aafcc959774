"""`llmkit rank`."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmkit.artifacts.rundir import RANKINGS
from llmkit.options import parser_of


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit rank", "Rank completions on a page in your browser. Every decision is saved at once.")
    made.add_argument("path", help="rollouts.jsonl, or a folder that holds one")
    made.add_argument("--rater", help="who ranks (default: your name on this machine; can be changed on the page)")
    made.add_argument("--port", type=int, metavar="N", help="0: any that is free (default: the last one)")
    made.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    made.add_argument("--repeat", type=float, default=0.1, help="share of prompts that come twice (default: 0.1)")
    made.add_argument("--seed", type=int, default=0, help="of the order of prompts and answers (default: 0)")
    made.add_argument("--out", type=Path, help=f"file of decisions (default: {RANKINGS} beside the rollouts)")
    return made
