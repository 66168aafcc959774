"""Fixtures of the control plane's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from control.report_runs import Page, page_of

from llmkit.artifacts.rundir import RunDir
from llmkit.plan import code
from llmkit.report.collect import collect
from llmkit.report.run import RunReport


@pytest.fixture
def code_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints take in llmkit's own source, which may be edited while tests run."""
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "package")


@pytest.fixture(scope="module")
def page(run: RunDir) -> Page:
    """The report of a file's own `run`."""
    return page_of(run)


@pytest.fixture(scope="module")
def report(run: RunDir) -> RunReport:
    """What is read of a file's own `run`."""
    return collect(run)
