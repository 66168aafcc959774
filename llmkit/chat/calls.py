"""The calls of tools that an assistant wrote: out of its own ids, in the formats of the shipped templates.

    json      <tool_call>{"name": ..., "arguments": {...}}</tool_call>: `chatml_tools`, and others that write it
    tokens    <|search_start|>query<|search_end|>, <|python_start|>code<|python_end|>: `chatml_search`

Only what the assistant wrote is ever read here. A call that a document, a tool's result or a user spells stays text,
and so does one inside the assistant's reasoning. What cannot be read is a `BadCall`, whose error is for the model:
nothing that a model writes raises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from llmkit.chat.schemas import schema_of
from llmkit.chat.template import ChatTemplate, source_of, template_of
from llmkit.chat.turn import OPEN, THINK, THOUGHT, BadCall, Call, Turn, excerpt, json_calls, read_text, split_thought
from llmkit.errors import TemplateError

Format = Literal["json", "tokens"]

ARGUMENTS = {"search": "query", "python": "code"}
"""Tools that have tokens of their own, and the one argument of each."""
RESULT = ("<|result_start|>", "<|result_end|>")
_SPANS = {*RESULT, *(f"<|{name}_{side}|>" for name in ARGUMENTS for side in ("start", "end"))}
_KNOWN = Call("f", {"c": "e"})
_READ_BACK: dict[str, bool] = {}
"""Templates that were tried; see `_reads_back`."""
_TAIL = 8
"""Tokens of a prompt's end in which a `<think>` is looked for."""


def format_of(tokenizer: PreTrainedTokenizerBase) -> Format:
    """How a tokenizer's template writes calls. Raises TemplateError where it has no place for them."""
    return _format(tokenizer, template_of(tokenizer))


def opens_thought(tokenizer: PreTrainedTokenizerBase, prompt_ids: list[int]) -> bool:
    """Whether a prompt ends inside of a `<think>` that its template opened: what `read_turn` asks for."""
    return decode(tokenizer, prompt_ids[-_TAIL:]).rstrip().endswith(THINK)


def read_turn(tokenizer: PreTrainedTokenizerBase, ids: list[int], *, thinking: bool) -> Turn:
    """The turn that these ids are: an assistant's own, from behind the generation prompt on; the stop token and what
    follows it are left out, and so is another token that ended it, such as the one behind documents.

    Args:
        thinking: whether the prompt ended inside of a `<think>` (`opens_thought`): all up to `</think>` is reasoning.

    Raises:
        TemplateError: the template has no place for calls.
    """
    template = template_of(tokenizer)
    how = _format(tokenizer, template)
    own = _without_end(tokenizer, template, ids)
    if how == "json":
        return read_text(decode(tokenizer, own), thinking=thinking)
    return _read_tokens(tokenizer, own, thinking)


def _without_end(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None, ids: list[int]) -> list[int]:
    stop = tokenizer.convert_tokens_to_ids(template.stop_token) if template and template.stop_token else None
    if stop in ids:
        return ids[: ids.index(stop)]
    last = tokenizer.added_tokens_decoder.get(ids[-1]) if ids else None
    return ids[:-1] if last is not None and last.special and last.content not in _SPANS else ids


def _format(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None) -> Format:
    if template is not None and set(template.special_tokens) >= _SPANS:
        return "tokens"
    if template is not None and OPEN in (source := source_of(tokenizer, tools=[{}])):
        if source not in _READ_BACK:
            _READ_BACK[source] = _reads_back(tokenizer)
        if not _READ_BACK[source]:
            what = "it writes calls in a form that llmkit does not read: not as JSON in <tool_call>"
            raise TemplateError(f"chat template {template.name}", what, "use chatml_tools or chatml_search")
        return "json"
    name = "chat template" if template is None else f"chat template {template.name}"
    raise TemplateError(name, "it has no place for tool calls", "use chatml_tools or chatml_search")


def _reads_back(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a call is found again in what the template makes of it. Others put something else into `<tool_call>`. A
    template that refuses this conversation is taken at its word."""
    asked: list[Any] = [{"role": "user", "content": "a"}]
    said = [{"role": "assistant", "content": "", "tool_calls": [_KNOWN.as_message()]}]
    options: dict[str, Any] = {"tools": [schema_of(_KNOWN.name, "b", c="d")], "tokenize": False}
    try:
        before = str(tokenizer.apply_chat_template(asked, **options))
        whole = str(tokenizer.apply_chat_template(asked + said, **options))
    except Exception:  # whatever a template raises
        return True
    text = whole.removeprefix(before)
    return text == whole or OPEN not in text or _KNOWN in json_calls(text)[1]


@dataclass
class _Reading:
    """What was read so far. `inside`: the tool whose span is open; `body` begins with the token that opened it."""

    content: list[int] = field(default_factory=list)
    body: list[int] = field(default_factory=list)
    calls: list[Call | BadCall] = field(default_factory=list)
    inside: str | None = None


def token_calls(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> tuple[str, tuple[Call | BadCall, ...]]:
    """Content and calls. Control tokens count by their id, so that a text that spells one is no call. The last call may
    lack its end."""
    opens = {tokenizer.convert_tokens_to_ids(f"<|{name}_start|>"): name for name in ARGUMENTS}
    closes = {tokenizer.convert_tokens_to_ids(f"<|{name}_end|>"): name for name in ARGUMENTS}
    results = set(tokenizer.convert_tokens_to_ids(list(RESULT)))
    read = _Reading()
    for token in ids:
        if token in results:
            _misplaced(tokenizer, read, token, "results are written by the tool")
        elif token in opens:
            if read.inside:
                _misplaced(tokenizer, read, token, "a call inside of a call")
            read.inside, read.body = opens[token], [token]
        elif token in closes and read.inside != closes[token]:
            _misplaced(tokenizer, read, token, "it ends what did not begin")
        elif token in closes:
            _finish(tokenizer, read)
        else:
            (read.content if read.inside is None else read.body).append(token)
    if read.inside:
        _finish(tokenizer, read)
    return decode(tokenizer, read.content), tuple(read.calls)


def _finish(tokenizer: PreTrainedTokenizerBase, read: _Reading) -> None:
    assert read.inside is not None
    # decoded with its start, without which SentencePiece would drop a blank in front
    text = decode(tokenizer, read.body).removeprefix(f"<|{read.inside}_start|>")
    read.calls.append(Call(read.inside, {ARGUMENTS[read.inside]: text}))
    read.inside, read.body = None, []


def _misplaced(tokenizer: PreTrainedTokenizerBase, read: _Reading, token: int, what: str) -> None:
    """Whatever span is open ends with it."""
    text = decode(tokenizer, [*read.body, token])
    read.calls.append(BadCall(text, f"the call {excerpt(text)} cannot be read: {what}"))
    read.inside, read.body = None, []


def _read_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int], thinking: bool) -> Turn:
    text = decode(tokenizer, ids)
    reasoning, _ = split_thought(text, thinking)
    if reasoning is None:
        return Turn(text, *token_calls(tokenizer, ids))
    content, calls = token_calls(tokenizer, _behind_thought(tokenizer, ids))
    return Turn(text, content.lstrip("\n"), calls, reasoning)


def _behind_thought(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Ids behind the first `</think>`, whose letters may be spread over several tokens; none where it never comes."""
    low, high = 0, len(ids)
    if THOUGHT not in decode(tokenizer, ids):
        return []
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if THOUGHT in decode(tokenizer, ids[:middle]) else (middle + 1, high)
    return ids[low:]


def answer_text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of an answer without special tokens, but for `<think>` and `</think>` where they are such: they tell its
    reasoning from what it says."""
    added = tokenizer.added_tokens_decoder
    marks = {id for id, token in added.items() if token.special and token.content in (THINK, THOUGHT)}
    parts = [[*group] for _, group in groupby(ids, marks.__contains__)] if marks else [ids]
    return "".join(
        decode(tokenizer, part) if part and part[0] in marks else str(tokenizer.decode(part, skip_special_tokens=True))
        for part in parts
    )


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of some ids, control tokens and blanks as they are."""
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
