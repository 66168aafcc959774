"""The calls of tools that an assistant wrote: out of its own ids, in the formats of the shipped templates.

    json      <tool_call>{"name": ..., "arguments": {...}}</tool_call>: `chatml_tools`, and others that write it
    tokens    <|search_start|>query<|search_end|>, <|python_start|>code<|python_end|>: `chatml_search`

Only what the assistant wrote is ever read here. A call that a document, a tool's result or a user spells stays text,
and so does one inside the assistant's reasoning. What cannot be read is a `BadCall`, whose error is for the model:
nothing that a model writes raises.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from transformers import PreTrainedTokenizerBase

from llmkit.chat.template import Message, source_of, template_of
from llmkit.errors import TemplateError

Format = Literal["json", "tokens"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_THINK, _THOUGHT = "<think>", "</think>"
ARGUMENTS = {"search": "query", "python": "code"}
"""Tools that have tokens of their own, and the one argument of each."""
RESULT = ("<|result_start|>", "<|result_end|>")
_BEGINNINGS = (OPEN, *(f"<|{name}_start|>" for name in ARGUMENTS))
_SHOWN = 200


@dataclass(frozen=True)
class Call:
    """One call that could be read. Whether there is such a tool is for `llmkit.tools` to say."""

    name: str
    arguments: dict[str, Any]

    def as_message(self) -> dict[str, Any]:
        """As it stands in `tool_calls` of a message."""
        return {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True)
class BadCall:
    """Something that begins as a call and is none."""

    text: str
    error: str


@dataclass(frozen=True)
class Turn:
    """What an assistant wrote between generation prompt and stop token.

    Attributes:
        text: all of it, as it was written.
        content: what stands outside of calls and reasoning.
        calls: in their order.
        reasoning: its think span; None without one.
    """

    text: str
    content: str
    calls: tuple[Call | BadCall, ...] = ()
    reasoning: str | None = None

    def message(self) -> Message:
        """For a history. A turn with a call that cannot be read stays the text that it is."""
        reasoning = {} if self.reasoning is None else {"reasoning_content": self.reasoning}
        calls = [call.as_message() for call in self.calls if isinstance(call, Call)]
        if len(calls) < len(self.calls):
            return {"role": "assistant", "content": self.text}
        return {"role": "assistant", **reasoning, "content": self.content, **({"tool_calls": calls} if calls else {})}


def format_of(tokenizer: PreTrainedTokenizerBase) -> Format:
    """How a tokenizer's template writes calls. Raises TemplateError where it has no place for them."""
    template = template_of(tokenizer)
    if template is not None and template.name == "chatml_search":
        return "tokens"
    if template is not None and OPEN in source_of(tokenizer, tools=[{}]):
        return "json"
    name = "chat template" if template is None else f"chat template {template.name}"
    raise TemplateError(name, "it has no place for tool calls", "use chatml_tools or chatml_search")


def read_turn(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> Turn:
    """The turn that these ids are: an assistant's own, from behind the generation prompt on; the stop token and what
    follows it are left out. Raises TemplateError where the template has no place for calls."""
    how, template = format_of(tokenizer), template_of(tokenizer)
    stop = tokenizer.convert_tokens_to_ids(template.stop_token) if template and template.stop_token else None
    own = ids[: ids.index(stop)] if stop in ids else list(ids)
    return _read_tokens(tokenizer, own) if how == "tokens" else read_text(decode(tokenizer, own))


def read_text(text: str) -> Turn:
    """The turn that a text is, in the format `json`; for one of an endpoint, which gives no ids."""
    reasoning, said = _split_thought(text)
    content, calls = json_calls(said)
    return Turn(text, content, calls, reasoning)


def _split_thought(text: str) -> tuple[str | None, str]:
    """Reasoning and the rest. A span that is never closed is reasoning to the end; one that the prompt opened has no
    opening tag of its own, and begins before any call."""
    before, closed, after = text.partition(_THOUGHT)
    begins = text.lstrip().startswith(_THINK)
    if not begins and (not closed or any(mark in before for mark in _BEGINNINGS)):
        return None, text
    thought = before.lstrip().removeprefix(_THINK)
    return thought.removeprefix("\n").removesuffix("\n"), after.lstrip("\n")


# Calls as JSON --------------------------------------------------------------------------------------------------------


def json_calls(text: str) -> tuple[str, tuple[Call | BadCall, ...]]:
    """Content and calls of a text without reasoning. The last call may lack its closing tag, as a stop may cut it."""
    content, found, rest = text.partition(OPEN)
    if not found:
        return text, ()
    calls, outside = [], []
    while found:
        call, rest = _next(rest)
        calls.append(call)
        between, found, rest = rest.partition(OPEN)
        outside.append(between.strip())
    parts = [content.removesuffix("\n"), *filter(None, outside)]
    return "\n".join(parts) if len(parts) > 1 else parts[0], tuple(calls)


def _next(rest: str) -> tuple[Call | BadCall, str]:
    """The call behind an opening tag, and what stands behind its closing tag. JSON is read before the tag is looked
    for, because an argument may spell the tag."""
    start = len(rest) - len(rest.lstrip())
    try:
        value, end = _DECODER.raw_decode(rest, start)
    except (ValueError, RecursionError) as error:
        body, _, after = rest.partition(CLOSE)
        what = "a call inside of a call" if OPEN in body else f"no JSON ({_reason(error)})"
        return _bad(body, what), after
    tail = rest[end:].lstrip()
    if not tail or tail.startswith(CLOSE):
        return _call(value, rest[:end]), tail.removeprefix(CLOSE)
    body, _, after = rest.partition(CLOSE)
    return _bad(body, "something stands behind the JSON object"), after


def _call(value: Any, text: str) -> Call | BadCall:
    """Also as others write it: inside of `function`, with `parameters`, with arguments as a JSON text."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict):
        return _bad(text, "a call is one JSON object")
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
    if not isinstance(name, str) or not name:
        return _bad(text, "it has no 'name'")
    try:
        arguments = _DECODER.decode(arguments) if isinstance(arguments, str) else arguments
        json.dumps([name, arguments], ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return _bad(text, f"its arguments are no JSON ({_reason(error)})")
    if not isinstance(arguments, dict):
        return _bad(text, "its 'arguments' are no JSON object")
    return Call(name, arguments)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)[:80]


def _bad(text: str, what: str) -> BadCall:
    cure = f'write {OPEN}{{"name": ..., "arguments": {{...}}}}{CLOSE}'
    return BadCall(text.strip(), f"the call {_excerpt(text)} cannot be read: {what}; {cure}")


def _excerpt(text: str) -> str:
    short = " ".join(text.split())
    return repr(short if len(short) <= _SHOWN else f"{short[:_SHOWN]}...")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


# line breaks inside of strings, which code has many of, are let through
_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_number)


# Calls as tokens ------------------------------------------------------------------------------------------------------


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
    read.calls.append(BadCall(text, f"the call {_excerpt(text)} cannot be read: {what}"))
    read.inside, read.body = None, []


def _read_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> Turn:
    text = decode(tokenizer, ids)
    reasoning, _ = _split_thought(text)
    if reasoning is None:
        return Turn(text, *token_calls(tokenizer, ids))
    behind = _behind_thought(tokenizer, ids)
    content, calls = token_calls(tokenizer, behind)
    return Turn(text, content.lstrip("\n"), calls, reasoning)


def _behind_thought(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Ids behind the first `</think>`, whose letters may be spread over several tokens; none where it never comes."""
    low, high = 0, len(ids)
    if _THOUGHT not in decode(tokenizer, ids):
        return []
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _THOUGHT in decode(tokenizer, ids[:middle]) else (middle + 1, high)
    return ids[low:]


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of some ids, control tokens and blanks as they are."""
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def result_message(text: str) -> Message:
    """A tool's result for a conversation: what would end its span in `chatml_tools` gets a blank in between."""
    return {"role": "tool", "content": text.replace("</tool_response>", "</ tool_response>")}
