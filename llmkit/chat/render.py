"""Token ids and loss mask, made together, in one place: for training, preview, preflight and inference.

Two decisions differ from `tokenizer.apply_chat_template(..., return_assistant_tokens_mask=True)`:

1. The text is cut where the assistant begins and ends, and the pieces are tokenised apart. No token then straddles
   the border ("assistant\\n" + "\\nHello" would else hold one "\\n\\n" token), so what is trained is exactly what the
   model continues at inference, and no character offset has to be mapped back to a token.
2. A special token spelled out inside a message ("what does <|im_end|> mean?") is data: it becomes ordinary tokens and
   never the control token. Only the template writes control tokens. Decoding gives the message back unchanged.

For every other message the ids are those of `apply_chat_template`; the tests hold both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from llmkit.chat.encode import bracket_literals, encode_document, encode_parts, unbracket
from llmkit.chat.schemas import search_schema
from llmkit.chat.template import MARKS_CURE, Message, Span, expand, has_generation_marks, source_of
from llmkit.errors import DataError, TemplateError

TrainOn = Literal["assistant", "all", "last_assistant"]

_OWN_KEYS = ("train", "weight")

_shown: WeakKeyDictionary[PreTrainedTokenizerBase, dict[tuple[str, str], bool]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Rendered:
    """One sequence.

    Attributes:
        input_ids: token ids, length L.
        assistant_masks: 1 where the loss is taken, 0 elsewhere, length L (named as transformers and TRL name it).
        text: what was tokenised.
    """

    input_ids: list[int]
    assistant_masks: list[int]
    text: str | None = None


@dataclass(frozen=True)
class _How:
    chosen: set[int]  # indices of the assistant messages to train
    rest: bool = False  # train everything that is not an assistant turn, too
    add_generation_prompt: bool = False
    tools: list[Any] | None = None


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    *,
    add_generation_prompt: bool = False,
    train_on: TrainOn = "assistant",
    tools: list[Any] | None = None,
) -> Rendered:
    """A conversation -> ids and mask.

    Args:
        messages: role and content, as transformers has them. A message may also carry `train: false`, or `weight: 0`
            which means the same: its turn is shown and not trained.
        train_on: "assistant" trains each assistant turn with its stop token, "last_assistant" the last one only,
            "all" every token (but `train: false` still holds for assistant turns).

    Raises:
        DataError: messages are malformed.
        TemplateError: no template, no generation marks, marks on only some of the turns, a refusal by the template, or
            one that leaves out calls of tools.
    """
    _check_messages(messages)
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    chosen = [index for index in turns if _is_trained(messages[index])]
    if train_on == "last_assistant":
        chosen = [index for index in chosen if index == turns[-1]]
    how = _How(set(chosen), rest=train_on == "all", add_generation_prompt=add_generation_prompt, tools=tools)
    return _render(tokenizer, messages, how)


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, tools: list[Any] | None = None
) -> list[int]:
    """Ids up to where the assistant begins to write: the prefix of `render` of the answered conversation.

    A last message of the assistant's is an answer that has begun (a prefill): the ids end with its text.
    """
    _check_messages(messages)
    begun = messages[-1].get("content") if messages[-1]["role"] == "assistant" else None
    asked = messages[:-1] if begun else messages
    turns = {index for index, message in enumerate(asked) if message["role"] == "assistant"}
    front = _render(tokenizer, asked, _How(turns, rest=True, add_generation_prompt=True, tools=tools)).input_ids
    return front + (encode_document(tokenizer, begun, add_bos=False, add_eos=False) if begun else [])


def render_prompt_completion(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | list[Message],
    completion: str | list[Message],
    *,
    tools: list[Any] | None = None,
) -> Rendered:
    """A prompt that is not trained and a completion that is; both strings, or both lists of messages.

    Strings: one BOS if the tokenizer adds one, and a trained EOS at the end. Messages: the assistant turns of the
    completion are trained, those of the prompt are not.

    Raises:
        DataError: one is a string and the other is not, or the completion has nothing to train.
    """
    if isinstance(prompt, str) and isinstance(completion, str):
        front = encode_document(tokenizer, prompt, add_bos=True, add_eos=False)
        back = encode_document(tokenizer, completion, add_bos=False, add_eos=True)
        return Rendered(front + back, [0] * len(front) + [1] * len(back), prompt + completion)
    if isinstance(prompt, str) or isinstance(completion, str):
        raise DataError("prompt and completion", "one is a string, the other a list of messages", "make both alike")
    messages = [*prompt, *completion]
    _check_messages(messages)
    chosen = {
        index
        for index, message in enumerate(messages)
        if index >= len(prompt) and message["role"] == "assistant" and _is_trained(message)
    }
    if not chosen:
        raise DataError("completion", "it has no assistant message to train", "end it with one")
    return _render(tokenizer, messages, _How(chosen, tools=tools))


def render_text(tokenizer: PreTrainedTokenizerBase, text: str, add_eos: bool = True) -> Rendered:
    """A plain document, all of it trained.

    Exactly one BOS if the tokenizer adds one, exactly one EOS with `add_eos`: a BOS or EOS that the text already
    spells at its ends is not doubled. Special tokens spelled anywhere else are ordinary tokens.

    Raises:
        TemplateError: `add_eos` with a tokenizer that has no EOS token.
    """
    ids = encode_document(tokenizer, text, add_bos=True, add_eos=add_eos)
    return Rendered(ids, [1] * len(ids), text)


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], how: _How) -> Rendered:
    source = source_of(tokenizer, how.tools)
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    trains_all = how.rest and how.chosen == set(turns)
    if not has_generation_marks(source) and not trains_all:
        raise TemplateError("chat template", "it has no {% generation %} marks, so nothing can be trained", MARKS_CURE)
    _refuse_dropped(tokenizer, source, messages, how.tools)
    marked, tools, brackets = bracket_literals(tokenizer, _plain(messages), how.tools)
    text, spans = expand(tokenizer, source, marked, add_generation_prompt=how.add_generation_prompt, tools=tools)
    if len(spans) != len(turns) and not trains_all:
        what = f"it marks {len(spans)} of {len(turns)} assistant turns with {{% generation %}}"
        raise TemplateError("chat template", what, "mark each assistant turn once; " + MARKS_CURE)
    trained = [trains_all or turn in how.chosen for turn in turns] if len(spans) == len(turns) else [True] * len(spans)
    pieces = [
        (part, is_literal, is_trained)
        for stretch, is_trained in _cut(text, spans, trained, how.rest)
        for part, is_literal in unbracket(stretch, brackets)
    ]
    parts = encode_parts(tokenizer, [(part, is_literal) for part, is_literal, _ in pieces])
    return Rendered(
        input_ids=[token for ids in parts for token in ids],
        assistant_masks=[int(trained) for ids, (*_, trained) in zip(parts, pieces, strict=True) for _ in ids],
        text="".join(part for part, *_ in pieces),
    )


def _refuse_dropped(
    tokenizer: PreTrainedTokenizerBase, source: str, messages: list[Message], tools: list[Any] | None
) -> None:
    """A template that says nothing of a call would have an empty answer trained in its place."""
    asked = {"tool_calls": any(message.get("tool_calls") for message in messages), "tools": bool(tools)}
    for kind, is_there in asked.items():
        if is_there and not _shows(tokenizer, source, kind):
            what = f"it leaves out {kind} without a word, and the messages have some"
            raise TemplateError("chat template", what, "use chatml_tools, or leave them out of the data")


def _shows(tokenizer: PreTrainedTokenizerBase, source: str, kind: str) -> bool:
    """Whether calls, or a listing of tools, change the text. A template that refuses them is asked with the data."""
    known = _shown.setdefault(tokenizer, {})
    if (source, kind) not in known:
        call = {"type": "function", "function": {"name": "search", "arguments": {"query": "x"}}}
        plain: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]
        calling = [plain[0], {**plain[1], "tool_calls": [call]}] if kind == "tool_calls" else plain
        tools = [search_schema()] if kind == "tools" else None
        try:
            text, _ = expand(tokenizer, source, calling, tools=tools)
            known[source, kind] = text != expand(tokenizer, source, plain)[0]
        except TemplateError:
            known[source, kind] = True
    return known[source, kind]


def _cut(text: str, spans: list[Span], trained: list[bool], rest: bool) -> Iterator[tuple[str, bool]]:
    """The text in stretches, inside and outside of the assistant's spans, with whether each is trained."""
    position = 0
    for (start, end), is_trained in zip(spans, trained, strict=True):
        yield text[position:start], rest
        yield text[start:end], is_trained
        position = end
    yield text[position:], rest


def _check_messages(messages: list[Message]) -> None:
    if not isinstance(messages, (list, tuple)) or not messages:
        raise DataError("messages", "there is no message", "each row needs a list of messages with role and content")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise DataError(where, "it is not a message with a role", 'write {"role": "user", "content": "..."}')
        _is_trained(message, where)


def _is_trained(message: Message, where: str = "message") -> bool:
    train, weight = message.get("train"), message.get("weight")
    if train is not None and not isinstance(train, bool):
        raise DataError(where, f"train is {train!r}", "write true or false")
    if weight is not None and weight not in (0, 1):
        raise DataError(where, f"weight is {weight!r}", "only 0 and 1 have a meaning; write train: true or false")
    if train is not None and weight is not None and train != bool(weight):
        raise DataError(where, f"train is {train} and weight is {weight}", "remove one of them")
    if message["role"] != "assistant" and train:
        raise DataError(where, f"train is true on a {message['role']} message", "only assistant turns are trained")
    return train is not False and weight != 0


def _plain(messages: list[Message]) -> list[Message]:
    """Without our own keys and, as transformers does, without keys that are None."""
    return [
        {key: value for key, value in message.items() if value is not None and key not in _OWN_KEYS}
        for message in messages
    ]
