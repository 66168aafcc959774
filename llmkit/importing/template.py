"""A chat template that stands in a foreign recipe, with marks around what the assistant writes.

llmkit trains on what stands between `{% generation %}` and `{% endgeneration %}`. The marks are put in where a term of
the template writes a message's content, and what came of it is proved: the text stays the same, and the marked part of
it is the content and the stop token of each assistant message, and nothing else.
"""

from __future__ import annotations

import re
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

_OUTPUT = re.compile(r"\{\{([-+]?)(.*?)([-+]?)\}\}", re.DOTALL)
_CONTENT = re.compile(r"""(\w+)(?:\.content|\[\s*['"]content['"]\s*\])(?:\s*\|\s*trim|\.strip\(\))?""")
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_TOKEN = re.compile(r"<\|[^|<>]+\|>|<\uff5c[^\uff5c<>]+\uff5c>|<[a-z_]+>|</s>")
# What could make a few messages take hours or gigabytes: such a template is not rendered here.
_RISKY = re.compile(r"range|\*|lipsum|recursive|macro|include|import|extends|joiner|cycler")
UNMARKED = "no {% generation %} marks could be put in and proved: put them in by hand, or name a shipped template"
_OPEN, _CLOSE = "\x01", "\x02"
_MAX_CHARS = 20_000
_TURNS = (("user", "qa"), ("assistant", "wb"), ("user", "xc"), ("assistant", "yd"))


def marked(source: str, stop: str | None = None) -> tuple[str, str]:
    """(template with marks and header, what is wrong). Without a way to prove the marks, the source as it was.

    Args:
        stop: the stop token that the file names; a template with marks of its own gets its header from it.
    """
    if "generation %}" in source or "generation -%}" in source:
        headed = stop is not None and _TOKEN.fullmatch(stop) and not source.startswith("{#- special_tokens:")
        return (_header(source, stop or "") if headed else "") + source, ""
    if len(source) > _MAX_CHARS or _RISKY.search(source):
        return source, UNMARKED
    for match in _OUTPUT.finditer(source):
        written = _mark(match)
        if written is None:
            continue
        text = source[: match.start()] + written + source[match.end() :]
        stop = _proved(source, text)
        if stop is not None:
            return _header(text, stop) + text, ""
    return source, UNMARKED


def _mark(match: re.Match[str]) -> str | None:
    """One output of the template with marks around content and stop token where the message is the assistant's."""
    left, inside, right = match.groups()
    content = _CONTENT.search(inside)
    terms = _terms(inside)
    at = next((i for i, term in enumerate(terms) if _CONTENT.fullmatch(term)), None)
    if content is None or at is None:
        return None
    stop, rest = _stop(terms[at + 1 :])
    role = f"{content[1]}['role'] == 'assistant'"
    trained, before, after = " + ".join([terms[at], *stop]), " + ".join(terms[:at]) or "''", " + ".join(rest) or "''"
    # an output on both sides, since Jinja drops the line break behind a block and the blanks in front of one
    return (
        f"{{{{{left} {before} }}}}{{% if {role} %}}{{% generation %}}{{{{ {trained} }}}}{{% endgeneration %}}"
        f"{{% else %}}{{{{ {trained} }}}}{{% endif %}}{{{{ {after} {right}}}}}"
    )


def _terms(text: str) -> list[str]:
    """The terms of a sum, brackets and quotes respected."""
    terms, depth, start, place = [], 0, 0, 0
    while place < len(text):
        literal = _LITERAL.match(text, place)
        if literal:
            place = literal.end()
            continue
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(text[place], 0)
        if text[place] in "+~" and not depth:
            terms.append(text[start:place].strip())
            start = place + 1
        place += 1
    return [*terms, text[start:].strip()]


def _stop(terms: list[str]) -> tuple[list[str], list[str]]:
    """(the stop token behind the content, what follows it)."""
    if not terms:
        return [], []
    first, *rest = terms
    if first == "eos_token":
        return [first], rest
    token = _TOKEN.match(first[1:-1]) if _LITERAL.fullmatch(first) else None
    if token is None:
        return [], terms
    quote, behind = first[0], first[1 + token.end() : -1]
    return [f"{quote}{token[0]}{quote}"], [*([f"{quote}{behind}{quote}"] if behind else []), *rest]


def _proved(source: str, text: str) -> str | None:
    """The stop token if both render the same and the marks hold content and stop token of the assistant alone."""
    messages = [{"role": role, "content": f"\x03{content}\x03"} for role, content in _TURNS]
    try:
        for prompt in (False, True):
            before, after = _render(source, messages, prompt), _render(text, messages, prompt)
            if after.replace(_OPEN, "").replace(_CLOSE, "") != before:
                return None
    except (jinja2.TemplateError, TypeError, KeyError, AttributeError, ValueError):
        return None
    spans = re.findall(f"{_OPEN}(.*?){_CLOSE}", after, flags=re.DOTALL)
    wanted = [message["content"] for message in messages if message["role"] == "assistant"]
    rest = re.sub(f"{_OPEN}.*?{_CLOSE}", "", after, flags=re.DOTALL)
    if any(content in rest for content in wanted):
        return None
    stops: set[str] = {span.removeprefix(content) for span, content in zip(spans, wanted, strict=False)}
    if len(spans) != len(wanted) or len(stops) != 1 or not stops & {"\x04eos", *_TOKEN.findall(source)}:
        return None
    return stops.pop()


def _render(source: str, messages: list[dict[str, Any]], prompt: bool) -> str:
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    plain = re.sub(r"\{%-?\s*generation\s*-?%\}", f"{{{{ '{_OPEN}' }}}}", source)
    plain = re.sub(r"\{%-?\s*endgeneration\s*-?%\}", f"{{{{ '{_CLOSE}' }}}}", plain)
    template = env.from_string(plain)
    return template.render(messages=messages, add_generation_prompt=prompt, bos_token="\x05bos", eos_token="\x04eos")


def _header(text: str, stop: str) -> str:
    """Tokens that the tokenizer must have as single ones. A template that ends turns with `eos_token` needs none."""
    tokens = [token for token in dict.fromkeys(_TOKEN.findall(text)) if token == stop or token[1] in "|\uff5c"]
    return f"{{#- special_tokens: {' '.join(tokens)}; stop_token: {stop} -#}}\n" if stop in tokens else ""
