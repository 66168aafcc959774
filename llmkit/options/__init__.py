"""What commands that become workers take on the command line: a parser for each, named as its worker in `stages/`.

The command line reads them for `--help` and for completion, the workers to run; so they import no model library.
"""

from __future__ import annotations

import argparse
from importlib import import_module

TARGET = "run folder, stage folder, model folder, package:folder or Hub id (me/model, me/model@revision)"
"""What names a model."""


def parser_of(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Options must be written out: a shortened one may mean another in the next version."""
    return argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)


def parser_for(worker: str) -> argparse.ArgumentParser:
    """Of `python -m llmkit.stages.<worker>`."""
    made: argparse.ArgumentParser = import_module(f"llmkit.options.{worker}").parser()
    return made
