"""Text in parts -> ids. Special tokens that data spells out stay data.

A special token is a control token only where the template or this library writes it. Where a message or a document
spells one, it is encoded as ordinary tokens that decode to the same text.

Added tokens that are not special, such as `<tool_call>` and `<think>` of Qwen3, are what a model itself writes: in the
assistant's messages and the system's, and in documents, they stay the tokens that the tokenizer makes of them. Where
the template names them, a user, a tool's result or a tool's schema that spells one gives ordinary tokens, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from llmkit.chat.alone import ALONE
from llmkit.errors import DataError, TemplateError

Message = dict[str, Any]

# Key in tokenizer_config.json: the token that ends plain documents, where a chat template's stop token is `eos_token`.
DOCUMENT_EOS = "document_eos_token"

# Unicode noncharacters: never assigned, so that they can bracket spelled-out special tokens while Jinja runs.
_MARKERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]

# Stands before a part in the middle so that SentencePiece adds no blank there. No tokenizer merges it with anything.
_ANCHOR = "\x01"

# What the tokenizer's own model writes, or who runs it: added tokens in there are meant.
_TRUSTED = ("assistant", "system")

# An added token that is markup, and no word or run of blanks.
_MARKUP = re.compile(r"[^\w\s]\S+[^\w\s]")


class _Facts(NamedTuple):
    """`control`: its special tokens. `foreign`: those, and the `named` ones, added tokens that its template names.
    `front`: ids that it puts before a text. `prefixes`: whether it puts a blank before a text (SentencePiece), which a
    part in the middle must not get."""

    control: re.Pattern[str]
    foreign: re.Pattern[str]
    named: frozenset[str]
    front: list[int]
    prefixes: bool


_cache: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, _Facts]] = WeakKeyDictionary()


def spelled_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """Special tokens that a text spells out, in order: many of them mean that it was formatted by someone else."""
    return _facts(tokenizer).control.findall(text)


def added_in_front(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that the tokenizer itself puts before a text: its BOS, or nothing."""
    return _facts(tokenizer).front


def bracket_literals(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[Any] | None
) -> tuple[list[Message], list[Any] | None, str]:
    """Bracket the tokens that messages and the schemas of tools spell out and that are not theirs to write.

    Returns:
        The messages, the tools, and the two characters used as brackets, "" if nothing had to be bracketed.

    Raises:
        DataError: a role holds a special token.
    """
    facts = _facts(tokenizer)
    kinds = [facts.control if message["role"] in _TRUSTED else facts.foreign for message in messages]
    parts = [*zip(messages, kinds, strict=True), (tools, facts.foreign)]
    if not any(tokens.search(text) for part, tokens in parts for text in _strings(part)):
        return messages, tools, ""
    if bad := [message["role"] for message in messages if facts.control.search(message["role"])]:
        raise DataError("messages", f"the role {bad[0]!r} holds a special token", "use system, user or assistant")
    texts = [text for part, _ in parts for text in _strings(part)]
    free = [marker for marker in _MARKERS if not any(marker in text for text in texts)]
    if len(free) < 2:
        raise DataError("messages", "they hold all of the noncharacters U+FDD0 to U+FDEF", "remove them")
    replacement = f"{free[0]}\\g<0>{free[1]}"
    *marked, listed = [_map_strings(part, partial(tokens.sub, replacement)) for part, tokens in parts]
    return marked, listed, free[0] + free[1]


def unbracket(text: str, brackets: str) -> Iterator[tuple[str, bool]]:
    """Parts of the text and whether each was bracketed. A bracket whose partner Jinja removed only divides."""
    if not brackets:
        yield text, False
        return
    opening, closing = brackets[0], brackets[1]
    for index, part in enumerate(re.split(f"{opening}([^{brackets}]*){closing}", text)):
        for piece in re.split(f"[{brackets}]", part):
            yield piece, index % 2 == 1


def encode_parts(tokenizer: PreTrainedTokenizerBase, parts: list[tuple[str, bool]]) -> list[list[int]]:
    """Ids of the parts of one sequence, each for itself.

    Args:
        parts: text, and whether the tokens that it spells are data.

    Raises:
        TemplateError: the tokenizer makes a control token out of plain text.
    """
    named = _facts(tokenizer).named
    # a tokenizer splits special tokens where it is told to, and others only where they come in pieces
    pieces = [
        (index, piece, is_literal)
        for index, (text, is_literal) in enumerate(parts)
        for piece in ((text[:1], text[1:]) if is_literal and text in named else (text,))
        if piece
    ]
    ids: list[list[int]] = [[] for _ in parts]
    for is_literal in (False, True):
        mine = [place for place, piece in enumerate(pieces) if piece[2] == is_literal]
        texts, starts = [pieces[place][1] for place in mine], [place == 0 for place in mine]
        for place, found in zip(mine, _encode(tokenizer, texts, starts, is_literal), strict=True):
            ids[pieces[place][0]] += found
    return ids


def document_eos(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The token that ends a plain document: the base model's EOS, also where a template's stop token is `eos_token`."""
    # transformers moves any key of tokenizer_config.json that ends with _token to the special tokens when it loads it
    named = {**tokenizer.special_tokens_map, **tokenizer.init_kwargs}.get(DOCUMENT_EOS)
    eos: str | None = named or tokenizer.eos_token
    return eos


def encode_document(tokenizer: PreTrainedTokenizerBase, text: str, *, add_bos: bool, add_eos: bool) -> list[int]:
    """Ids of plain text. With `add_bos` one BOS if the tokenizer is one that adds it; with `add_eos` one EOS.

    Raises:
        TemplateError: `add_eos` and there is no EOS token.
    """
    front = _facts(tokenizer).front
    bos, eos = tokenizer.bos_token, document_eos(tokenizer)
    if add_eos and not eos:
        raise TemplateError("tokenizer", "it has no EOS token to end a document with", "set tokenizer.eos_token")
    if add_bos and front and bos and text.startswith(bos):
        text = text[len(bos) :]
    if add_eos and eos and text.endswith(eos):
        text = text[: -len(eos)]
    (body,) = _encode(tokenizer, [text], [add_bos], True)
    return (front if add_bos else []) + body + ([tokenizer.convert_tokens_to_ids(eos)] if add_eos else [])


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], starts: list[bool], is_literal: bool
) -> list[list[int]]:
    if not texts:
        return []
    prefixes = _facts(tokenizer).prefixes
    anchored = [_ANCHOR + text if prefixes and not start else text for text, start in zip(texts, starts, strict=True)]
    ids = _call(tokenizer, anchored, split_special_tokens=is_literal)
    if prefixes:
        anchor = _call(tokenizer, [_ANCHOR])[0]
        ids = [found if start else _without(found, anchor) for found, start in zip(ids, starts, strict=True)]
    if is_literal:
        _refuse_control(tokenizer, texts, ids)
    return ids


def _refuse_control(tokenizer: PreTrainedTokenizerBase, texts: list[str], ids: list[list[int]]) -> None:
    control = _facts(tokenizer).control
    for text, found in zip(texts, ids, strict=True):
        spelled = {token: tokenizer.convert_tokens_to_ids(token) for token in set(control.findall(text))}
        if made := [token for token, token_id in spelled.items() if token_id in found]:
            what = f"it makes the control token {made[0]} out of plain text"
            raise TemplateError("tokenizer", what, "remove that text from the data, or use another tokenizer")


def _without(ids: list[int], front: list[int]) -> list[int]:
    return ids[len(front) :] if ids[: len(front)] == front else ids


def _call(tokenizer: PreTrainedTokenizerBase, texts: list[str], split_special_tokens: bool = False) -> list[list[int]]:
    with ALONE:
        ids: list[list[int]] = tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=split_special_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # no warning for a sequence above model_max_length: truncation is preflight's matter
        )["input_ids"]
    return ids


def _facts(tokenizer: PreTrainedTokenizerBase) -> _Facts:
    """What a tokenizer does, found by trying, once."""
    key = (len(tokenizer), tuple(tokenizer.all_special_tokens), tokenizer.chat_template)
    if tokenizer not in _cache or _cache[tokenizer][0] != key:
        added = tokenizer.added_tokens_decoder.values()
        special = {token.content for token in added if token.special}
        named = _named(tokenizer, {token.content for token in added} - special)
        plain, anchor, anchored = _call(tokenizer, ["a", _ANCHOR, _ANCHOR + "a"])
        with ALONE:
            full = tokenizer("a")["input_ids"]
        front = full[: next((i for i in range(len(full)) if full[i:][: len(plain)] == plain), 0)]
        prefixes = _without(anchored, anchor) != plain
        _cache[tokenizer] = (key, _Facts(_any_of(special), _any_of(special | named), named, front, prefixes))
    return _cache[tokenizer][1]


def _named(tokenizer: PreTrainedTokenizerBase, tokens: set[str]) -> frozenset[str]:
    """Those that its template, or one of several, names."""
    template = tokenizer.chat_template or ""
    source = template if isinstance(template, str) else "\n".join(template.values())
    return frozenset(token for token in tokens if token in source and _MARKUP.fullmatch(token))


def _any_of(tokens: set[str] | frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_map_strings(key, change): _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, change) for item in value]
    return value
