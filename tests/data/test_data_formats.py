"""Formats of the field to canonical rows, and the reasons for which a row is bad."""

from __future__ import annotations

from typing import Any

import pytest

from llmkit.data.files import Raw
from llmkit.data.formats import check_columns, convert, recognise
from llmkit.data.messages import BadRow
from llmkit.data.trees import conversations
from llmkit.errors import DataError

USER, BOT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
TALK = [USER, BOT]

GOOD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("text", {"text": " a ", "id": 1}, {"text": " a "}),
    ("messages", {"prompt": "Hi", "prompt_id": "1", "messages": TALK}, {"messages": TALK}),
    ("prompt_completion", {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b"}),
    ("prompt_completion", {"prompt": [USER], "completion": [BOT]}, {"prompt": [USER], "completion": [BOT]}),
    ("prompt_completion", {"prompt": [USER], "completion": "Hello"}, {"prompt": [USER], "completion": [BOT]}),
    ("prompt_completion", {"prompt": "a", "completion": ["b", "c"]}, {"prompt": "a", "completion": "b"}),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "system": "Be kind"},
        {"messages": [{"role": "system", "content": "Be kind"}, *TALK]},
    ),
    ("alpaca", {"instruction": "Hi", "input": "", "output": "Hello"}, {"messages": TALK}),
    (
        "alpaca",
        {"instruction": "Add", "input": "1 2", "output": "3"},
        {"messages": [{"role": "user", "content": "Add\n\n1 2"}, {"role": "assistant", "content": "3"}]},
    ),
    ("ultrachat", {"id": "0", "data": ["Hi", "Hello"]}, {"messages": TALK}),
    (
        "preference",
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
    ),
    (
        "preference",  # UltraFeedback: the prompt stands again in both sides
        {"prompt": "Hi", "chosen": TALK, "rejected": [USER, {"role": "assistant", "content": "Go"}]},
        {"prompt": [USER], "chosen": [BOT], "rejected": [{"role": "assistant", "content": "Go"}]},
    ),
    (
        "preference",  # hh-rlhf
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: x\n\nAssistant: Hello",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: x\n\nAssistant: Go",
        },
        {
            "prompt": [USER, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "x"}],
            "chosen": [BOT],
            "rejected": [{"role": "assistant", "content": "Go"}],
        },
    ),
]


@pytest.mark.parametrize(("format", "row", "canonical"), GOOD)
def test_rows_are_recognised_and_converted(format: str, row: dict[str, Any], canonical: dict[str, Any]) -> None:
    assert recognise(set(row)) == format
    assert convert(row, format, {}) == canonical


HUMAN = [{"from": "human", "value": "1+1?"}]
CALLED = [
    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
    {"from": "observation", "value": "2"},
]
BAD: list[tuple[str, Any, str]] = [
    ("text", {"text": ""}, "text is empty"),
    ("text", {"text": 3}, "text is int, not text"),
    ("text", ["a"], "a row must be an object"),
    ("text", {"body": "a"}, r"missing column text \(has body\)"),
    ("messages", {"messages": []}, "messages is empty"),
    ("messages", {"messages": "hi"}, "not a list of messages"),
    ("messages", {"messages": ["hi"]}, r"messages\[0\] is str"),
    ("messages", {"messages": [USER]}, "no message is the assistant's"),
    ("messages", {"messages": [USER, {"role": "assistant", "content": " "}]}, "the assistant's message is empty"),
    ("messages", {"messages": [USER, {"role": "robot", "content": "x"}]}, "has the role 'robot'; known are"),
    ("messages", {"messages": [USER, {"role": ["user"], "content": "x"}]}, r"has the role \['user'\]; known are"),
    ("messages", {"messages": [*TALK, {"role": "system", "content": "x"}]}, "system message stands behind"),
    ("messages", {"messages": [USER, {"role": "assistant", "content": {"a": 1}}]}, "content that is dict"),
    ("messages", {"messages": [USER, {"role": "assistant", "content": [{"type": "image"}]}]}, "that is list"),
    ("sharegpt", {"conversations": [{"from": "gpt", "value": "a"}]}, "do not alternate"),
    ("sharegpt", {"conversations": [{"from": "human", "value": "a"}] * 2}, "no message is the assistant's"),
    (
        "sharegpt",
        {"conversations": [*HUMAN, CALLED[1], {"from": "gpt", "value": "2"}]},
        "the turn before it makes no call",
    ),
    (
        "sharegpt",
        {"conversations": [*HUMAN, {"from": "function_call", "value": "add(1)"}]},
        "function_call that is no JSON",
    ),
    ("sharegpt", {"conversations": [*HUMAN, {"from": "function_call", "value": "[]"}]}, "function_call without a call"),
    ("sharegpt", {"conversations": [*HUMAN, *CALLED]}, "the last message is not the assistant's"),
    ("sharegpt", {"conversations": [*HUMAN, *CALLED, *HUMAN, *HUMAN]}, "do not alternate"),
    ("alpaca", {"instruction": "a", "output": ""}, "output is empty"),
    ("ultrachat", {"data": ["a", "b", "c"]}, "odd number of turns"),
    ("ultrachat", {"data": ["a", None]}, "not a list of strings"),
    ("prompt_completion", {"prompt": "a", "completion": ""}, "completion is empty"),
    ("prompt_completion", {"prompt": [USER], "completion": [USER]}, "no message is the assistant's"),
    ("prompt_completion", {"prompt": TALK, "completion": [USER]}, "completion has no assistant message"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same"),
    ("preference", {"chosen": TALK, "rejected": [BOT]}, "no prompt"),
    ("preference", {"chosen": "b", "rejected": "c"}, "no prompt"),
    (
        "preference",
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c\n\nAssistant: d"},
        "chosen or rejected has messages of the assistant side by side",
    ),
    (
        "ranking",
        {"prompt": [USER], "answers": [[BOT], [BOT, BOT]], "rankings": [1, 2]},
        r"answers\[1\] has messages of the assistant side by side",
    ),
    ("messages", {"messages": TALK, "tools": "{"}, "tools is a string that is not JSON"),
]


@pytest.mark.parametrize(("format", "row", "reason"), BAD)
def test_bad_rows_say_why(format: str, row: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        convert(row, format, {})


def test_a_published_conversation_with_tools_is_taken() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    answer = {"from": "gpt", "value": "It is 2."}
    row = convert({"conversations": [*HUMAN, *CALLED, *CALLED, answer, *HUMAN, answer]}, "sharegpt", {})
    made = [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "2"}]
    user, said = {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "It is 2."}
    assert row["messages"] == [user, *made, *made, said, user, said]
    two = {"from": "function_call", "value": '[{"name": "add"}, {"name": "sub", "arguments": "{}"}]'}
    row = convert({"conversations": [*HUMAN, two, CALLED[1], CALLED[1], answer]}, "sharegpt", {})
    assert [call["function"]["name"] for call in row["messages"][1]["tool_calls"]] == ["add", "sub"]


def test_extra_keys_of_a_message_stay_and_none_goes() -> None:
    call = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]
    messages = [
        {"role": "user", "content": "1+1?", "name": None},
        {"role": "assistant", "content": None, "tool_calls": call},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "2", "train": False, "reasoning_content": "easy"},
    ]
    row = convert({"messages": messages, "tools": '[{"name": "add"}]'}, "messages", {})
    assert row["messages"] == [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "", "tool_calls": call},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "2", "train": False, "reasoning_content": "easy"},
    ]
    assert row["tools"] == [{"name": "add"}]


def test_content_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    row = convert({"messages": [USER, {"role": "assistant", "content": parts}]}, "messages", {})
    assert row["messages"][1] == BOT


def test_a_column_map_renames_and_names_the_format() -> None:
    columns = {"prompt": "question", "completion": "answer"}
    assert check_columns("x", columns, None) == "prompt_completion"
    row = {"question": "a", "answer": "b", "prompt": "something else"}
    assert convert(row, "prompt_completion", columns) == {"prompt": "a", "completion": "b"}
    with pytest.raises(BadRow, match=r"missing column question .*did you mean 'questions'"):
        convert({"questions": "a", "answer": "b"}, "prompt_completion", columns)


def test_a_column_map_that_fits_no_format_is_refused() -> None:
    with pytest.raises(DataError, match="fits no format; known are"):
        check_columns("x", {"question": "q", "reply": "r"}, None)
    with pytest.raises(DataError, match="did you mean 'completion'"):
        check_columns("x", {"prompt": "q", "completions": "r"}, "prompt_completion")


def _node(id: str, parent: str | None, role: str, text: str, rank: float | None = None, **more: Any) -> dict[str, Any]:
    return {"message_id": id, "parent_id": parent, "role": role, "text": text, "rank": rank, **more}


FLAT = [
    _node("a2", "q", "assistant", "second", 1.0),
    _node("q", None, "prompter", "Hi"),
    _node("a1", "q", "assistant", "Hello", 0),
    _node("u", "a1", "prompter", "More"),
    _node("lonely", None, "prompter", "Nobody answers"),
    _node("orphan", "gone", "assistant", "?"),
]


def test_oasst_rows_become_the_best_ranked_path() -> None:
    assert recognise(set(FLAT[0])) == "oasst"
    raws = list(conversations([Raw(node, "f", index) for index, node in enumerate(FLAT, 1)], {}))
    good = [convert(raw.value, "oasst", {}) for raw in raws if not raw.error]
    assert good == [{"messages": TALK}]
    assert {(raw.line, raw.error) for raw in raws if raw.error} == {
        (5, "the tree has no answer by the assistant"),
        (6, "its parent gone is not in the data"),
    }


def test_nested_oasst_trees_too() -> None:
    second = {"role": "assistant", "text": "second", "rank": 1}
    best = {"role": "assistant", "text": "Hello", "rank": 0}
    tree = {"role": "prompter", "text": "Hi", "replies": [second, best]}
    for row in (tree, {"message_tree_id": "1", "prompt": tree}):
        assert recognise(set(row)) == "oasst"
        (raw,) = conversations([Raw(row, "f", 1)], {})
        assert convert(raw.value, "oasst", {}) == {"messages": TALK}
