"""Commands that need the model libraries become a worker process: this one ends here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def become(module: str, words: Sequence[str]) -> None:
    """Replace this process with `python -m llmkit.stages.<module> words...`."""
    env = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"}
    argv = [sys.executable, "-m", f"llmkit.stages.{module}", *words]
    sys.stdout.flush()
    os.execvpe(sys.executable, argv, env)
