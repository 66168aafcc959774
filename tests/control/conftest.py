"""Fixtures of the control plane's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmkit.plan import fingerprint


@pytest.fixture
def code_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints take in llmkit's own source, which may be edited while tests run."""
    monkeypatch.setattr(fingerprint, "_PACKAGE", tmp_path / "package")
