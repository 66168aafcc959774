"""A canonical row -> token ids and labels, by `llmkit.chat.render`."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from llmkit.chat.render import Rendered, render, render_prompt_completion, render_text
from llmkit.data.messages import Message, Row
from llmkit.errors import DataError, TemplateError

IGNORE = -100


@dataclass(frozen=True)
class Encoded:
    """One sequence of L tokens.

    Attributes:
        input_ids: L token ids.
        labels: L ids, -100 where no loss is taken. Not shifted: `labels[i]` is `input_ids[i]` or -100.
        num_bytes: UTF-8 bytes of the text that is trained, without control tokens.
    """

    input_ids: list[int]
    labels: list[int]
    num_bytes: int


def encode(
    tokenizer: PreTrainedTokenizerBase, row: Row, *, assistant_only_loss: bool, completion_only_loss: bool | None = None
) -> Encoded:
    """What a language model sees of a `text`, `messages` or `prompt_completion` row.

    Text is trained whole and ends with one EOS. A prompt/completion pair of two strings becomes a question and its
    answer if the tokenizer has a chat template; without one, the strings are joined as they are.

    Args:
        assistant_only_loss: in conversations, train the assistant's turns only.
        completion_only_loss: train the completion only; None, the default, means yes, as in TRL.

    Raises:
        DataError, TemplateError: the row cannot be rendered.
    """
    if "text" in row:
        return _encoded(render_text(tokenizer, row["text"]), len(row["text"].encode("utf-8")))
    tools = row.get("tools")
    if "messages" in row:
        return _conversation(tokenizer, row["messages"], tools, assistant_only_loss)
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and tokenizer.chat_template:
        prompt = [{"role": "user", "content": prompt}]
        completion = [{"role": "assistant", "content": completion}]
    if completion_only_loss is False and isinstance(prompt, list):
        return _conversation(tokenizer, prompt + completion, tools, assistant_only_loss=False)
    rendered = render_prompt_completion(tokenizer, prompt, completion, tools=tools)
    if completion_only_loss is False:
        masks = [1] * len(rendered.input_ids)
        return _encoded(Rendered(rendered.input_ids, masks), len((prompt + completion).encode("utf-8")))
    trained = completion if isinstance(completion, str) else _assistant_text(completion)
    return _encoded(rendered, len(trained.encode("utf-8")))


def sides(tokenizer: PreTrainedTokenizerBase, row: Row) -> tuple[Encoded, Encoded]:
    """A preference row's two candidates behind their prompt: (chosen, rejected)."""
    shared = {key: row[key] for key in ("prompt", "tools") if key in row}
    pairs = [{**shared, "completion": row[side]} for side in ("chosen", "rejected")]
    chosen, rejected = (encode(tokenizer, pair, assistant_only_loss=True) for pair in pairs)
    return chosen, rejected


def _conversation(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[object] | None, assistant_only_loss: bool
) -> Encoded:
    rendered = render(tokenizer, messages, train_on="assistant" if assistant_only_loss else "all", tools=tools)
    text = _assistant_text(messages) if assistant_only_loss else "".join(message["content"] for message in messages)
    return _encoded(rendered, len(text.encode("utf-8")))


def _assistant_text(messages: list[Message]) -> str:
    trained = (m for m in messages if m["role"] == "assistant" and m.get("train") is not False and m.get("weight") != 0)
    return "".join(message["content"] for message in trained)


def _encoded(rendered: Rendered, num_bytes: int) -> Encoded:
    pairs = zip(rendered.input_ids, rendered.assistant_masks, strict=True)
    return Encoded(rendered.input_ids, [token if mask else IGNORE for token, mask in pairs], num_bytes)


def at(where: str, error: DataError | TemplateError) -> DataError | TemplateError:
    """The same error with the row's file and line in front."""
    problem = error.problems[0]
    return type(error)(f"{where}: {problem.where}", problem.what, problem.cure)
