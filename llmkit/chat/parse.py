"""The way back: ids or text -> messages, for the shipped templates.

From ids the way back is exact. From text it cannot tell a spelled-out `<|im_end|>` from the control token. What renders
to the same text comes back as one of them: an assistant content that begins with a whole think span as
reasoning_content, one that spells a whole `<tool_call>` of `chatml_tools` as tool_calls, a user's content that is
nothing but `<tool_response>` spans as tool messages. A listing of tools stays in the system message that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from llmkit.chat.calls import RESULT, decode, token_calls
from llmkit.chat.template import ChatTemplate, Message, shipped_names, template_of
from llmkit.chat.turn import BadCall, Call, Turn, json_calls
from llmkit.errors import TemplateError

_ROLE_ENDS = {
    "chatml": "\n",
    "chatml_sep": "<|im_sep|>",
    "chatml_think": "\n",
    "chatml_tools": "\n",
    "chatml_search": "\n",
}
TOOL_TEMPLATES = ("chatml_tools", "chatml_search")
_REASONING = ("chatml_think", *TOOL_TEMPLATES)
_START, _STOP = "<|im_start|>", "<|im_end|>"
_THINK = re.compile(r"<think>\n(?P<reasoning>.*?)\n</think>\n\n(?P<content>.*)", re.DOTALL)
_RESULTS = re.compile(r"<tool_response>\n(.*?)\n</tool_response>(?:\n|\Z)", re.DOTALL)


def parse(tokenizer: PreTrainedTokenizerBase, text_or_ids: str | list[int]) -> list[Message]:
    """Messages of a rendered conversation. A last turn without its stop token counts if it has content.

    Raises:
        TemplateError: the template is not a shipped one, or the ids are not a conversation.
    """
    template = template_of(tokenizer)
    if template is None or template.name not in _ROLE_ENDS:
        cure = f"parse knows {', '.join(shipped_names())}"
        raise TemplateError("parse", "the tokenizer's template is not a shipped one", cure)
    if isinstance(text_or_ids, str):
        return parse(tokenizer, list(tokenizer(text_or_ids, add_special_tokens=False)["input_ids"]))
    turns, is_open = _split(tokenizer, text_or_ids)
    messages = [message for turn in turns for message in _messages(tokenizer, template, turn)]
    is_empty = is_open and messages[-1]["content"] == "" and not messages[-1].get("tool_calls")
    return messages[:-1] if is_empty else messages


def _split(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> tuple[list[list[int]], bool]:
    """Ids of each turn, from behind its start token to before its stop token; whether the last one has no stop."""
    start, stop = tokenizer.convert_tokens_to_ids([_START, _STOP])
    turns: list[list[int]] = []
    is_open = False
    for token in ids:
        if token == start:
            if is_open:
                raise TemplateError("parse", f"turn {len(turns)} has no {_STOP} before the next one", "render it anew")
            turns.append([])
            is_open = True
        elif token == stop:
            is_open = False
        elif is_open:
            turns[-1].append(token)
    return turns, is_open


def _messages(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, ids: list[int]) -> Iterator[Message]:
    """The message that a turn is; several where results of tools share one."""
    text = decode(tokenizer, ids)
    role, end, content = text.partition(_ROLE_ENDS[template.name])
    if not end:
        raise TemplateError("parse", f"a turn begins with {text[:30]!r}, which names no role", "render it anew")
    if template.name == "chatml_tools" and role == "user" and (results := _results(content)):
        yield from ({"role": "tool", "content": result} for result in results)
    elif template.name == "chatml_search" and role == "tool":
        marks = tokenizer.convert_tokens_to_ids(list(RESULT))
        yield {"role": role, "content": _behind_role(decode(tokenizer, [token for token in ids if token not in marks]))}
    elif role == "assistant":
        yield _assistant(tokenizer, template, ids, content)
    else:
        yield {"role": role, "content": content}


def _assistant(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, ids: list[int], content: str) -> Message:
    said = content
    calls: tuple[Call | BadCall, ...] = ()
    if template.name == "chatml_search":
        said, calls = token_calls(tokenizer, ids)
        said = _behind_role(said)
    reasoning = None
    if template.name in _REASONING and (match := _THINK.fullmatch(said)):
        reasoning, said = match["reasoning"], match["content"]
    if template.name == "chatml_tools":
        said, calls = json_calls(said)
    return Turn(content, said, calls, reasoning).message()


def _behind_role(text: str) -> str:
    return text.partition("\n")[2]


def _results(content: str) -> list[str]:
    """Contents of the tool messages that a user's turn is made of; none if anything else is in it."""
    found = list(_RESULTS.finditer(content))
    whole = "".join(match[0] for match in found) == content and not content.endswith("\n")
    return [match[1] for match in found] if whole else []
