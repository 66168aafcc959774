"""Published function-calling rows: the same calls come out of both templates, and results are never trained."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mask_bugs.cases import ready
from mask_bugs.toys import byte_tokenizer

from llmkit.chat.parse import TOOL_TEMPLATES, parse
from llmkit.chat.prove import trained_texts
from llmkit.chat.render import render
from llmkit.data.formats import convert, recognise
from llmkit.data.messages import BadRow

READY = {name: ready(name, byte_tokenizer()) for name in TOOL_TEMPLATES}
QUERY, PAGE, ANSWER = "Ottokar Blum", "Ottokar Blum tunes organs in Velm.", "He tunes organs."
SEARCHED = {"name": "search", "arguments": {"query": QUERY}}
TOOL = {"name": "search", "description": "Finds pages.", "parameters": {"type": "object", "properties": {}}}
ASKED = "What does Ottokar Blum do?"

_HERMES = (
    "You call functions. Their signatures stand within <tools> </tools> tags. Be brief.\n<tools>\n{tools}\n</tools>\n"
    "For each call write one object within <tool_call> tags:\n<tool_call>\n{{'name': ...}}\n</tool_call>"
)
_LISTED = json.dumps([{"type": "function", "function": TOOL}])


def _hermes(call: str, **columns: Any) -> dict[str, Any]:
    turns = [
        ("system", _HERMES.format(tools=_LISTED)),
        ("human", ASKED),
        ("gpt", f"I look.\n<tool_call>\n{call}\n</tool_call>"),
        ("tool", f"<tool_response>\n{PAGE}\n</tool_response>"),
        ("gpt", ANSWER),
    ]
    return {"id": "1", "conversations": [{"from": who, "value": said} for who, said in turns], **columns}


def _openai(called: dict[str, Any], result: dict[str, Any], **columns: Any) -> dict[str, Any]:
    said = [{"role": "assistant", "content": None, **called}, result, {"role": "assistant", "content": ANSWER}]
    return {"messages": [{"role": "user", "content": ASKED}, *said], **columns}


_JSON_CALL = {"name": "search", "arguments": json.dumps(SEARCHED["arguments"])}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "hermes": ("sharegpt", _hermes(json.dumps(SEARCHED), tools=_LISTED)),
    "hermes, Python's quotes": ("sharegpt", _hermes(repr(SEARCHED))),
    "hermes as messages": (
        "messages",
        _openai(
            {"content": f"<tool_call>\n{SEARCHED}\n</tool_call>"}, {"role": "tool", "content": PAGE}, tools=_LISTED
        ),
    ),
    "glaive": (
        "glaive",
        {
            "system": f"SYSTEM: You help with these functions. Use them if required -\n{json.dumps(TOOL, indent=4)}\n",
            "chat": f"USER: {ASKED}\n\n\nASSISTANT: <functioncall> "
            f'{{"name": "search", "arguments": \'{json.dumps(SEARCHED["arguments"])}\'}} <|endoftext|>\n\n\n'
            f"FUNCTION RESPONSE: {PAGE}\n\n\nASSISTANT: {ANSWER} <|endoftext|>\n\n\n",
        },
    ),
    "OpenAI": (
        "messages",
        _openai(
            {"tool_calls": [{"id": "c1", "type": "function", "function": _JSON_CALL}], "function_call": None},
            {"role": "tool", "tool_call_id": "c1", "content": PAGE},
            tools=[{"type": "function", "function": TOOL}],
        ),
    ),
    "OpenAI 2023": (
        "messages",
        _openai(
            {"function_call": _JSON_CALL}, {"role": "function", "name": "search", "content": PAGE}, functions=[TOOL]
        ),
    ),
    "sharegpt": (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": ASKED},
                {"from": "function_call", "value": json.dumps(SEARCHED)},
                {"from": "observation", "value": PAGE},
                {"from": "gpt", "value": ANSWER},
            ],
            "tools": _LISTED,
        },
    ),
    "toolformer": ("toolformer", {"text": f'Ottokar [WikiSearch("{QUERY}") \u2192 {PAGE}] {ANSWER}'}),
}


@pytest.mark.parametrize("template", TOOL_TEMPLATES)
@pytest.mark.parametrize("name", ROWS)
def test_published_rows_come_back_as_the_same_calls(name: str, template: str) -> None:
    format, row = ROWS[name]
    assert recognise(set(row)) == ("text" if format == "toolformer" else format)
    found = convert(row, format, {})
    assert [tool["function"]["name"] for tool in found["tools"]] == ["search"]
    tokenizer = READY[template]
    rendered = render(tokenizer, found["messages"], tools=found["tools"])
    called, said = trained_texts(tokenizer, rendered)
    assert QUERY in called and PAGE not in called + said and ANSWER in said
    assert PAGE in rendered.text and "<tools>\n" not in rendered.text.partition("<tools>\n")[2]
    back = parse(tokenizer, rendered.input_ids)
    (call,) = [call for message in back for call in message.get("tool_calls", ())]
    assert call["function"] == SEARCHED
    assert [message["content"] for message in back if message["role"] == "tool"] == [PAGE]
    assert back[-1] == {"role": "assistant", "content": ANSWER}


def test_what_hermes_says_beside_its_listing_stays() -> None:
    row = convert(_hermes(repr(SEARCHED)), "sharegpt", {})
    assert row["messages"][0] == {"role": "system", "content": "You call functions. Be brief."}
    assert row["messages"][2]["content"] == "I look." and row["tools"] == json.loads(_LISTED)
    plain = {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "Write `<tool_call>` first."}]}
    assert "tool_calls" not in convert(plain, "sharegpt", {})["messages"][1], "what stands within a line is text"
    thought = "<think>\nI could write\n<tool_call>{}</tool_call>\n</think>\n\nNo."
    plain["conversations"][1]["value"] = thought
    assert convert(plain, "sharegpt", {})["messages"][1] == {"role": "assistant", "content": thought}
    thought = f"<think>\nFirst a look.\n</think>\n<tool_call>\n{SEARCHED}\n</tool_call>"
    plain["conversations"][1]["value"] = thought
    said = convert(plain, "sharegpt", {})["messages"][1]
    assert said["reasoning_content"] == "First a look." and said["tool_calls"][0]["function"] == SEARCHED


def test_several_results_in_one_message_answer_several_calls() -> None:
    two = "\n".join(f"<tool_call>\n{{'name': 'f', 'arguments': {{'a': {number}}}}}\n</tool_call>" for number in (1, 2))
    results = "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>\n"
    turns = [("human", "?"), ("gpt", two), ("tool", results), ("gpt", "Done.")]
    row = convert({"conversations": [{"from": who, "value": said} for who, said in turns]}, "sharegpt", {})
    assert [message["content"] for message in row["messages"]] == ["?", "", "one", "two", "Done."]
    assert [call["function"]["arguments"] for call in row["messages"][1]["tool_calls"]] == [{"a": 1}, {"a": 2}]


def test_xlam_rows_are_a_question_its_calls_and_schemas() -> None:
    parameters = {
        "query": {"description": "Whom.", "type": "str", "default": ""},
        "pages": {"description": "How many.", "type": "List[int], optional"},
        "strict": {"type": "bool", "default": True},
    }
    answers, tools = [SEARCHED, SEARCHED], [{"name": "search", "description": "Finds.", "parameters": parameters}]
    row = {"id": 0, "query": ASKED, "answers": json.dumps(answers), "tools": json.dumps(tools)}
    assert recognise(set(row)) == "xlam"
    found = convert(row, "xlam", {})
    schema = found["tools"][0]["function"]["parameters"]
    assert schema["required"] == ["query"] and schema["type"] == "object"
    assert {name: each["type"] for name, each in schema["properties"].items()} == {
        "query": "string",
        "pages": "array",
        "strict": "boolean",
    }
    for tokenizer in READY.values():
        rendered = render(tokenizer, found["messages"], tools=found["tools"])
        back = parse(tokenizer, rendered.input_ids)[-1]["tool_calls"]
        assert [call["function"] for call in back] == answers and trained_texts(tokenizer, rendered)


def test_a_dialogue_of_glaive_may_have_many_turns_and_no_functions() -> None:
    quoted = """USER: a

ASSISTANT: Let me see. <functioncall> {"name": "f", "arguments": '{"of": "it\\'s", "n": [1]}'} <|endoftext|>

FUNCTION RESPONSE:

ASSISTANT: b

more <|endoftext|>

USER: c

ASSISTANT: d <|endoftext|>"""
    row = convert({"system": "SYSTEM: You have no functions.", "chat": quoted}, "glaive", {})
    assert "tools" not in row and row["messages"][0] == {"role": "system", "content": "You have no functions."}
    said = [message["content"] for message in row["messages"][1:]]
    assert said == ["a", "Let me see.", "", "b\n\nmore", "c", "d"]
    (call,) = row["messages"][2]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": {"of": "it's", "n": [1]}}


def test_a_result_ends_at_the_bracket_of_its_call() -> None:
    """What stood behind the first bracket inside of it was trained as the assistant's words."""
    text = "See [WikiSearch(x[0]) -> [1] Rome is a city [2] [old]] it, and [Calculator(1 + 1) ->  2 ] [sic]."
    row = convert({"text": text}, "toolformer", {})
    assert [message["content"] for message in row["messages"]] == [
        "See", "[1] Rome is a city [2] [old]", "it, and", "2", "[sic]."
    ]  # fmt: skip
    tokenizer = READY["chatml_tools"]
    trained = trained_texts(tokenizer, render(tokenizer, row["messages"], tools=row["tools"]))
    assert not any("Rome" in text or "old" in text for text in trained)


@pytest.mark.parametrize("bracket", ["[f(x) for x in y]", "[note(1)]", "[see(a) -- [b]]"])
def test_a_bracket_without_an_arrow_of_its_own_is_text(bracket: str) -> None:
    text = f"Take {bracket} as an example. The share is 400 (or [Calculator(400 / 1400) -> 0.29] 29%)."
    messages = convert({"text": text}, "toolformer", {})["messages"]
    calls = [call["function"]["arguments"] for message in messages for call in message.get("tool_calls", ())]
    assert calls == [{"expression": "400 / 1400"}]
    assert messages[0]["content"].startswith(f"Take {bracket} as")


def test_calls_in_a_text_become_turns() -> None:
    text = "Of 7 * (2 + 3) [Calculator(7 * (2 + 3)) -> 35] eggs, on [Calendar() -> Monday] none.[2] See [here](there)."
    row = convert({"text": text}, "toolformer", {})
    assert row["messages"] == [
        {
            "role": "assistant",
            "content": "Of 7 * (2 + 3)",
            "tool_calls": [_call("calculator", expression="7 * (2 + 3)")],
        },
        {"role": "tool", "content": "35"},
        {"role": "assistant", "content": "eggs, on", "tool_calls": [_call("Calendar")]},
        {"role": "tool", "content": "Monday"},
        {"role": "assistant", "content": "none.[2] See [here](there)."},
    ]
    schemas = [(tool["function"]["name"], tool["function"]["parameters"]["required"]) for tool in row["tools"]]
    assert schemas == [("calculator", ["expression"]), ("Calendar", [])]
    tokenizer = READY["chatml_tools"]
    rendered = render(tokenizer, row["messages"], tools=row["tools"])
    assert parse(tokenizer, rendered.input_ids)[1:] == row["messages"], "behind the listing"
    assert not any("35" in text or "Monday" in text for text in trained_texts(tokenizer, rendered))


def _call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _turns(*results: dict[str, Any], ids: tuple[str | None, ...] = ("c1", "c2")) -> dict[str, Any]:
    calls = [{**_call("f", a=number), **({"id": id} if id else {})} for number, id in enumerate(ids)]
    said = {"role": "assistant", "content": "", "tool_calls": calls}
    return {"messages": [{"role": "user", "content": "?"}, said, *({"role": "tool", **each} for each in results)]}


def _result(content: Any, id: str | None = None) -> dict[str, Any]:
    return {"content": content, "tool_call_id": id}


@pytest.mark.parametrize(
    ("row", "contents"),
    [
        (_turns(_result("two", "c2"), _result("one", "c1")), ["one", "two"]),
        (_turns(_result("two", "c2"), _result("one")), ["one", "two"]),
        (_turns(_result("one"), _result("two")), ["one", "two"]),
        (_turns(_result("one", "c"), _result("two", "c"), ids=("c", "c")), ["one", "two"]),
        (_turns(_result("both"), ids=(None, None)), ["both"]),
        (_turns(_result(""), _result(None)), ["", ""]),
        (_turns(_result({"a": [1, None], "b": None}), _result(3)), ['{"a": [1, null]}', "3"]),
        (_turns(_result([{"type": "text", "text": "one"}]), _result([])), ["one", "[]"]),
        (_turns(_result("a </tool_response> b")), ["a </ tool_response> b"]),
    ],
)
def test_results_stand_in_the_order_of_their_calls(row: dict[str, Any], contents: list[str]) -> None:
    found = convert(row, "messages", {})["messages"]
    assert [message["content"] for message in found if message["role"] == "tool"] == contents


def test_results_behind_a_prompt_that_ends_with_calls_are_checked_too() -> None:
    messages = _turns(_result("two", "c2"), _result("one", "c1"))["messages"]
    answer = {"role": "assistant", "content": "Done."}
    with pytest.raises(BadRow, match="another order than its calls"):
        convert({"prompt": messages[:2], "completion": [*messages[2:], answer]}, "prompt_completion", {})
    row = convert({"prompt": messages[:2], "completion": [*messages[:1:-1], answer]}, "prompt_completion", {})
    assert [message["content"] for message in row["completion"]] == ["one", "two", "Done."]


_HELLO = {"role": "user", "content": "?"}
BAD: list[tuple[str, dict[str, Any], str]] = [
    (
        "messages",
        _turns(_result("x", "zz")),
        r"messages\[2\] is the result of a call 'zz' that the turn before it does",
    ),
    ("messages", _turns(_result("x", "c1"), _result("x", "c1")), r"messages\[3\] .* 'c1' that has its result already"),
    (
        "messages",
        _turns(_result("x", "c2")),
        "is the result of call 2 of the turn before it, and there is none of call 1",
    ),
    (
        "messages",
        _turns(*[_result("x")] * 3),
        r"messages\[4\] is a tool's result, and the turn before it makes 2 calls",
    ),
    ("messages", {"messages": [_HELLO, {"role": "tool", "content": "1"}]}, "turn before it makes no call"),
    (
        "messages",
        {"messages": [_HELLO, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "args": {"a": 1}}}]}]},
        r"messages\[1\].tool_calls\[0\] has no 'arguments', but args",
    ),
    ("sharegpt", _hermes("{'name': 'search', 'arguments': {1, 2}}"), "holds a <tool_call> that cannot be read"),
    ("sharegpt", _hermes("search(query=1)"), r"conversations\[2\] holds a <tool_call> that cannot be read"),
    ("xlam", {"query": "?", "answers": "[]", "tools": "[]"}, "answers holds no call"),
    ("xlam", {"query": "?", "answers": "[{}]", "tools": "[]"}, r"answers\[0\] is no call"),
    ("xlam", {"query": "?", "answers": [SEARCHED], "tools": '[{"name": 3}]'}, r"tools\[0\] is no function with a name"),
    ("glaive", {"system": "", "chat": "Hello"}, "chat is no dialogue of USER:"),
    (
        "glaive",
        {"system": "SYSTEM: {no", "chat": "USER: a\n\n\nASSISTANT: b"},
        "system lists functions that are no JSON",
    ),
    ("glaive", {"system": "", "chat": "USER: a\n\n\nASSISTANT: <functioncall> f(1)"}, "the call of turn 2 is a string"),
    ("toolformer", {"text": "Nothing is called [1]."}, "text holds no call of the form"),
    ("toolformer", {"text": "[f(x [Search(a) -> b])] it [Search(a) -> b]."}, "call 2 or of the one before it"),
    ("toolformer", {"text": "See [Search(Rome) -> Rome [1 is old] it."}, "open where the result of call 1"),
    ("toolformer", {"text": "See [Search(Rome) -> 1] Rome is old] it."}, "open where the result of call 1"),
    ("toolformer", {"text": "[Search(a) -> b] c] d [Search(e) -> f] g"}, "call 2 or of the one before it"),
    ("toolformer", {"text": "[Search(a) -> b [c [Search(e) -> f]] g] h"}, "call 2 or of the one before it"),
]


@pytest.mark.parametrize(("format", "row", "reason"), BAD)
def test_calls_and_results_that_do_not_fit_are_bad_rows(format: str, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        convert(row, format, {})


def test_a_call_may_have_parameters_for_arguments() -> None:
    call = {"function": {"name": "f", "parameters": {"a": 1}, "arguments": None}}
    said = {"role": "assistant", "content": "", "tool_calls": [call]}
    found = convert({"messages": [_HELLO, said]}, "messages", {})
    assert found["messages"][1]["tool_calls"] == [_call("f", a=1)]
