"""`llmkit rank export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmkit.artifacts.rundir import RANKINGS
from llmkit.options import parser_of


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit rank export", "Write rankings as preference rows: prompt, chosen, rejected.")
    made.add_argument("path", help="rollouts.jsonl, or a folder that holds one")
    made.add_argument("--to", type=Path, required=True, metavar="FILE", help="preferences.jsonl to write")
    made.add_argument("--rankings", type=Path, help=f"file of decisions (default: {RANKINGS} beside the rollouts)")
    return made
