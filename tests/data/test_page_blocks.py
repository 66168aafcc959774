"""The Python of the pages runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers_script import chat_model, script
from helpers_serve import served
from helpers_talking import call, tool_tokenizer

from llmkit.chat.render import prompt_ids
from llmkit.recipe.tools import CalculatorSpec

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_all_python_of_the_pages_is_run_below() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
    assert {page.name: len(blocks(page)) for page in pages if blocks(page)} == {"serving.md": 1, "tools.md": 1}


def test_the_way_of_a_call() -> None:
    tokenizer, messages = tool_tokenizer(), [{"role": "user", "content": "How much is 12 * 12?"}]
    written = call("calculator", expression="12 * 12") + "<|im_end|>"
    given = {
        "specs": [CalculatorSpec(name="calculator")],
        "tokenizer": tokenizer,
        "prompt_ids": prompt_ids(tokenizer, messages),
        "answer": SimpleNamespace(ids=tuple(tokenizer(written, add_special_tokens=False).input_ids)),
        "messages": messages,
    }
    (block,) = blocks(ROOT / "docs/tools.md")
    exec(block, given)
    made: Any = given["messages"]
    assert [message["role"] for message in made] == ["user", "assistant", "tool"]
    assert made[-1]["content"] == "144"


def test_a_client_of_the_server(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = blocks(ROOT / "docs/serving.md")
    with served(chat_model(model_dir, tmp_path, "chatml_tools")) as server:
        script(monkeypatch, server.host.tokenizer, lambda _: "It is 5.")
        here = block.replace("http://127.0.0.1:8000/", server.url).replace('"assistant"', '"tiny"')
        exec(here, {"messages": [{"role": "user", "content": "2+3?"}]})
    assert capsys.readouterr().out == "It is 5."
