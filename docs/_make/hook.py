"""What MkDocs is told besides mkdocs.yml: files outside docs/ that a page links to become part of the site.

The page of errors also gets all messages, read from the code.

A page links to `../recipes/qwen3-0.6b/README.md` as it does on GitHub. Here that file is added as
`recipes/qwen3-0.6b/README.md`, with what it links to in turn, and links are written for the place that it has here.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.append(str(Path(__file__).parent))
from messages import as_markdown

ROOT = Path(__file__).resolve().parents[2]
_MESSAGES = "<!-- messages -->"
_INTERVAL = re.compile(r"\(\u2212?[\d.]+\u2013\u2212?[\d.]+\)")
_LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what the menu names or pages link to and docs/ does not hold."""
    waiting = [PurePosixPath("docs", file.src_uri) for file in files.documentation_pages()]
    targets = [PurePosixPath(name) for name in _named(config.nav) if (ROOT / name).is_file()]
    while targets or waiting:
        if not targets:
            targets = list(_linked(waiting.pop()))
            continue
        target = targets.pop()
        if not target.is_relative_to("docs") and not files.get_file_from_path(str(target)):
            files.append(File.generated(config, str(target), abs_src_path=str(ROOT / target)))
            waiting += [target] if target.suffix == ".md" else []
    return files


def _named(menu: Any) -> Iterator[str]:
    """The files in a menu: names, maps of a title, lists."""
    if isinstance(menu, str):
        yield menu
    for item in menu.values() if isinstance(menu, dict) else menu if isinstance(menu, list) else ():
        yield from _named(item)


def _linked(source: PurePosixPath) -> Iterator[PurePosixPath]:
    for link in _LINK.finditer((ROOT / source).read_text(encoding="utf-8")):
        if target := _resolved(source, link[2]):
            yield target


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are written in the repository become links of the site."""
    uri = PurePosixPath(page.file.src_uri)
    source = uri if page.file.generated_by else PurePosixPath("docs") / uri
    return _LINK.sub(_moved(source, uri), markdown.replace(_MESSAGES, as_markdown()))


def on_page_content(html: str, **_: Any) -> str:
    """An interval stays on one line."""
    return _INTERVAL.sub(r'<span class="whole">\g<0></span>', html)


def _moved(source: PurePosixPath, uri: PurePosixPath) -> Callable[[re.Match[str]], str]:
    def moved(link: re.Match[str]) -> str:
        target = _resolved(source, link[2])
        if target is None:
            return link[0]
        place = target.relative_to("docs") if target.is_relative_to("docs") else target
        return f"{link[1]}{os.path.relpath(place, uri.parent)}{link[3] or ''}{link[4]}"

    return moved


def _resolved(source: PurePosixPath, link: str) -> PurePosixPath | None:
    """The file of the repository that a link names; None where there is none, which MkDocs then complains of."""
    target = PurePosixPath(os.path.normpath(source.parent / link))
    return target if (ROOT / target).is_file() else None
