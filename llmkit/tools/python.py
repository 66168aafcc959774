"""Python as a tool: a program that nobody has read runs in an interpreter of its own and gives back what it printed.

`monty` (pydantic-monty): an interpreter in Rust, in worker processes. It has no way to files, environment, network or
processes: there is nothing in it that could ask the system for them. A worker that crashes is replaced.

`subprocess`: Python itself in a process that is cut off by the system (`llmkit.sandbox.program` says from what).

Every call begins anew: no names, files or modules are left from the call before. As in an interactive interpreter, the
value of a last line that is an expression is printed.
"""

from __future__ import annotations

import atexit
import io
import keyword
import os
import threading
import tokenize
from typing import Any

import pydantic_monty

from llmkit.chat.schemas import schema_of
from llmkit.recipe.tools import PythonSpec
from llmkit.sandbox.program import run as run_program
from llmkit.tools.tool import CallFailed, Tool, shortened

MAX_CODE = 2**16
MAX_RECURSION = 400
# a number that stands in the error of a program that printed too much, and in no other
_MAX_OUTPUT = 2**18 + 13
_ERROR = 500
_NOTHING = "(no output: print what you want to see)"
_DESCRIPTION = "Runs a Python program and returns what it prints."


def python_tool(spec: PythonSpec) -> Tool:
    """The tool `python(code)`."""
    run = _in_monty if spec.interpreter == "monty" else _in_process

    def call(arguments: dict[str, Any]) -> str:
        code = arguments["code"]
        if len(code) > MAX_CODE:
            raise CallFailed(f"the program is longer than {MAX_CODE} characters")
        return run(code.encode("utf-8", "replace").decode("utf-8"), spec)

    return Tool("python", schema_of("python", _DESCRIPTION, code="The program."), call, spec.max_chars + 2 * _ERROR)


# pydantic-monty -------------------------------------------------------------------------------------------------------


class _Pool:
    """The worker processes of this process, started when they are first needed. A fork cannot have any once its parent
    has: the library's threads do not survive it, and a call would wait for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: pydantic_monty.Monty | None = None
        self._owner = 0

    def get(self) -> pydantic_monty.Monty:
        with self._lock:
            if self._pool is not None and self._owner != os.getpid():
                raise CallFailed("python was used before this process was forked, and cannot be used in the fork")
            if self._pool is None:
                self._pool = pydantic_monty.Monty(max_processes=os.cpu_count())
                self._pool.__enter__()
                self._owner = os.getpid()
                atexit.register(self.close)
            return self._pool

    def close(self) -> None:
        with self._lock:
            if self._pool is not None and self._owner == os.getpid():
                self._pool.__exit__(None, None, None)
            self._pool = None


_POOL = _Pool()


def _in_monty(code: str, spec: PythonSpec) -> str:
    limits: pydantic_monty.ResourceLimits = {
        "max_feed_duration_secs": spec.timeout,
        "max_memory": spec.memory_mb * 2**20,
        "max_recursion_depth": MAX_RECURSION,
    }
    # sleeping passes no time, and what is drawn is the same in every run
    policy: pydantic_monty.OSPolicy = {"sleep": "zero", "random_start": {"seed": 0}}
    printed = pydantic_monty.CollectString(max_bytes=_MAX_OUTPUT)
    error = ""
    try:
        with _POOL.get().checkout(limits=limits, os_policy=policy) as session:
            session.feed_run(shown(code), print_callback=printed)
    except pydantic_monty.MontyCrashedError:
        error = "the interpreter ended: the program asked too much of it"
    except (pydantic_monty.MontyRuntimeError, pydantic_monty.MontySyntaxError) as failed:
        error = _said(failed, spec)
    return _answer(printed.output, error, spec)


def _said(failed: pydantic_monty.MontyRuntimeError | pydantic_monty.MontySyntaxError, spec: PythonSpec) -> str:
    """Kind, text and line of an error; of limits the same words in every run."""
    text, frames = failed.display("type-msg"), failed.traceback()
    if text.startswith("TimeoutError: feed time limit"):
        return f"TimeoutError: the program ran longer than {spec.timeout:g} seconds"
    if text.startswith("MemoryError: memory limit") and f"> {_MAX_OUTPUT} bytes" in text:
        return "the program printed too much"
    if text.startswith("MemoryError: memory limit"):
        text = f"MemoryError: the program needs more than {spec.memory_mb} MiB"
    own = [frame.line for frame in frames if frame.line]
    return f"{text} (line {own[-1]})" if own else text


def _answer(output: str, error: str, spec: PythonSpec) -> str:
    """What was printed, and the error behind it, which is never what is cut off."""
    text = shortened(output.rstrip("\n"), spec.max_chars)
    if error:
        raise CallFailed(f"{text}\n{error[:_ERROR]}" if text else error[:_ERROR])
    return text or _NOTHING


# A process ------------------------------------------------------------------------------------------------------------

_DRIVER = """
import traceback
try:
    exec(compile({source!r}, "<program>", "exec"), {{"__name__": "__main__"}})
except SystemExit:
    raise
except BaseException as error:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<program>"]
    if isinstance(error, SyntaxError) and error.filename == "<program>":
        lines, error = [error.lineno], type(error)(error.msg)
    where = f" (line {{lines[-1]}})" if lines else ""
    print("".join(traceback.format_exception_only(error)).strip() + where)
    raise SystemExit(1)
"""


def _in_process(code: str, spec: PythonSpec) -> str:
    driver = _DRIVER.format(source=shown(code))
    ran = run_program({"code": driver}, "", timeout=spec.timeout, memory=spec.memory_mb * 2**20)
    output, error = ran.output.rstrip("\n"), ""
    if ran.status is None:
        error = "the program ran too long or printed too much"
    elif ran.status:
        output, _, error = output.rpartition("\n")
        error = error or f"the program ended with status {ran.status}"
    return _answer(output, error, spec)


# What a last line is worth --------------------------------------------------------------------------------------------

_MAX_SCANNED = 2**14
"""Of a longer program, only what it prints is shown: the scanner takes ten milliseconds for a kilobyte."""
_EXPRESSIONS = {"None", "True", "False", "not", "lambda", "await"}
_STATEMENTS = {*keyword.kwlist} - _EXPRESSIONS
_ASSIGN = {"=", "+=", "-=", "*=", "/=", "//=", "%=", "@=", "&=", "|=", "^=", ">>=", "<<=", "**=", ":="}


def shown(source: str) -> str:
    """The program, made to print its last line's value where that is an expression, all lines where they were. Its
    words are only looked at, by a scanner that does not recurse: nothing in a program can crash us."""
    span = _last_expression(source)
    if span is None:
        return f"{source}\nNone"
    start, end = span
    return f"{source[:start]}_ = ({source[start:end]}){source[end:]}\nif _ is not None: print(repr(_))\nNone"


def _last_expression(source: str) -> tuple[int, int] | None:
    """Where the last statement begins and ends, if it is an expression and stands in no block."""
    if len(source) > _MAX_SCANNED:
        return None
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return None
    statement: list[tokenize.TokenInfo] = []
    last: list[tokenize.TokenInfo] = []
    indent = depth = 0
    for token in tokens:
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            indent += 1 if token.type == tokenize.INDENT else -1
        elif token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            depth += _opened(token)
            if indent:
                last = []
            elif token.type == tokenize.NEWLINE or (token.string == ";" and depth == 0):
                last, statement = statement or last, []
            else:
                statement.append(token)
    if not last or not _is_expression(last):
        return None
    lines = [0]
    for line in io.StringIO(source):
        lines.append(lines[-1] + len(line))
    (row, column), (end_row, end_column) = last[0].start, last[-1].end
    return lines[row - 1] + column, lines[end_row - 1] + end_column


def _is_expression(tokens: list[tokenize.TokenInfo]) -> bool:
    if (tokens[0].type == tokenize.NAME and tokens[0].string in _STATEMENTS) or tokens[0].string == "@":
        return False
    depth = lambdas = 0
    for token in tokens:
        depth += _opened(token)
        if depth == 0 and token.string in _ASSIGN:
            return False
        if depth == 0:
            lambdas += (token.string == "lambda") - (token.string == ":")
    return lambdas >= 0


def _opened(token: tokenize.TokenInfo) -> int:
    """1 for a bracket that opens, -1 for one that closes."""
    return (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
