"""The pages build into a site whose links all lead somewhere and which asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from llmkit.recipe.schema import KINDS

ROOT = Path(__file__).resolve().parents[2]
_LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` makes. A link or heading that is not there ends it."""
    folder = tmp_path_factory.mktemp("site")
    # with --quiet nothing would be strict
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given["id"]} if "id" in given else set()
        self.links += [(tag, name, given[name]) for name in ("href", "src") if name in given]


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the place where the site is put
            continue
        for _, _, link in page.links:
            parts = urlsplit(link)
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)}: {link}"
            if target in pages and parts.fragment:
                assert unquote(parts.fragment) in pages[target].ids | {"__top"}, f"{path.relative_to(site)}: {link}"


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = _Page(path.read_text(encoding="utf-8"))
        away = [link for tag, name, link in page.links if (tag, name) in _LOADED and urlsplit(link).netloc]
        assert not away, f"{path.relative_to(site)} loads {away}"
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", path.read_text(encoding="utf-8")), path.name


def test_every_page_of_docs_is_in_the_menu(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page.name


def test_links_of_the_pages_hold_in_the_repository_too() -> None:
    for page in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("*/*/README.md"),
    ]:
        for link in re.findall(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"


def test_the_first_page_names_every_kind_of_stage() -> None:
    text = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []


def test_the_reference_is_that_of_the_schema() -> None:
    """Mended by `python docs/_make/reference.py`."""
    spec = spec_from_file_location("reference", ROOT / "docs/_make/reference.py")
    assert spec is not None and spec.loader is not None
    reference: Any = module_from_spec(spec)
    spec.loader.exec_module(reference)
    there = {path.name: path.read_text(encoding="utf-8") for path in reference.FOLDER.glob("*.md")}
    assert there == reference.pages(), "run python docs/_make/reference.py"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        pass


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_asks_only_its_own_server_and_fits(site: Path, browser: Any, width: int) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}/"
    page = browser.new_page(viewport={"width": width, "height": 800})
    failed: list[str] = []

    def refuse(route: Any) -> None:
        failed.append(route.request.url)
        route.abort()

    page.route(lambda url: not url.startswith((home, "data:")), refuse)
    page.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
    page.on("pageerror", lambda error: failed.append(str(error)))
    for name in ("index.html", "sft.html", "reference/training.html", "errors.html"):
        page.goto(home + name, wait_until="networkidle" if width > 960 else "load")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    if width < 960:  # the field is folded away
        page.evaluate("document.querySelector('#__search').click()")
    found = page.locator(".md-search-result__item")
    for _ in range(10):  # what is typed before the index is there is lost
        page.locator(".md-search__input").fill("")
        page.locator(".md-search__input").press_sequentially("preflight")
        page.wait_for_timeout(1000)
        if found.count():
            break
    assert found.count()
    assert not failed
    page.close()
    server.shutdown()
