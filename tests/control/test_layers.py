"""The import contracts of pyproject.toml hold, and would be seen to break."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", ROOT / "pyproject.toml"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=120)


def test_contracts_are_kept() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "5 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("room", "line"),
    [("plan", "import torch"), ("recipe", "import llmkit.plan.make"), ("plan", "import llmkit.stages.sft")],
)
def test_a_wrong_import_is_seen(tmp_path: Path, room: str, line: str) -> None:
    for source in (ROOT / "llmkit").rglob("*.py"):
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    (tmp_path / "llmkit" / room / "wrong.py").write_text(f"{line}\n")
    result = lint(tmp_path)
    assert result.returncode == 1, result.stdout[-3000:]
    assert f"llmkit.{room}.wrong" in result.stdout
