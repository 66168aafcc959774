"""Rows of published function-calling sets that are no lists of messages -> messages and tools.

xlam         {"query": ..., "answers": "[{name, arguments}, ...]", "tools": "[...]"}    also APIGen
glaive       {"system": "SYSTEM: ... {functions}", "chat": "USER: ... ASSISTANT: <functioncall> {...} ..."}
toolformer   {"text": "... [Calculator(400 / 1400) -> 0.29] ..."}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from llmkit.chat.schemas import calculator_schema, python_schema, schema_of, search_schema
from llmkit.chat.turn import Call, Message, result_message
from llmkit.data.calls import tool_calls, value_of
from llmkit.data.messages import BadRow, Row, check_dialogue, normalise, text_of

_TYPES = {
    "str": "string", "string": "string", "int": "integer", "integer": "integer", "float": "number", "number": "number",
    "bool": "boolean", "boolean": "boolean", "list": "array", "array": "array", "tuple": "array", "set": "array",
    "dict": "object", "object": "object",
}  # fmt: skip
"""Python's names of types, as xLAM has them -> those of JSON schemas."""
_GLAIVE_TURN = re.compile(r"(?:\A\s*|\n[^\S\n]*\n[^\S\n]*)(USER|ASSISTANT|FUNCTION RESPONSE):")
_GLAIVE_CALL = "<functioncall>"
_QUOTED = re.compile(r"""("arguments"\s*:\s*)'(.*)'(?=\s*\}\s*\Z)""", re.DOTALL)
_INLINE = re.compile(r"\[\s*(\w+)\(")
_ARROW = re.compile(r"\)\s*(?:->|\u2192)")
"""Of a call inside of a text: how it begins, and what stands before its result."""
_BRACKET = re.compile(r"[\[\]]")
_OWN = {
    "calculator": calculator_schema,
    "wikisearch": search_schema,
    "search": search_schema,
    "python": python_schema,
}
"""Tools of Toolformer's texts, in small letters -> the tool that llmkit has for it."""


def functions_of(value: Any, where: str) -> list[dict[str, Any]]:
    """Tools as chat templates list them, of bare functions. Raises BadRow."""
    listed = _read(value, where)
    if not isinstance(listed, list):
        raise BadRow(f"{where} is {type(listed).__name__}, not a list")
    return [_tool(each, f"{where}[{index}]") for index, each in enumerate(listed)]


def _read(value: Any, where: str) -> Any:
    try:
        return value_of(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise BadRow(f"{where} is a string that is not JSON") from None


def _tool(given: Any, where: str) -> dict[str, Any]:
    function = given.get("function", given) if isinstance(given, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow(f"{where} is no function with a name")
    parameters = _read(function.get("parameters") or {}, f"{where}.parameters")
    return {"type": "function", "function": {**function, "parameters": _schema(parameters, f"{where}.parameters")}}


def _schema(parameters: Any, where: str) -> dict[str, Any]:
    """A JSON schema; xLAM has the arguments alone, with Python's types, where `optional` stands behind a type."""
    if not isinstance(parameters, dict):
        raise BadRow(f"{where} is {type(parameters).__name__}, not an object")
    if isinstance(parameters.get("type"), str):
        return parameters
    properties = {key: _property(each, f"{where}.{key}") for key, each in parameters.items() if each is not None}
    return {
        "type": "object",
        "properties": properties,
        "required": [key for key in properties if _must(parameters[key])],
    }


def _property(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise BadRow(f"{where} is {type(given).__name__}, not an object")
    name = re.match(r"\w*", str(given.get("type", "")).strip().casefold())
    type_ = _TYPES.get(name[0]) if name else None
    kept = {key: value for key, value in given.items() if key not in ("type", "required") and value is not None}
    return {**({"type": type_} if type_ else {}), **kept}


def _must(given: dict[str, Any]) -> bool:
    """xLAM writes an empty default where there is none."""
    is_optional = "optional" in str(given.get("type", "")).casefold() or given.get("default") not in (None, "")
    return given.get("required", not is_optional) is True


def xlam(row: Row) -> Row:
    """A question and the calls that answer it. Raises BadRow."""
    answers = _read(row["answers"], "answers")
    if not answers:
        raise BadRow("answers holds no call")
    asked: Message = {"role": "user", "content": text_of(row["query"], "query")}
    try:
        calls = tool_calls(answers, "answers")
    except ValueError as error:
        raise BadRow(str(error)) from None
    said = {"role": "assistant", "content": "", "tool_calls": calls}
    return {"messages": [asked, said], "tools": functions_of(row["tools"], "tools")}


# Glaive ---------------------------------------------------------------------------------------------------------------


def glaive(row: Row) -> Row:
    """One text of turns. Raises BadRow."""
    before, *turns = _GLAIVE_TURN.split(text_of(row["chat"], "chat"))
    if before.strip() or not turns:
        raise BadRow("chat is no dialogue of USER:, ASSISTANT: and FUNCTION RESPONSE: turns")
    system, tools = _glaive_system(row["system"])
    said = [
        _glaive_turn(who, text, number) for number, (who, text) in enumerate(zip(turns[::2], turns[1::2], strict=True))
    ]
    messages = normalise([*system, *said], "chat")
    check_dialogue(messages, alternating=True)
    return {"messages": messages, **({"tools": tools} if tools else {})}


def _glaive_system(value: Any) -> tuple[list[Message], list[dict[str, Any]]]:
    text = text_of(value, "system").strip().removeprefix("SYSTEM:").strip() if value else ""
    start = text.find("{")
    told, listing = (text, "") if start < 0 else (text[:start], text[start:])
    system = [{"role": "system", "content": told.strip(" -:\n")}] if told.strip(" -:\n") else []
    return system, functions_of(list(_objects(listing)), "system")


def _objects(listing: str) -> Iterator[Any]:
    """JSON objects that stand one behind another."""
    decoder = json.JSONDecoder(strict=False)
    while listing := listing.strip(" ,\r\n\t"):
        try:
            found, end = decoder.raw_decode(listing)
        except (ValueError, RecursionError):
            raise BadRow("system lists functions that are no JSON") from None
        yield found
        listing = listing[end:]


def _glaive_turn(who: str, text: str, number: int) -> Message:
    text = text.strip().removesuffix("<|endoftext|>").strip()
    if who != "ASSISTANT":
        return {"role": "user" if who == "USER" else "tool", "content": text}
    content, *written = text.split(_GLAIVE_CALL)
    calls = [_read(_QUOTED.sub(_requoted, call.strip()), f"the call of turn {number + 1}") for call in written]
    return {"role": "assistant", "content": content.strip(), **({"tool_calls": calls} if calls else {})}


def _requoted(found: re.Match[str]) -> str:
    """Arguments that stand as JSON between single quotes, as they are."""
    return found[1] + found[2].replace("\\'", "'")


# Toolformer -----------------------------------------------------------------------------------------------------------


def toolformer(row: Row) -> Row:
    """A text with calls inside -> turns of an assistant who calls, reads the result and writes on. A result ends at the
    bracket that closes its call's. Raises BadRow, also where brackets leave open where it ends."""
    text = text_of(row["text"], "text")
    found = list(_calls_in(text))
    if not found:
        raise BadRow("text holds no call of the form [Name(input) -> result]")
    messages: list[Message] = []
    tools: dict[str, dict[str, Any]] = {}
    place = 0
    for number, each in enumerate(found, start=1):
        said, end = text[place : each.start], _closing(text, each.result)
        if end is None or each.start < place or (messages and _closing(said, 0) is not None):
            raise BadRow(f"brackets leave open where the result of call {number} or of the one before it ends")
        call, schema = _inline(each.name, each.given)
        tools[call.name] = schema
        messages.append({"role": "assistant", "content": said.strip(), "tool_calls": [call.as_message()]})
        messages.append(result_message(text[each.result : end].strip()))
        place = end + 1
    if _closing(rest := text[place:], 0) is not None:
        raise BadRow(f"brackets leave open where the result of call {len(found)} ends")
    if rest.strip():
        messages.append({"role": "assistant", "content": rest.strip()})
    check_dialogue(messages)
    return {"messages": messages, "tools": list(tools.values())}


class _Inline(NamedTuple):
    """A call in a text: where it begins, and where its result does."""

    start: int
    name: str
    given: str
    result: int


def _calls_in(text: str) -> Iterator[_Inline]:
    """A bracket without an arrow of its own before it closes is text, such as [f(x) for x in y]."""
    place = 0
    while (begins := _INLINE.search(text, place)) is not None:
        place = begins.end()
        end = _closing(text, place)
        arrow = _ARROW.search(text, place, len(text) if end is None else end)
        given = text[place : arrow.start()] if arrow else "["
        if arrow and given.count("[") == given.count("]"):
            place = arrow.end()
            yield _Inline(begins.start(), begins[1], given, place)


def _closing(text: str, start: int) -> int | None:
    """Place of the bracket that closes what was opened before `start`; None where nothing does."""
    depth = 1
    for bracket in _BRACKET.finditer(text, start):
        depth += 1 if bracket[0] == "[" else -1
        if not depth:
            return bracket.start()
    return None


def _inline(name: str, written: str) -> tuple[Call, dict[str, Any]]:
    """A call and the schema of its tool, whose one argument is what stands between the brackets; or it has none."""
    given = written.strip()
    if len(given) > 1 and given[0] == given[-1] and given[0] in "\"'":
        given = given[1:-1]
    own = _OWN.get(name.casefold())
    schema = (
        own() if own else schema_of(name, f"{name} of a text.", **({"input": "What it is given."} if given else {}))
    )
    arguments = dict.fromkeys(schema["function"]["parameters"]["required"], given)
    return Call(schema["function"]["name"], arguments), schema
