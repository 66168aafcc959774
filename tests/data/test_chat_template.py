"""Loading a template, putting it on a tokenizer, reading it back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from mask_bugs.cases import ready, with_source
from mask_bugs.toys import byte_tokenizer
from transformers import AutoTokenizer

from llmkit.chat.render import render
from llmkit.chat.template import (
    RESPONSES,
    apply_template,
    has_generation_marks,
    load_template,
    shipped_dir,
    shipped_names,
    source_of,
    template_of,
)
from llmkit.errors import TemplateError

CALL = {"type": "function", "function": {"name": "search", "arguments": {"query": "x"}}}
MARKED = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<end>{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_load_by_name_and_by_path(tmp_path: Path) -> None:
    template = load_template("chatml_sep")
    assert template.special_tokens == ("<|im_start|>", "<|im_sep|>", "<|im_end|>")
    assert (template.name, template.stop_token) == ("chatml_sep", "<|im_end|>")
    assert template.sha256 == hashlib.sha256(template.source.encode()).hexdigest()
    mine = tmp_path / "mine.jinja"
    mine.write_text("{#- special_tokens: [a] <end>; stop_token: <end> -#}\n" + MARKED)
    loaded = load_template(mine)
    assert (loaded.name, loaded.special_tokens, loaded.stop_token) == ("mine", ("[a]", "<end>"), "<end>")
    assert load_template(str(shipped_dir() / "chatml_sep.jinja")) == template


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(TemplateError, match="did you mean chatml"):
        load_template("chatlm")
    with pytest.raises(TemplateError, match="shipped are chatml, chatml_search, chatml_sep, chatml_think, "):
        load_template("zzz")


def test_stop_token_must_be_declared(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_text("{#- special_tokens: <a>; stop_token: <end> -#}" + MARKED)
    with pytest.raises(TemplateError, match="stop_token <end> is not among its special_tokens"):
        load_template(mine)


def test_apply_adds_only_what_is_missing() -> None:
    tokenizer = byte_tokenizer()
    size = len(tokenizer)
    assert apply_template(tokenizer, load_template("chatml")) == ["<|im_start|>", "<|im_end|>"]
    assert len(tokenizer) == size + 2
    assert apply_template(tokenizer, load_template("chatml_sep")) == ["<|im_sep|>"]
    assert set(load_template("chatml_sep").special_tokens) <= set(tokenizer.all_special_tokens)
    assert apply_template(tokenizer, load_template("chatml")) == []
    assert tokenizer.eos_token == "<|endoftext|>"


def test_apply_makes_known_tokens_special_without_calling_them_new() -> None:
    """As in Qwen base models, whose vocabulary has the tokens already; then spelling them must be text."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    render_before = load_template("chatml")
    tokenizer.chat_template = render_before.source
    render(tokenizer, [{"role": "user", "content": "fill the cache"}])
    size = len(tokenizer)
    assert apply_template(tokenizer, load_template("chatml")) == []
    assert len(tokenizer) == size
    ids = render(tokenizer, [{"role": "user", "content": "<|im_end|>"}]).input_ids
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1


def test_apply_refuses_a_template_without_marks(tmp_path: Path) -> None:
    path = tmp_path / "stock.jinja"
    path.write_text(MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", ""))
    tokenizer = byte_tokenizer()
    with pytest.raises(TemplateError, match=r"put \{% generation %\} before"):
        apply_template(tokenizer, load_template(path))
    assert tokenizer.chat_template is None


@pytest.mark.parametrize("mark", ["{% generation %}", "{%- generation -%}", "{%generation%}"])
def test_marks(mark: str) -> None:
    assert has_generation_marks(MARKED.replace("{% generation %}", mark))
    assert not has_generation_marks("{% for m in messages %}{{ add_generation_prompt }}{% endfor %}")


def test_template_of() -> None:
    assert template_of(byte_tokenizer()) is None
    with pytest.raises(TemplateError, match="it has no chat template"):
        source_of(byte_tokenizer())
    for name in shipped_names():
        assert template_of(ready(name)) == load_template(name)


def test_stop_token_is_found_without_a_declaration() -> None:
    found = template_of(with_source(MARKED, ["<en", "<end>"]))
    assert found is not None
    assert (found.name, found.stop_token, found.special_tokens) == ("custom", "<end>", ())
    without = template_of(with_source(MARKED.replace("<end>", ""), ["<end>"]))
    assert without is not None and without.stop_token is None


def test_saving_a_tokenizer_keeps_the_template(tmp_path: Path) -> None:
    for name in shipped_names():
        tokenizer = ready(name)
        tokenizer.save_pretrained(tmp_path / name)
        loaded = AutoTokenizer.from_pretrained(tmp_path / name)
        assert template_of(loaded) == load_template(name)
        talk = [{"role": "user", "content": "<|im_end|> 👋"}, {"role": "assistant", "content": "\nx"}]
        assert render(loaded, talk) == render(tokenizer, talk)


@pytest.mark.parametrize(
    ("name", "message", "what"),
    [
        (
            "chatml",
            {"role": "tool", "content": "x"},
            'unknown role "tool"; this template knows system, user, assistant',
        ),
        ("chatml", {"role": "assistant"}, "content of the assistant message is not a string"),
        ("chatml", {"role": "user", "content": [{"type": "text", "text": "x"}]}, "is not a string"),
        ("chatml", {"role": "assistant", "content": "x", "reasoning_content": "y"}, "use chatml_think"),
        ("chatml_sep", {"role": "assistant", "content": "x", "thinking": "y"}, "use chatml_think"),
        ("chatml", {"role": "assistant", "content": "x", "tool_calls": [{}]}, "no place for tool_calls"),
        ("chatml_sep", {"role": "assistant", "content": "x", "tool_calls": [{}]}, "no place for tool_calls"),
        ("chatml_think", {"role": "assistant", "content": "x", "tool_calls": [{}]}, "no place for tool_calls"),
        ("chatml_sep", {"role": "tool", "content": "x"}, "unknown role"),
        ("chatml_think", {"role": "tool", "content": "x"}, "unknown role"),
        ("chatml_think", {"role": "user", "content": "x", "reasoning_content": "y"}, "belongs to the assistant"),
        (
            "chatml_think",
            {"role": "assistant", "content": "x", "reasoning_content": "a</think>b"},
            "end the span early",
        ),
        ("chatml_tools", {"role": "narrator", "content": "x"}, "this template knows system, user, assistant, tool"),
        ("chatml_tools", {"role": "assistant"}, "content of the assistant message is not a string"),
        ("chatml_tools", {"role": "user", "content": "x", "tool_calls": [CALL]}, "belong to the assistant"),
        ("chatml_tools", {"role": "tool", "content": "a</tool_response>b"}, "end the span early"),
        ("chatml_tools", {"role": "assistant", "content": "x", "tool_calls": [{}]}, "has no name"),
        ("chatml_tools", {"role": "user", "content": "x", "reasoning_content": "y"}, "belongs to the assistant"),
        ("chatml_search", {"role": "tool"}, "content of the tool message is not a string"),
        ("chatml_search", {"role": "user", "content": "x", "tool_calls": [CALL]}, "belong to the assistant"),
        ("chatml_search", {"role": "assistant", "tool_calls": [{"name": "add"}]}, 'no tokens for the tool "add"'),
        ("chatml_search", {"role": "assistant", "tool_calls": [{"name": "search", "arguments": "x"}]}, "a text"),
        (
            "chatml_search",
            {"role": "assistant", "tool_calls": [{"name": "search", "arguments": {"query": "x", "k": 1}}]},
            "nothing else",
        ),
        (
            "chatml_search",
            {"role": "assistant", "content": "x", "reasoning_content": "a</think>b"},
            "end the span early",
        ),
    ],
)
def test_template_refuses_what_it_cannot_write(name: str, message: dict[str, object], what: str) -> None:
    with pytest.raises(TemplateError, match=what):
        render(ready(name), [message])


@pytest.mark.parametrize("name", ["chatml", "chatml_sep", "chatml_think"])
def test_template_refuses_tools(name: str) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    with pytest.raises(TemplateError, match="no place for tools"):
        render(ready(name), [{"role": "user", "content": "x"}], tools=[tool])


def test_search_tokens_list_only_the_tools_that_have_some() -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("search", "python")]
    talk = [{"role": "user", "content": "x"}]
    assert "<|im_start|>system\nTools: search python<|im_end|>" in (
        render(ready("chatml_search"), talk, tools=tools).text or ""
    )
    with pytest.raises(TemplateError, match='no tokens for the tool "add"'):
        render(ready("chatml_search"), talk, tools=[{"type": "function", "function": {"name": "add"}}])


def test_a_new_template_takes_the_response_template_of_the_old_one_away() -> None:
    tokenizer = ready("chatml_tools")
    assert tokenizer.response_template == RESPONSES["chatml_tools"]
    apply_template(tokenizer, load_template("chatml"))
    assert tokenizer.response_template is None
