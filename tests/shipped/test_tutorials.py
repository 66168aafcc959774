"""What the tutorials show behind a command is what that command prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers_pages import outputs, printed

ROOT = Path(__file__).resolve().parents[2]
SHOWN = [
    pytest.param(command, lines, id=f"{page.stem}: {command[:40]}")
    for page in sorted((ROOT / "docs").glob("*.md"))
    for command, lines in outputs(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("command", "lines"), SHOWN)
def test_a_command_prints_what_the_page_shows(
    command: str, lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(ROOT)
    assert printed(command, monkeypatch, capsys) == lines
