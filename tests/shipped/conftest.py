"""A real browser for the tests that look at pages; they skip where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP evil.test 127.0.0.1",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS, headless=True)
        yield chromium
        chromium.close()


@pytest.fixture
def serve(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """serve(rater, rows, repeat=0.0) -> a ranking page; its windows are closed with it."""
    from helpers_rank_page import Local  # other pages need no server

    with ExitStack() as stack:

        def start(*words: Any) -> Local:
            server = Local(tmp_path, *words)
            stack.callback(server.stop)
            return server

        yield start
        for context in browser.contexts:
            context.close()
