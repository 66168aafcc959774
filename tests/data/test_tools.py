"""The tools themselves: calls, limits, arguments that are wrong, and what a recipe may name."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from llmkit.chat.calls import BadCall, Call
from llmkit.chat.schemas import schema_of
from llmkit.errors import UserError
from llmkit.recipe.tools import CalculatorSpec, FunctionSpec, McpSpec, PythonSpec, SearchSpec, Tools
from llmkit.tools.calculator import calculate, calculator_tool
from llmkit.tools.python import python_tool, shown
from llmkit.tools.tool import CallFailed, Tool, shortened
from llmkit.tools.toolbox import Toolbox, open_tools

SERVER = """
import time
from mcp.server.mcpserver import MCPServer
server = MCPServer("tests")

@server.tool()
def add(a: int, b: int) -> int:
    "Adds."
    return a + b

@server.tool()
def secret(name: str) -> str:
    "Reads the environment."
    import os
    return str(os.environ.get(name))

@server.tool()
def slow() -> str:
    "Takes a minute."
    time.sleep(60)
    return "late"

server.run("stdio")
"""


# Functions of the user's, for `path` ----------------------------------------------------------------------------------


def weather(city: str, days: int = 1) -> dict[str, Any]:
    """Tells the weather.

    Args:
        city: name of the city
        days: how many days
    """
    if city == "Atlantis":
        raise LookupError("no such city")
    return {"city": city, "days": days}


async def later(text: str) -> str:
    """Answers, as a coroutine.

    Args:
        text: what to say
    """
    return text + " later"


def hangs(seconds: float) -> str:
    """Waits.

    Args:
        seconds: how long
    """
    time.sleep(seconds)
    return "done"


def bare(x):  # type: ignore[no-untyped-def]
    return x


def specs(*items: Any) -> list[Any]:
    return TypeAdapter(Tools).validate_python(list(items))


def own(name: str, **more: Any) -> Tool:
    (tool,) = open_tools(specs({"path": f"{__name__}:{name}", **more})).tools.values()
    return tool


def test_a_function_is_a_tool_by_its_hints_and_docstring() -> None:
    tool = own("weather")
    properties = tool.schema["function"]["parameters"]["properties"]
    assert tool.name == "weather" and tool.schema["function"]["description"] == "Tells the weather."
    assert properties["days"] == {"type": "integer", "description": "how many days"}
    assert tool.call({"city": "Köln"}) == '{"city": "Köln", "days": 1}'
    assert own("later").call({"text": "yes"}) == "yes later"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({}, "'city' is a required property"),
        ({"city": 1}, "at 'city': 1 is not of type 'string'"),
        ({"city": "x", "day": 1}, "'day' was unexpected"),
        ({"city": "Atlantis"}, "weather failed: LookupError: no such city"),
    ],
)
def test_what_goes_wrong_is_text(arguments: dict[str, Any], what: str) -> None:
    result = own("weather").result(arguments)
    assert result.failed and what in result.text


def test_a_function_that_hangs_is_left_behind() -> None:
    result = own("hangs", timeout=0.1).result({"seconds": 5})
    assert result.failed and "hangs has not answered after 0.1 seconds" in result.text and result.seconds < 2


@pytest.mark.parametrize(
    ("name", "what"), [("bare", "no schema can be made of it"), ("wether", "did you mean 'weather'")]
)
def test_a_function_that_is_no_tool_is_refused(name: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        own(name)


def test_long_and_broken_texts_are_cut_and_mended() -> None:
    assert shortened("x" * 10, 4) == "xxxx\n[cut: 6 more characters]"
    assert shortened("a\ud800b", 10) == "a?b"
    tool = Tool("long", schema_of("long", ""), lambda arguments: "</tool_response>" + "x" * 1000, 100)
    message = tool.result({}).message()
    assert message["role"] == "tool" and "</tool_response>" not in message["content"] and len(message["content"]) < 200


def test_a_schema_cannot_make_us_fetch_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **_: fetched.append(args))
    schema = schema_of("evil", "", x="")
    schema["function"]["parameters"] = {"$ref": "http://127.0.0.1:9/schema.json"}
    result = Tool("evil", schema, lambda arguments: "ran", 100).result({"x": 1})
    assert result.failed and "its schema is unusable" in result.text and not fetched


# Many calls -----------------------------------------------------------------------------------------------------------


def test_calls_by_name_in_their_order_at_the_same_time() -> None:
    barrier = threading.Barrier(3)

    def meet(arguments: dict[str, Any]) -> str:
        barrier.wait(20)
        return str(arguments["x"])

    with Toolbox([Tool("meet", schema_of("meet", "", x=""), meet, 100), calculator_tool()], num_threads=3) as box:
        assert [schema["function"]["name"] for schema in box.schemas] == ["meet", "calculator"]
        results = box.run([Call("meet", {"x": str(i)}) for i in range(3)])
        assert [result.text for result in results] == ["0", "1", "2"]
        bad, unknown, good = box.run(
            [BadCall("{", "no JSON"), Call("calculate", {}), Call("calculator", {"expression": "2+2"})]
        )
        assert (bad.text, bad.failed) == ("no JSON", True)
        assert unknown.failed and "there is no tool 'calculate'; did you mean 'calculator'?" in unknown.text
        assert (good.text, good.failed) == ("4", False)
        assert box.run([]) == []
    with pytest.raises(UserError, match="two tools have this name"):
        Toolbox([calculator_tool(), calculator_tool()])


# Recipes --------------------------------------------------------------------------------------------------------------


def test_what_a_recipe_may_name() -> None:
    found = specs({"name": "search", "index": "x"}, "python", "calculator", "a.b:c", {"mcp": ["python", "server.py"]})
    assert [type(spec) for spec in found] == [SearchSpec, PythonSpec, CalculatorSpec, FunctionSpec, McpSpec]
    assert TypeAdapter(Tools).validate_python(found) == found
    assert "search" in str(TypeAdapter(Tools).json_schema())


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ("serch", "no tool 'serch'; did you mean 'search'?"),
        ({"nam": "python"}, "a tool needs 'name', 'path' or 'mcp'"),
        ({"name": "python", "index": "x"}, "Extra inputs are not permitted"),
        ({"name": "search"}, "Field required"),
        ({"name": "python", "interpreter": "wasm"}, "'monty' or 'subprocess'"),
        ({"path": "module"}, "package.module:function"),
        ({"mcp": "server.py"}, "begins with http"),
        ({"mcp": []}, "at least 1 item"),
    ],
)
def test_what_a_recipe_may_not_name(item: Any, what: str) -> None:
    with pytest.raises(ValidationError, match="validation error") as raised:
        specs(item)
    assert what in str(raised.value)


# Python ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpreter", ["monty", "subprocess"])
def test_programs(interpreter: str) -> None:
    tool = python_tool(PythonSpec(name="python", interpreter=interpreter, max_chars=200))  # type: ignore[arg-type]
    for code, answer in [
        ("print('a')\nsum(range(10))", "a\n45"),
        ("'strawberry'.count('r')", "3"),
        ("x = 1", "(no output: print what you want to see)"),
        ("9.11 > 9.9, 'spelling'[::-1]", "(False, 'gnilleps')"),
    ]:
        assert (tool.result({"code": code}).text, tool.result({"code": code}).failed) == (answer, False)
    result = tool.result({"code": "print('before')\n1 / 0"})
    assert result.failed and result.text == "before\nZeroDivisionError: division by zero (line 2)"
    result = tool.result({"code": "x = 1\nx = = 2"})
    assert result.failed and "SyntaxError" in result.text and "(line 2)" in result.text
    assert "NameError" in tool.call({"code": "x"}), "nothing is left of the calls before"
    cut = tool.result({"code": "print('x' * 5000)\n1 / 0"}).text
    assert "[cut: 4800 more characters]" in cut and cut.endswith("(line 2)"), "an error is not what is cut off"


def test_limits_of_python_change_what_runs() -> None:
    def tool(**settings: Any) -> Tool:
        return python_tool(PythonSpec(name="python", **settings))

    loop, large = "n = 0\nwhile n < 3 * 10**5: n += 1\nn", "len('x' * (100 * 2**20))"
    assert tool(timeout=30).call({"code": loop}) == "300000"
    assert tool(timeout=0.01).call({"code": loop}) == "TimeoutError: the program ran longer than 0.01 seconds"
    assert tool(memory_mb=256).call({"code": large}) == str(100 * 2**20)
    assert tool(memory_mb=64).call({"code": large}) == "MemoryError: the program needs more than 64 MiB (line 1)"
    assert tool().result({"code": "#" * 10**5}).failed
    drawn = "import random\n[random.random() for _ in range(3)]"
    assert tool().call({"code": drawn}) == tool().call({"code": drawn})


@pytest.mark.parametrize(
    ("code", "expression"),
    [
        ("1 + 1", "1 + 1"),
        ("x = 1; x", "x"),
        ("x = [1,\n 2]\nx  # why", "x"),
        ("'''a\nb'''", "'''a\nb'''"),
        ("f(a=1)", "f(a=1)"),
        ("lambda x: 1", "lambda x: 1"),
        ("d[1:2]", "d[1:2]"),
        ("if x:\n    y\nz", "z"),
        ("match = 3\nmatch", "match"),
        ("x = 1", None),
        ("x: int = 1", None),
        ("x += 1", None),
        ("if x: y", None),
        ("for i in x:\n    i", None),
        ("@d\ndef f(): pass", None),
        ("del x", None),
        ("(", None),
        ("", None),
        ("x" * 20_000, None),
    ],
)
def test_the_value_of_a_last_line_is_shown(code: str, expression: str | None) -> None:
    made = shown(code)
    assert (f"_ = ({expression})" in made) if expression else made == f"{code}\nNone"
    assert made.splitlines()[: code.count("\n")] == code.splitlines()[: code.count("\n")] or (
        expression and "\n" in expression
    )


def test_python_from_many_threads_and_refused_after_a_fork() -> None:
    with open_tools(specs("python")) as box:
        results = box.run([Call("python", {"code": f"{i} ** 2"}) for i in range(200)])
        assert [result.text for result in results] == [str(i**2) for i in range(200)]
    script = (
        "import os\nfrom llmkit.recipe.tools import PythonSpec\nfrom llmkit.tools.python import python_tool\n"
        "tool = python_tool(PythonSpec(name='python'))\nassert tool.call({'code': '1'}) == '1'\n"
        "child = os.fork()\n"
        "if not child: os._exit('cannot be used in the fork' not in tool.call({'code': '2'}))\n"
        "assert os.waitpid(child, 0)[1] == 0\nprint(tool.call({'code': '3'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "3\n", done.stderr


# The calculator -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", "7"), ("0.1 + 0.2", "0.3"), ("12.5 * (3 + 4) ** 2", "612.5"), ("2^10", "1024"), ("7 \u00d7 6 =", "42"),  # noqa: E501
        ("1 / 3", "0.33333333333333333333"), ("10 / 4", "2.5"), ("-7 // 2", "-4"), ("-7 % 3", "2"), ("2 ** -3", "0.125"),  # noqa: E501
        ("9.11 > 9.9", "False"), ("1 < 2 <= 2", "True"), ("sqrt(2)", "1.4142135623730950488"), ("16 ** 0.5", "4"),
        ("sqrt(0.25)", "0.5"), ("round(2.567, 2)", "2.57"), ("max(1, 5, 3) - min(4, 2)", "3"), ("abs(-3)", "3"),
        ("123456789 * 987654321", "121932631112635269"), ("1e3 + 0x10", "1016"), ("0.1 ** 3", "0.001"),
        ("99999999999999999999 + 1", "100000000000000000000"), ("sum(1, 2, 3)", "6"),
    ],
)  # fmt: skip
def test_calculator(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("9**9**9", "too large"), ("2 ** 99999", "too large"), ("1.0000001 ** 100000000", "too large"),
        ("10 ** -99999", "too large"), ("1e999999999", "too large"), ("9" * 600, "longer than"),
        ("(" * 400, "no arithmetic"), ("1 / 0", "division by zero"),
        ("0 ** -1", "division by zero"), ("__import__('os')", "no number"), ("x + 1", "'x' is no arithmetic"),
        ("open('x')", "no number"), ("(1).real", "no arithmetic"), ("[1] * 9", "no arithmetic"), ("'a' * 9", "no number"),  # noqa: E501
        ("True + 1", "no number"), ("1,234 * 5", "no arithmetic"), ("sqrt(-1)", "negative"), ("2 ** 0.3", "half exponents"),  # noqa: E501
        ("", "no arithmetic"), ("\x00", "no arithmetic"), ("1 if 1 else 2", "no arithmetic"), ("floor(2)", "no function floor"),  # noqa: E501
        ("round(1, 9**9)", "at most 100"), ("1 in 2", "compared by"), ("2j", "no number"), ("lambda: 1", "no arithmetic"),  # noqa: E501
    ],
)  # fmt: skip
def test_calculator_refuses_at_once(expression: str, what: str) -> None:
    start = time.process_time()
    with pytest.raises(CallFailed, match=what.replace("(", r"\(")):
        calculate(expression)
    assert time.process_time() - start < 0.5


# MCP ------------------------------------------------------------------------------------------------------------------


def test_tools_of_an_mcp_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    monkeypatch.setenv("LLMKIT_GIVEN", "given")
    monkeypatch.setenv("LLMKIT_HELD", "held")
    command = [sys.executable, str(tmp_path / "server.py")]
    with open_tools(specs("calculator", {"mcp": command, "env": ["LLMKIT_GIVEN"], "timeout": 3})) as box:
        assert sorted(box.tools) == ["add", "calculator", "secret", "slow"]
        calls = [Call("add", {"a": i, "b": 1}) for i in range(5)] + [Call("secret", {"name": "LLMKIT_GIVEN"})]
        results = box.run([*calls, Call("secret", {"name": "LLMKIT_HELD"}), Call("add", {"a": "x", "b": 1})])
        assert [result.text for result in results[:7]] == ["1", "2", "3", "4", "5", "given", "None"]
        assert results[7].failed and "'x' is not of type 'integer'" in results[7].text
        late = box.run([Call("slow", {})])[0]
        assert late.failed and "slow has not answered after 3 seconds" in late.text and late.seconds < 15
        add = box.tools["add"]
    assert "add cannot be reached any more" in add.call({"a": 1, "b": 2})


def test_mcp_servers_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be started or reached \(FileNotFoundError"):
        open_tools(specs({"mcp": ["/nowhere/server"]}))
    with pytest.raises(UserError, match="the environment has no LLMKIT_MISSING"):
        open_tools(specs({"mcp": ["python"], "env": ["LLMKIT_MISSING"]}))
    (tmp_path / "server.py").write_text(SERVER)
    command = [sys.executable, str(tmp_path / "server.py")]
    with pytest.raises(UserError, match="has no tool 'sub'; it has add, secret, slow"):
        open_tools(specs({"mcp": command, "tools": ["sub"]}))
