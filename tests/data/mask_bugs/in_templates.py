"""Bugs of the chat template."""

from pathlib import Path

import trl

from llmkit.chat.render import render
from llmkit.chat.template import apply_template, load_template
from mask_bugs.cases import TALK, case, chatml_with, proved, texts, with_source
from mask_bugs.toys import bos_tokenizer, byte_tokenizer

_TRL = Path(trl.__file__).parent / "chat_templates"


def _trl(name: str, *tokens: str) -> list[str]:
    return proved(with_source((_TRL / f"{name}.jinja").read_text(), tokens or ("<|im_start|>", "<|im_end|>")))


@case("trl#5988", "trl#1623", "axolotl#3754", "axolotl#3756", expected="<|im_end|> is outside the mask")
def stop_token_outside_the_marks() -> list[str]:
    inside = "{{- message.content + '<|im_end|>' }}\n        {%- endgeneration %}"
    outside = "{{- message.content }}\n        {%- endgeneration %}{{- '<|im_end|>' }}"
    return proved(chatml_with(inside, outside))


@case("prime-rl#2644", "trl#6044", expected="<|user|> is outside the mask")
def stop_token_stands_in_the_next_message() -> list[str]:
    source = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' }}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return proved(with_source(source, ("<|user|>", "<|assistant|>", "<|system|>")))


@case("Megatron-Bridge#3359", "marin#7237", expected="no {% generation %} marks")
def no_marks_proved() -> list[str]:
    return _trl("qwen3")


@case("Megatron-Bridge#3359", "marin#7237", expected="no {% generation %} marks")
def no_marks_rendered() -> list[str]:
    tokenizer = with_source((_TRL / "qwen3.jinja").read_text())
    return texts(lambda: render(tokenizer, TALK))


@case("axolotl#1761", expected="marks 1 of 2 assistant turns")
def only_the_last_turn_is_marked() -> list[str]:
    tokenizer = chatml_with(
        "{%- if message.role == 'assistant' %}", "{%- if message.role == 'assistant' and loop.last %}"
    )
    return texts(lambda: render(tokenizer, TALK))


@case("alignment-handbook#56", expected="marks 2 of 1 assistant turns")
def user_turns_are_marked_too() -> list[str]:
    return proved(chatml_with("{%- if message.role == 'assistant' %}", "{%- if true %}"))


@case("axolotl#2089", expected="the mask also covers '<|im_start|>assistant")
def header_is_marked_too() -> list[str]:
    tokenizer = chatml_with("{{- '<|im_start|>' + message.role + '\\n' }}", "")
    change = "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}"
    tokenizer.chat_template = tokenizer.chat_template.replace("{{- message.content + '<|im_end|>' }}", change)
    return proved(tokenizer)


@case("trl#6363", "axolotl#3724", expected="corrupts reasoning")
def reasoning_is_wrapped_a_second_time() -> list[str]:
    old = "{%- if '</think>' in content %}"
    source = (_TRL / "qwen3_training.jinja").read_text()
    assert old in source
    return proved(with_source(source.replace(old, "{%- if '<think>' in content and '</think>' in content %}")))


@case("open-instruct#1800", "open-instruct#1806", expected="renders differently once a second one follows")
def reasoning_vanishes_from_the_history() -> list[str]:
    return _trl("qwen3")


@case("verl#7378", expected="in a way it was never taught")
def prompt_opens_a_think_span_that_training_does_not_have() -> list[str]:
    return _trl("qwen3_5_think_training")


@case("trl qwen2_5.jinja", expected="You are Qwen, created by Alibaba Cloud")
def system_prompt_of_another_company() -> list[str]:
    return _trl("qwen2_5_training")


@case("trl#3091", "trl#2059", expected="<|im_end|> is not a single token")
def template_without_its_tokens() -> list[str]:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = load_template("chatml").source
    return proved(tokenizer)


@case("alignment-handbook#127", expected="two BOS tokens")
def template_writes_bos_twice() -> list[str]:
    tokenizer = bos_tokenizer()
    apply_template(tokenizer, load_template("chatml"))
    tokenizer.chat_template = tokenizer.chat_template.replace("{{- bos_token }}", "{{- bos_token + bos_token }}")
    return proved(tokenizer)


@case("Gemma without BOS", expected="begins without <s>")
def template_forgets_bos() -> list[str]:
    tokenizer = bos_tokenizer()
    apply_template(tokenizer, load_template("chatml"))
    tokenizer.chat_template = tokenizer.chat_template.replace("{{- bos_token }}", "")
    return proved(tokenizer)


@case("alignment-handbook#56", expected="the mask covers 'Probe question one")
def user_turns_are_marked_instead() -> list[str]:
    return proved(chatml_with("{%- if message.role == 'assistant' %}", "{%- if message.role == 'user' %}"))


@case("trl#1550", expected="the mask has 0 stretches for 1 assistant turns")
def marks_enclose_nothing() -> list[str]:
    inside = "{{- message.content + '<|im_end|>' }}\n        {%- endgeneration %}"
    outside = "{%- endgeneration %}{{- message.content + '<|im_end|>' }}"
    return proved(chatml_with(inside, outside))


@case("trl#1623", expected="no special token follows an assistant's content")
def turns_end_with_a_newline_only() -> list[str]:
    source = (
        "{% for m in messages %}{{ m.role + ': ' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}\n"
        "{% endgeneration %}{% else %}{{ m.content + '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    return proved(with_source(source))
