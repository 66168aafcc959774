"""The page of errors names every class, and each example gives the very words that stand there."""

from __future__ import annotations

import re
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from helpers_pages import Example, examples, said

import llmkit.generation.pool
import llmkit.preference.session
import llmkit.rewards.rows  # noqa: F401 - errors that are defined where they are raised
from llmkit.errors import LlmkitError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
TEXT = PAGE.read_text(encoding="utf-8")


def _kinds(base: type[Exception]) -> set[str]:
    return {base.__name__}.union(*(_kinds(kind) for kind in base.__subclasses__()))


def test_every_kind_of_error_has_its_place() -> None:
    kinds = {name for name in _kinds(LlmkitError) if not name.startswith("_")} - {"LlmkitError"}
    assert set(re.findall(r"^## (\w+)$", TEXT, flags=re.M)) >= kinds


@pytest.mark.parametrize("example", list(examples(TEXT)), ids=lambda example: example.heading)
def test_an_example_gives_the_words_of_the_page(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert said(example, tmp_path, monkeypatch, capsys) == list(example.lines)


def test_the_list_of_messages_holds_the_words_of_the_examples() -> None:
    made = run_path(str(PAGE.parent / "_make" / "messages.py"))
    texts = [message.what for message in made["messages"]()]
    parts = [".+".join(re.escape(part) for part in text.split(made["FILLED"])) for text in texts]
    patterns = [re.compile(f": {part}(;|$| near )") for part in parts]
    lines = [line for example in examples(TEXT) for line in example.lines if line.startswith("error: ")]
    for line in (each for each in lines if not each.endswith("stopped")):
        assert any(pattern.search(line) for pattern in patterns), line
