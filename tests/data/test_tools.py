"""The tools themselves: calls, limits, arguments that are wrong, and what a recipe may name."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from pydantic import TypeAdapter, ValidationError

from llmkit.chat.schemas import schema_of
from llmkit.chat.turn import BadCall, Call
from llmkit.errors import UserError
from llmkit.recipe.tools import CalculatorSpec, FunctionSpec, McpSpec, PythonSpec, SearchSpec, Tools
from llmkit.tools.calculator import calculate, calculator_tool
from llmkit.tools.python import python_tool
from llmkit.tools.shown import shown
from llmkit.tools.tool import CallFailed, Tool, shortened
from llmkit.tools.toolbox import Toolbox, open_tools

SERVER = """
import asyncio
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
async def slow() -> str:
    "Takes long."
    await asyncio.sleep(3)
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
    assert tool.result({"city": "Köln"}).text == '{"city": "Köln", "days": 1}'
    assert own("later").result({"text": "yes"}).text == "yes later"


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


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("given", "what"),
    [(Mute(), "failed: Mute: Mute"), (CallFailed(), ""), (5, "it gave int and no text"), (None, "it gave")],
)
def test_whatever_a_tool_does_is_told_to_the_model(given: Any, what: str) -> None:
    def run(arguments: dict[str, Any]) -> Any:
        if isinstance(given, Exception):
            raise given
        return given

    with Toolbox([Tool("odd", schema_of("odd", ""), run, 100), calculator_tool()]) as box:
        odd, good = box.run([Call("odd", {}), Call("calculator", {"expression": "2 + 2"})])
    assert odd.failed and what in odd.text and good.text == "4"


def test_patterns_of_a_server_are_not_matched_here() -> None:
    """One could take hours. Everything else of a schema is checked."""
    slow = "^(a|a)*$"
    parameters = {
        "type": "object",
        "properties": {"x": {"type": "string", "pattern": slow}, "pattern": {"type": "integer"}},
        "patternProperties": {slow: {"type": "integer"}},
        "additionalProperties": False,
    }
    schema = {"type": "function", "function": {"name": "slow", "parameters": parameters}}
    tool = Tool("slow", schema, lambda arguments: "ran", 100)
    start = time.process_time()
    assert tool.result({"x": "a" * 40 + "!", "a" * 40 + "!": 1}).text == "ran"
    assert time.process_time() - start < 1
    assert "at 'pattern'" in tool.result({"pattern": "x"}).text and "at 'x'" in tool.result({"x": 1}).text
    schema = {"type": "function", "function": {"name": "odd", "parameters": {"type": "no type"}}}
    assert "its schema is unusable" in Tool("odd", schema, lambda arguments: "ran", 100).result({}).text


def test_one_tool_that_cannot_be_closed_keeps_no_other_from_it() -> None:
    closed: list[str] = []
    broken = Tool("a", schema_of("a", ""), lambda arguments: "", 100, lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    other = Tool("b", schema_of("b", ""), lambda arguments: "", 100, lambda: closed.append("b"))
    Toolbox([broken, other]).close()
    assert closed == ["b"]


def test_calls_that_never_return_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.sandbox.limited.MAX_LEFT", 3)
    tool = own("hangs", timeout=0.01)
    texts = [tool.result({"seconds": 0.3}).text for _ in range(5)]
    assert "has not answered" in texts[0] and "too many calls have not returned" in texts[-1]
    time.sleep(0.4)
    assert own("hangs", timeout=5).result({"seconds": 0}).text == "done"


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


def test_failures_are_logged_short_and_few_and_counted(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: dict[str, Any]) -> str:
        if arguments["x"] == "good":
            return "fine"
        raise CallFailed(f"printed\nhf_{'a' * 30} \x1b[31m {'long ' * 100}")

    caplog.set_level("WARNING", "llmkit.tools")
    with Toolbox([Tool("odd", schema_of("odd", "", x=""), broken, 5000)], num_threads=1) as box:
        box.run([Call("odd", {"x": "good"}), *[Call("odd", {"x": "a"})] * 12, BadCall("{", "no JSON"), Call("od", {})])
        counts = box.failures.taken()
        assert counts == ({"odd": 13, "(none)": 2}, {"odd": 12, "(none)": 2})
        assert len(caplog.messages) == 10 and all(len(line) < 240 for line in caplog.messages)
        assert caplog.messages[0].startswith("tool odd failed: <hidden> \u241b[31m long")
        monkeypatch.setattr("llmkit.tools.failures.SECONDS", -1.0)
        box.run([Call("odd", {"x": "a"})])
        assert caplog.messages[10] == "4 more calls of tools failed" and len(caplog.messages) == 12
        assert box.failures.taken() == ({"odd": 1}, {"odd": 1})


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
        ({"name": "search"}, "exactly one of 'index' (a folder) and 'from'"),
        ({"name": "python", "interpreter": "wasm"}, "'monty' or 'subprocess'"),
        ({"path": "module"}, "package.module:function"),
        ({"mcp": "server.py"}, "begins with http"),
        ({"mcp": []}, "at least 1 item"),
        ({"mcp": "https://example.org/mcp", "env": ["TOKEN"]}, "'env' is for a server that is started"),
        ({"mcp": ["python"], "headers_env": {"Authorization": "TOKEN"}}, "'headers_env' is for an address"),
        ({"name": "python", "unconfined": True}, "monty never needs it"),
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
    assert "NameError" in tool.result({"code": "x"}).text, "nothing is left of the calls before"
    cut = tool.result({"code": "print('x' * 5000)\n1 / 0"}).text
    assert "[cut: 4800 more characters]" in cut and cut.endswith("(line 2)"), "an error is not what is cut off"


def test_limits_of_python_change_what_runs() -> None:
    def tool(**settings: Any) -> Tool:
        return python_tool(PythonSpec(name="python", **settings))

    loop, large = "n = 0\nwhile n < 3 * 10**5: n += 1\nn", "len('x' * (100 * 2**20))"
    assert tool(timeout=30).result({"code": loop}).text == "300000"
    assert tool(timeout=0.01).result({"code": loop}).text == "TimeoutError: the program ran longer than 0.01 seconds"
    assert tool(memory_mb=256).result({"code": large}).text == str(100 * 2**20)
    assert tool(memory_mb=64).result({"code": large}).text == "MemoryError: the program needs more than 64 MiB (line 1)"
    assert tool().result({"code": "#" * 10**5}).failed
    drawn = "import random\n[random.random() for _ in range(3)]"
    assert tool().result({"code": drawn}).text == tool().result({"code": drawn}).text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print(1)\nx = 7 ** 30_000_000", "TimeoutError: the program ran longer than 0.1 seconds"),
        ("x = 7 ** 300_000\nwhile True: y = x * x", "TimeoutError: the program ran longer than 0.1 seconds"),
        ("x = 'x' * (60 * 2**20)\ny = x.upper()", "MemoryError: the program needs more than 64 MiB"),
        ("','.join(['x' * 10**6] * 100)", "MemoryError: the program needs more than 64 MiB"),
        ("x = []\nwhile True: x.append('y' * 10**6)", "MemoryError: the program needs more than 64 MiB (line 2)"),
    ],
)
def test_a_limit_is_told_the_same_way_by_whatever_it_was_found(code: str, said: str, capfd: Any) -> None:
    """By the interpreter itself, or by its end."""
    timeout = 0.1 if "Timeout" in said else 10
    tool = python_tool(PythonSpec(name="python", timeout=timeout, memory_mb=64))
    result = tool.result({"code": code})
    tool.close()
    assert result.failed and result.text.splitlines()[-1] == said
    assert capfd.readouterr().err == ""


def test_what_a_call_waits_for_others_is_not_its_own_time() -> None:
    """There are fewer workers than calls."""
    num = 4 * len(os.sched_getaffinity(0))
    with open_tools(specs({"name": "python", "timeout": 0.2})) as box:
        box.run([Call("python", {"code": "1"})] * num)
        start = time.monotonic()
        seconds = [result.seconds for result in box.run([Call("python", {"code": "while True: pass"})] * num)]
        whole = time.monotonic() - start
    assert whole > 0.7 and max(seconds) < 0.7 * whole and min(seconds) > 0.15


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
        ("if x:\n    y\nelse: z; a\nb; c", "c"),
        ("lambda x=1: x", "lambda x=1: x"),
        ("x = lambda y=1: y; x", "x"),
        ("if False: a = 1; a", None),
        ("def f(x): y = x; y", None),
        ("for i in []: a = i; a", None),
        ("class A: x = 1; x", None),
        ("while x: a; b", None),
        ("async def f(): a; b", None),
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
    assert (f"print(repr(value)))(({expression}))" in made) if expression else made == f"{code}\nNone"
    assert made.count("\n") == code.count("\n") + 1, "an error is shown at its own line"


@pytest.mark.parametrize("interpreter", ["monty", "subprocess"])
def test_showing_a_value_changes_no_program(interpreter: str) -> None:
    """What Python prints is printed, and no name appears or is lost."""
    tool = python_tool(PythonSpec(name="python", interpreter=interpreter))  # type: ignore[arg-type]
    for code, answer in [
        ("for i in range(2): j = i; j + 1", "(no output: print what you want to see)"),
        ("_ = 5\n_ + 1", "6"),
        ("value = 7\nvalue", "7"),
        ("[value for value in (1, 2)]", "[1, 2]"),
        ("(lambda x=3: x)()", "3"),
    ]:
        assert tool.result({"code": code}).text == answer
    assert "(line 2)" in tool.result({"code": "x = 1\ny"}).text


def test_python_from_many_threads_and_refused_after_a_fork() -> None:
    with open_tools(specs("python", "calculator")) as box:
        results = box.run([Call("python", {"code": f"{i} ** 2"}) for i in range(200)])
        assert [result.text for result in results] == [str(i**2) for i in range(200)]
        in_fork = [Call("python", {"code": "1"}), Call("calculator", {"expression": "2 + 2"})]
        child = os.fork()
        if child == 0:
            texts = [result.text for result in box.run(in_fork)]
            os._exit(int("cannot be used in the fork" not in texts[0] or texts[1] != "4"))
        assert waited(child) == 0
        assert [result.text for result in box.run(in_fork)] == ["1", "4"]


def waited(child: int) -> int:
    """Status of a fork; 9 for one that had to be ended."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if (ended := os.waitpid(child, os.WNOHANG))[0]:
            return ended[1]
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def test_its_workers_end_with_the_tool_and_are_no_more_than_calls() -> None:
    before = {process.pid for process in psutil.Process().children()}
    with open_tools(specs("python", {"name": "calculator"})) as box:
        box.run([Call("python", {"code": "1"})] * 20)
        workers = [process for process in psutil.Process().children() if process.pid not in before]
        assert 1 <= len(workers) <= min(8, len(os.sched_getaffinity(0)))
    assert not psutil.wait_procs(workers, timeout=30)[1]
    assert box.run([Call("python", {"code": "1"})])[0].text == "python has ended"


@pytest.mark.parametrize("cut", [(), ("network",), ("user", "files")])
def test_a_process_that_cannot_be_cut_off_is_refused(cut: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.tools.python.isolation", lambda: cut)
    spec = {"name": "python", "interpreter": "subprocess"}
    with pytest.raises(UserError, match=r"this system cannot cut a process off from .*processes; set interpreter"):
        open_tools(specs(spec))
    with open_tools(specs({**spec, "unconfined": True})) as box:
        assert box.run([Call("python", {"code": "6 * 7"})])[0].text == "42"


@pytest.mark.parametrize(
    ("code", "output", "error"),
    [
        (
            "print('A' * 3000)\nimport sys; sys.exit(3)",
            "A" * 2000 + "\n[cut: 1000 more characters]",
            "ended with status 3",
        ),
        ("print('a'); raise SystemExit(1)", "a", "the program ended with status 1"),
        ("print('a'); exit('why')", "a", "why"),
        ("exit(247)", "", "the program ended with status 247"),
        ("print('a')\nraise ValueError('b\\nc')", "a", "ValueError: b\nc (line 2)"),
        ("raise ValueError('x' * 3000)", "", "[cut: "),
        ("print('a')\nimport os; os._exit(3)", "a", "the program ended with status 3"),
        ("print('a')\nimport os; os.abort()", "a", "the program ended with status"),
        ("import sys\nsys.stdout = None\n1 / 0", "", "ZeroDivisionError: division by zero (line 3)"),
    ],
)
def test_output_and_error_of_a_process_are_kept_apart(code: str, output: str, error: str) -> None:
    tool = python_tool(PythonSpec(name="python", interpreter="subprocess"))
    result = tool.result({"code": code})
    assert result.failed and result.text.startswith(output) and error in result.text.removeprefix(output)


def test_a_process_that_leaves_well_has_not_failed() -> None:
    tool = python_tool(PythonSpec(name="python", interpreter="subprocess", timeout=0.5))
    result = tool.result({"code": "print('a'); exit()"})
    assert (result.text, result.failed) == ("a", False)
    result = tool.result({"code": "print('begun')\nwhile True: pass"})
    assert result.failed and result.text == "begun\nTimeoutError: the program ran longer than 0.5 seconds"
    result = tool.result({"code": "import os\nwhile True: os.write(1, b'x' * 100_000)"})
    assert result.failed and result.text.endswith("\nthe program printed or wrote too much")


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
        ("sqrt((10**60 + 1)**2)", "1" + "0" * 59 + "1"), ("sqrt(1 / 9)", "0.33333333333333333333"),
        ("(-1) ** 1000001", "-1"), ("1 ** 10**9", "1"), ("0 ** 10**9", "0"), ("(-1) ** -3", "-1"), ("4 ** 1.5", "8"),
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
    command = [sys.executable, str(tmp_path / "server.py"), "--token=hidden"]
    with open_tools(specs("calculator", {"mcp": command, "env": ["LLMKIT_GIVEN"], "timeout": 2})) as box:
        assert sorted(box.tools) == ["add", "calculator", "secret", "slow"]
        calls = [Call("add", {"a": i, "b": 1}) for i in range(5)] + [Call("secret", {"name": "LLMKIT_GIVEN"})]
        results = box.run([*calls, Call("secret", {"name": "LLMKIT_HELD"}), Call("add", {"a": "x", "b": 1})])
        assert [result.text for result in results[:7]] == ["1", "2", "3", "4", "5", "given", "None"]
        assert results[7].failed and "'x' is not of type 'integer'" in results[7].text
        late = box.run([Call("slow", {})])[0]
        assert late.failed and "slow has not answered after 2 seconds" in late.text and late.seconds < 15
        add = box.tools["add"]
    assert add.result({"a": 1, "b": 2}).text == "add cannot be reached any more", "and nothing of its command line"


def test_an_mcp_server_that_dies_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.tools.mcp.AGAIN_SECONDS", 0.0)
    dies = SERVER.replace(
        "def add(", "def die() -> int:\n    import os\n    os._exit(1)\n\n@server.tool()\ndef add(", 1
    )
    (tmp_path / "server.py").write_text(dies)
    with open_tools(specs({"mcp": [sys.executable, str(tmp_path / "server.py")], "timeout": 20})) as box:
        ended, added = box.run([Call("die", {})])[0], box.run([Call("add", {"a": 2, "b": 1})])[0]
    assert ended.failed and "die has ended without an answer" in ended.text
    assert (added.text, added.failed) == ("3", False)


def test_mcp_servers_that_cannot_be_used() -> None:
    with pytest.raises(UserError, match=r"cannot be started or reached \(FileNotFoundError"):
        open_tools(specs({"mcp": ["/nowhere/server"]}))
    with pytest.raises(UserError, match="the environment has no LLMKIT_MISSING"):
        open_tools(specs({"mcp": ["python"], "env": ["LLMKIT_MISSING"]}))


ODD = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "initialize":
        version = asked["params"]["protocolVersion"]
        about = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": about}), flush=True)
    elif "id" in asked and "hangs" not in sys.argv:
        error = {"code": -32601, "message": "no such method"}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}), flush=True)
"""


@pytest.mark.parametrize(("word", "said"), [("refuses", "no such method"), ("hangs", "TimeoutError")])
def test_a_server_that_does_not_list_its_tools(
    word: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmkit.tools import mcp

    (tmp_path / "server.py").write_text(ODD)
    command = [sys.executable, str(tmp_path / "server.py"), word]
    begun = mcp._Connection.list

    async def listed(self: Any) -> Any:  # only now: a start may take long on a busy machine
        return await asyncio.wait_for(begun(self), 0.5)

    if word == "hangs":
        monkeypatch.setattr(mcp._Connection, "list", listed)
    with pytest.raises(UserError, match=rf"does not list its tools \(.*{said}.*see what the server logs"):
        open_tools(specs({"mcp": command}))


def test_an_address_gets_headers_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of their values is told, whatever goes wrong."""
    asked: list[Any] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.headers["X-Key"])
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("LLMKIT_GIVEN", "Bearer canary")
    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        spec = {"mcp": f"http://127.0.0.1:{server.server_port}/mcp", "headers_env": {"X-Key": "LLMKIT_GIVEN"}}
        with pytest.raises(UserError, match="cannot be started or reached") as refused:
            open_tools(specs(spec))
        assert asked[0] == "Bearer canary" and "canary" not in str(refused.value)
        monkeypatch.setenv("LLMKIT_GIVEN", "can\nary")
        with pytest.raises(UserError, match="LLMKIT_GIVEN holds what no header can"):
            open_tools(specs(spec))
        monkeypatch.delenv("LLMKIT_GIVEN")
        with pytest.raises(UserError, match="the environment has no LLMKIT_GIVEN"):
            open_tools(specs(spec))
        server.shutdown()


def test_a_server_that_starts_and_never_answers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.tools.mcp.START_SECONDS", 0.5)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    threads = threading.active_count()
    with pytest.raises(UserError, match=r"cannot be started or reached \(TimeoutError"):
        open_tools(specs({"mcp": ["sh", "-c", "cat > /dev/null"]}))
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    assert not psutil.wait_procs(left, timeout=10)[1] and threading.active_count() == threads


def test_what_a_server_lists_is_not_cut_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmkit.tools import mcp

    def listed(num_pages: int) -> list[Any]:
        async def list_tools(cursor: str | None) -> Any:
            page = int(cursor or 0)
            return SimpleNamespace(tools=[page], next_cursor=str(page + 1) if page + 1 < num_pages else None)

        client = SimpleNamespace(result=lambda: SimpleNamespace(list_tools=list_tools))
        return asyncio.run(mcp._Connection.list(SimpleNamespace(name="mcp: x", _client=client)))  # type: ignore[arg-type]

    assert len(listed(1)) == 1 and len(listed(20)) == 20
    with pytest.raises(UserError, match="lists its tools on more than 20 pages"):
        listed(21)
    names = [SimpleNamespace(name=name) for name in ("add", "slow")]
    closed: list[bool] = []
    known = SimpleNamespace(
        name="mcp: x", list=lambda: None, wait=lambda work, seconds: names, close=lambda: closed.append(True)
    )
    monkeypatch.setattr(mcp, "_Connection", lambda spec: known)
    with pytest.raises(UserError, match="has no tool 'sub'; it has add, slow"):
        open_tools(specs({"mcp": ["x"], "tools": ["sub"]}))
    assert closed


def test_python_outlives_a_tidied_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is ended for its time is replaced by one that starts from a script there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_tools(specs({"name": "python", "timeout": 0.3})) as box:
        assert box.run([Call("python", {"code": "print(1)"})])[0].text == "1"
        for folder in tmp_path.glob("llmkit-*"):
            shutil.rmtree(folder)
        late = [box.run([Call("python", {"code": "while True: pass"})])[0] for _ in range(5)]
        assert all(each.failed and "spawn" not in each.text for each in late)
        assert box.run([Call("python", {"code": "print(2)"})])[0].text == "2"


def test_python_works_where_monty_does_not_say_where_its_program_is() -> None:
    """The module that says it is private: another release may not have it."""
    program = (
        "import sys, pydantic_monty; sys.modules['pydantic_monty._binary'] = None\n"
        "from llmkit.tools.python import PythonSpec, python_tool\n"
        "tool = python_tool(PythonSpec(name='python')); print(tool.result({'code': '6 * 7'}).text); tool.close()"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.stdout == "42\n", told.stderr
