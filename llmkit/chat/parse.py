"""The way back: ids or text -> messages, for the shipped templates.

From ids the way back is exact. From text it cannot tell a spelled-out `<|im_end|>` from the control token; and an
assistant content that itself begins with a whole think span comes back as reasoning_content, because both render to
the same text.
"""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerBase

from llmkit.chat.template import ChatTemplate, Message, shipped_names, template_of
from llmkit.errors import TemplateError

_ROLE_ENDS = {"chatml": "\n", "chatml_sep": "<|im_sep|>", "chatml_think": "\n"}
_START, _STOP = "<|im_start|>", "<|im_end|>"
_THINK = re.compile(r"<think>\n(?P<reasoning>.*?)\n</think>\n\n(?P<content>.*)", re.DOTALL)


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
    messages = [_message(template, tokenizer.decode(turn, clean_up_tokenization_spaces=False)) for turn in turns]
    return messages[:-1] if is_open and messages[-1]["content"] == "" else messages


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


def _message(template: ChatTemplate, turn: str) -> Message:
    role, end, content = turn.partition(_ROLE_ENDS[template.name])
    if not end:
        raise TemplateError("parse", f"a turn begins with {turn[:30]!r}, which names no role", "render it anew")
    if template.name == "chatml_think" and role == "assistant" and (match := _THINK.fullmatch(content)):
        return {"role": role, "reasoning_content": match["reasoning"], "content": match["content"]}
    return {"role": role, "content": content}
