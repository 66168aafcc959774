"""Workers import without collecting garbage, and collect it from then on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "import gc, sys; sys.argv = [{first!r}]; import llmkit.stages as stages; {then}; print(gc.isenabled())"


@pytest.mark.parametrize(
    ("first", "then", "collects"),
    [("-m", "0", False), ("-m", "stages.started()", True), ("pytest", "0", True)],
)
def test_garbage_is_collected_once_a_worker_has_started(first: str, then: str, collects: bool) -> None:
    argv = [sys.executable, "-c", SCRIPT.format(first=first, then=then)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(collects)


STARTED = sorted(p for p in (ROOT / "llmkit" / "stages").glob("*.py") if '__name__ == "__main__"' in p.read_text())


@pytest.mark.parametrize("path", STARTED, ids=lambda path: path.stem)
def test_every_worker_and_command_ends_its_start(path: Path) -> None:
    text = path.read_text()
    assert "\n@as_command\n" in text or re.search(r"^from llmkit.stages.common import .*\bmain\b", text, re.MULTILINE)
