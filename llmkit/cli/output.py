"""What the command line prints on."""

from __future__ import annotations

import sys

from rich.console import Console


def console() -> Console:
    """For output; wide where no terminal sets the width."""
    return Console() if sys.stdout.isatty() else Console(width=160)
