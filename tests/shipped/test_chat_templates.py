"""Every shipped template is loaded, proved, and described in chat_templates/README.md as it is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from mask_bugs.cases import TALK, fly, good_row, ready
from mask_bugs.toys import bos_tokenizer, byte_tokenizer, metaspace_tokenizer

from llmkit.chat.prove import prove
from llmkit.chat.render import render
from llmkit.chat.template import apply_template, has_generation_marks, load_template, shipped_dir, shipped_names

README = shipped_dir() / "README.md"
EXAMPLE = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_the_folder_at_the_top_is_the_one_in_use() -> None:
    assert shipped_dir() == Path(__file__).parents[2] / "chat_templates"
    assert shipped_names() == ["chatml", "chatml_search", "chatml_sep", "chatml_think", "chatml_tools"]


@pytest.mark.parametrize("build", [byte_tokenizer, bos_tokenizer, metaspace_tokenizer])
@pytest.mark.parametrize("name", shipped_names())
def test_template_is_proved(name: str, build) -> None:  # type: ignore[no-untyped-def]
    tokenizer = ready(name, build())
    assert prove(tokenizer) == []
    assert fly([good_row(tokenizer)], tokenizer).num_trained_turns == 2


@pytest.mark.parametrize("name", shipped_names())
def test_template_declares_itself(name: str) -> None:
    template = load_template(name)
    assert has_generation_marks(template)
    assert template.stop_token in template.special_tokens
    assert all(token in template.source.split("\n", 1)[1] for token in template.special_tokens)


@pytest.mark.parametrize("name", shipped_names())
def test_template_writes_nothing_of_its_own(name: str) -> None:
    """What is left without the messages and the control tokens is role names and newlines."""
    text = render(ready(name), [{"role": "system", "content": "§"}, *TALK]).text or ""
    for piece in ["§", *(message["content"] for message in TALK), *load_template(name).special_tokens]:
        text = text.replace(piece, "")
    assert set(text.split()) <= {"system", "user", "assistant", "systemuserassistantuserassistant"}


@pytest.mark.parametrize("name", shipped_names())
def test_readme_shows_what_the_template_writes(name: str) -> None:
    messages = EXAMPLE
    if name == "chatml_think":
        messages = [EXAMPLE[0], {**EXAMPLE[1], "reasoning_content": "A greeting."}]
    if name in ("chatml_tools", "chatml_search"):
        call = {"type": "function", "function": {"name": "search", "arguments": {"query": "Hi"}}}
        messages = [EXAMPLE[0], {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "A word."}]
    shown = repr(render(ready(name), messages).text)[1:-1].replace("|", "\\|")
    (line,) = [line for line in README.read_text().splitlines() if line.startswith(f"| `{name}`")]
    assert shown.replace("\\|", "|") in line.replace("\\|", "|")
    assert load_template(name).stop_token in line.replace("\\|", "|")


def test_readme_names_tests_that_exist() -> None:
    names = set(re.findall(r"`(test_\w+)`", README.read_text()))
    root = Path(__file__).parents[1]
    source = "".join(path.read_text() for path in [*root.glob("data/test_*.py"), *root.glob("shipped/test_*.py")])
    assert len(names) >= 8
    assert [name for name in sorted(names) if f"def {name}(" not in source] == []


def test_the_readmes_own_template_is_sound(tmp_path: Path) -> None:
    source = re.search(r"```jinja\n(.*?)```", README.read_text(), re.DOTALL)
    assert source is not None
    (tmp_path / "own.jinja").write_text(source[1])
    tokenizer = byte_tokenizer()
    assert apply_template(tokenizer, load_template(tmp_path / "own.jinja")) == ["<turn>", "<end>"]
    assert prove(tokenizer) == []


def test_a_template_that_does_not_parse_back_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.chat.prove.parse", lambda tokenizer, ids: [])
    (problem,) = prove(ready("chatml"))
    assert "does not give the messages back" in problem.what
