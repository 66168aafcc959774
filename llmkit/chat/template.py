"""A chat template as a value: load it, put it on a tokenizer, read it back from one.

A template file says on its first line which tokens it needs, in a Jinja comment that stays with the tokenizer:

    {#- special_tokens: <|im_start|> <|im_end|>; stop_token: <|im_end|> -#}
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from llmkit.artifacts.shipped import shipped
from llmkit.chat.alone import ALONE
from llmkit.errors import TemplateError

Message = dict[str, Any]
Span = tuple[int, int]

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_HEADER = re.compile(r"\A\{#-?\s*special_tokens:(?P<tokens>[^;]*);\s*stop_token:\s*(?P<stop>\S+)\s*-?#\}")
_PROBE = "probe0content"

RESPONSES: dict[str, dict[str, Any]] = {
    "chatml_tools": {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "reasoning_content": {"open": "<think>", "close_pattern": r"</think>\s*", "content": "text"},
            "tool_calls": {
                "open": "<tool_call>",
                "close_pattern": r"</tool_call>\s*",
                "repeats": True,
                "content": "json",
                "transform": {"type": "function", "function": "{content}"},
            },
            "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
        },
    }
}
"""What a tokenizer's `response_template` becomes, by which transformers and TRL read calls out of an answer. Its
language has no words for `chatml_search`; llmkit reads calls by `llmkit.chat.calls`."""

MARKS_CURE = (
    "put {% generation %} before and {% endgeneration %} behind what the assistant writes, its stop token included: "
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
)


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template and what a tokenizer needs for it.

    Attributes:
        name: name of a shipped template, stem of a file, or "custom".
        source: the Jinja text, header comment included.
        special_tokens: tokens that must be single, special ids in the tokenizer; empty if the template declares none.
        stop_token: the token that ends an assistant turn; None if there is none to be found.
        sha256: of `source` in UTF-8. Stages compare it with their parent's.
    """

    name: str
    source: str
    special_tokens: tuple[str, ...]
    stop_token: str | None
    sha256: str


def shipped_dir() -> Path:
    """The folder of shipped templates: at the top of a checkout, or inside the installed wheel."""
    return shipped("chat_templates")


def shipped_names() -> list[str]:
    """Names that `load_template` knows, sorted."""
    return sorted(path.stem for path in shipped_dir().glob("*.jinja"))


def load_template(name_or_path: str | Path) -> ChatTemplate:
    """Read a shipped template by name, or a file by path.

    Raises:
        TemplateError: no such name or file (with the nearest names), or a header that contradicts itself.
    """
    path = Path(name_or_path)
    if str(name_or_path) in shipped_names():
        path = shipped_dir() / f"{name_or_path}.jinja"
    elif not path.is_file():
        near = difflib.get_close_matches(str(name_or_path), shipped_names(), n=2, cutoff=0.5)
        cure = f"did you mean {' or '.join(near)}?" if near else f"shipped are {', '.join(shipped_names())}"
        raise TemplateError(f"chat_template: {name_or_path}", "no shipped template and no file has this name", cure)
    source = path.read_text(encoding="utf-8")
    tokens, stop = _declared(source, where=str(name_or_path))
    return ChatTemplate(path.stem, source, tokens, stop, _sha256(source))


def template_of(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
    """The template that a tokenizer carries; None without one.

    A stop token that the header does not declare is found by rendering a turn and reading what follows its content.

    Raises:
        TemplateError: the template cannot render a plain question and answer.
    """
    if not tokenizer.chat_template:
        return None
    source = source_of(tokenizer)
    tokens, stop = _declared(source, where="chat_template of the tokenizer")
    sha = _sha256(source)
    return ChatTemplate(_shipped_shas().get(sha, "custom"), source, tokens, stop or _find_stop(tokenizer, source), sha)


def with_stop_token(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> ChatTemplate:
    """The template, with the stop token that its header does not declare: found as in `template_of`.

    Raises:
        TemplateError: nothing that the tokenizer knows as a token follows an answer.
    """
    if template.stop_token is not None:
        return template
    stop = _find_stop(tokenizer, template.source)
    if stop is None:
        what = "no token of the tokenizer follows an answer, so that the model would not learn to stop"
        cure = "begin the file with {#- special_tokens: <|im_end|>; stop_token: <|im_end|> -#}, by its own tokens"
        raise TemplateError(f"chat template {template.name}", what, cure)
    return replace(template, stop_token=stop)


def apply_template(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> list[str]:
    """Set the tokenizer's template and add the special tokens it lacks.

    Its `response_template`, which belonged to the template before, becomes that of this one (`RESPONSES`) or None.
    Leaves `eos_token` and `pad_token` alone: which tokens end generation is the model's matter.

    Returns:
        Tokens that were not in the vocabulary before: their embedding rows are untrained.

    Raises:
        TemplateError: the template has no generation marks, so that nothing could be trained.
    """
    if not has_generation_marks(template):
        raise TemplateError(f"chat template {template.name}", "it has no {% generation %} marks", MARKS_CURE)
    before = tokenizer.get_vocab()
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    missing = [token for token in template.special_tokens if token not in special]
    if missing:
        tokenizer.add_special_tokens({"extra_special_tokens": missing}, replace_extra_special_tokens=False)
    tokenizer.chat_template = template.source
    tokenizer.response_template = RESPONSES.get(template.name)
    return [token for token in missing if token not in before]


def has_generation_marks(template: ChatTemplate | str) -> bool:
    """Whether the template says which text the assistant writes. Recognises the marks that transformers recognises."""
    return bool(_MARK.search(template if isinstance(template, str) else template.source))


def source_of(tokenizer: PreTrainedTokenizerBase, tools: list[Any] | None = None) -> str:
    """The Jinja text that transformers would pick for this call (a tokenizer may carry several).

    Raises:
        TemplateError: the tokenizer has no template.
    """
    try:
        source: str = tokenizer.get_chat_template(None, tools)
    except ValueError as error:
        cure = f"set model.chat_template to one of {', '.join(shipped_names())} or to a file"
        raise TemplateError("tokenizer", "it has no chat template", cure) from error
    return source


def expand(
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    messages: list[Message],
    *,
    add_generation_prompt: bool = False,
    tools: list[Any] | None = None,
) -> tuple[str, list[Span]]:
    """Run the Jinja template.

    Returns:
        The text, and for each generation block its [start, end) in characters.

    Raises:
        TemplateError: the template refused the messages or failed on them.
    """
    try:
        with ALONE:
            texts, spans = render_jinja_template(
                conversations=[messages],
                tools=tools,
                chat_template=source,
                return_assistant_tokens_mask=has_generation_marks(source),
                add_generation_prompt=add_generation_prompt,
                **tokenizer.special_tokens_map,
            )
    except (jinja2.exceptions.TemplateError, TypeError, KeyError) as error:
        name = _shipped_shas().get(_sha256(source), "of the tokenizer")
        raise TemplateError(f"chat template {name}", str(error), "change the messages or the template") from error
    return texts[0], [tuple(span) for span in spans[0]] if spans else []


def _declared(source: str, where: str) -> tuple[tuple[str, ...], str | None]:
    match = _HEADER.match(source)
    if match is None:
        return (), None
    tokens, stop = tuple(match["tokens"].split()), match["stop"]
    if stop not in tokens:
        raise TemplateError(where, f"stop_token {stop} is not among its special_tokens", "name it in both places")
    return tokens, stop


def _find_stop(tokenizer: PreTrainedTokenizerBase, source: str) -> str | None:
    """The added token that follows an assistant's content; the first one, blanks apart."""
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
    text, _ = expand(tokenizer, source, [*turn, {"role": "user", "content": "b"}])
    rest = text.partition(_PROBE)[2].lstrip()
    known = [token.content for token in tokenizer.added_tokens_decoder.values()]
    return max((token for token in known if rest.startswith(token)), key=len, default=None)


def _sha256(source: str) -> str:
    return hashlib.sha256(source.encode("utf-8")).hexdigest()


@lru_cache(maxsize=1)
def _shipped_shas() -> dict[str, str]:
    return {_sha256(path.read_text(encoding="utf-8")): path.stem for path in shipped_dir().glob("*.jinja")}
