"""Sixty ways out of the Python tool, and five for its second interpreter: none works, none takes us down, each
comes back in time, and the tool goes on.

A program that gets somewhere prints LOOSE. `{file}` holds a secret, `{folder}` is a folder of ours, `{port}` listens.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmkit.recipe.tools import PythonSpec
from llmkit.sandbox.program import isolation
from llmkit.tools.python import GRACE, python_tool
from llmkit.tools.tool import Tool

SECRET = "canary-5f1d"
TIMEOUT = 0.2
IN_TIME = TIMEOUT + GRACE + 0.3
"""Seconds: the limit, the grace for a worker that must be ended, and what a busy machine adds."""

WAYS = {
    # files
    "open a file": "print('LO' + 'OSE', open({file!r}).read())",
    "open it as bytes": "print('LO' + 'OSE', open({file!r}, 'rb').read())",
    "read it by pathlib": "from pathlib import Path\nprint('LO' + 'OSE', Path({file!r}).read_text())",
    "list a folder": "import os\nprint('LO' + 'OSE', os.listdir({folder!r}))",
    "walk from the root": "import os\nfor x in os.walk('/'): print('LO' + 'OSE', x)",
    "write a file": "open({folder!r} + '/x', 'w').write('x')\nprint('LO' + 'OSE')",
    "write here": "with open('x', 'w') as f:\n    f.write('x')\nprint('LO' + 'OSE')",
    "append to a file": "open({file!r}, 'a').write('x')\nprint('LO' + 'OSE')",
    "delete a file": "import os\nos.remove({file!r})\nprint('LO' + 'OSE')",
    "rename a file": "from pathlib import Path\nPath({file!r}).rename({file!r} + '2')\nprint('LO' + 'OSE')",
    "go up the tree": "print('LO' + 'OSE', open('../../../../../etc/passwd').read())",
    "read memory maps": "print('LO' + 'OSE', open('/proc/self/maps').read())",
    "read a device": "print('LO' + 'OSE', open('/dev/urandom', 'rb').read(8))",
    "open a descriptor": "print('LO' + 'OSE', open(0).read())",
    "make a folder": "import os\nos.mkdir({folder!r} + '/y')\nprint('LO' + 'OSE')",
    # environment
    "read the environment": "import os\nprint('LO' + 'OSE', os.environ['LLMKIT_SECRET'])",
    "getenv": "import os\nx = os.getenv('LLMKIT_SECRET')\nprint(x and 'LO' + 'OSE')",
    "environ of the process": "print('LO' + 'OSE', open('/proc/self/environ').read())",
    "command line of the parent": "print('LO' + 'OSE', open('/proc/1/cmdline').read())",
    "facts of a file": "import os\nprint('LO' + 'OSE', os.stat({file!r}))",
    # network
    "socket": "import socket\nsocket.create_connection(('127.0.0.1', {port}))\nprint('LO' + 'OSE')",
    "urllib": "import urllib.request as u\nprint('LO' + 'OSE', u.urlopen('http://127.0.0.1:{port}').read())",
    "up the tree by pathlib": "from pathlib import Path\nprint('LO' + 'OSE', Path({folder!r}, '..').resolve())",
    "asyncio stream": "import asyncio\nasyncio.run(asyncio.open_connection('127.0.0.1', {port}))\nprint('LO' + 'OSE')",
    "a link": "import os\nos.symlink({file!r}, {folder!r} + '/link')\nprint('LO' + 'OSE')",
    # processes
    "system": "import os\nif os.system('touch {folder}/z') == 0: print('LO' + 'OSE')\nelse: raise OSError",
    "subprocess": "import subprocess\nprint('LO' + 'OSE', subprocess.check_output(['id']))",
    "popen": "import os\nprint('LO' + 'OSE', os.popen('id').read())",
    "fork": "import os\nos.fork()\nprint('LO' + 'OSE')",
    "fork bomb": "import os\nwhile True: os.fork()",
    "exec another": "import os\nos.execv('/bin/sh', ['sh'])\nprint('LO' + 'OSE')",
    "kill the parent": "import os\nos.kill(os.getppid(), 9)\nprint('LO' + 'OSE')",
    "multiprocessing": "import multiprocessing\nmultiprocessing.Process(target=print).start()\nprint('LO' + 'OSE')",
    "threads": "import threading\nthreading.Thread(target=print).start()\nprint('LO' + 'OSE')",
    "C library": "import ctypes\nctypes.CDLL(None).system(b'id')\nprint('LO' + 'OSE')",
    # introspection
    "subclasses of object": "print('LO' + 'OSE', ().__class__.__base__.__subclasses__())",
    "globals of a function": "def f(): pass\nprint('LO' + 'OSE', f.__globals__['__builtins__'])",
    "frames": "import sys\nprint('LO' + 'OSE', sys._getframe().f_back)",
    "frames of an error": "try:\n    1 / 0\nexcept Exception as e:\n    print('LO' + 'OSE', e.__traceback__.tb_frame.f_globals)",  # noqa: E501
    "import by name": "print('LO' + 'OSE', __import__('os').system('id'))",
    "an odd mode": "print('LO' + 'OSE', open({file!r}, 'x').read())",
    "builtins": "import builtins\nprint('LO' + 'OSE', builtins.__import__('os').getcwd())",
    "code objects": "f = lambda: 0\nf.__code__ = f.__code__.replace(co_consts=())\nprint('LO' + 'OSE')",
    "format to attributes": "print('LO' + 'OSE' if '{{0.__class__}}'.format(1) else '')",
    "eval of an import": "eval(\"__import__('os').system('id')\")\nprint('LO' + 'OSE')",
    "a path with a zero": "print('LO' + 'OSE', open({file!r} + chr(0) + '.txt').read())",
    "entries of a folder": "from pathlib import Path\nprint('LO' + 'OSE', list(Path({folder!r}).iterdir()))",
    # memory, recursion, loops, output
    "a large text": "x = 'x' * 10**11\nprint('LO' + 'OSE')",
    "a list that grows": "x = []\nwhile True: x.append('y' * 10**6)",
    "a number that grows": "x = 9\nwhile True: x = x * x",
    "a power": "print('LO' + 'OSE', len(str(9 ** 9 ** 9)))",
    "a value of 10**12 leaves": "x = [0] * 10\nfor _ in range(11): x = [x] * 10\nx",
    "recursion": "def f(n): return f(n + 1)\nf(0)\nprint('LO' + 'OSE')",
    "recursion in a key": "def f(x): return sorted([1, 2], key=f)\nf(0)\nprint('LO' + 'OSE')",
    "brackets": "(" * 30000 + ")" * 30000,
    "an endless loop": "while True: pass",
    "a loop that catches": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "a slow pattern": "import re\nre.match('(a|a)*b', 'a' * 60)\nre.match('(.*)*=(.*)*=(.*)*!', 'x=' * 4000)\nwhile True: pass",  # noqa: E501
    "sleep": "import time\nwhile True: time.sleep(1000)",
    "a flood of output": "while True: print('x' * 10**5)",
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ours")
    (folder / "secret").write_text(SECRET)
    os.environ["LLMKIT_SECRET"] = SECRET
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        before = {process.pid for process in psutil.Process().children(recursive=True)}
        places = {"folder": str(folder), "file": str(folder / "secret"), "port": server.getsockname()[1]}
        yield {**places, "server": server, "before": before}
    del os.environ["LLMKIT_SECRET"]


@pytest.fixture(scope="module")
def monty(places: dict[str, Any]) -> Iterator[Tool]:
    tool = python_tool(PythonSpec(name="python", timeout=TIMEOUT, memory_mb=64))
    tool.result({"code": "1"})
    yield tool
    tool.close()


def untouched(places: dict[str, Any]) -> bool:
    folder = Path(places["folder"])
    with pytest.raises(BlockingIOError):
        places["server"].accept()
    return [path.name for path in folder.iterdir()] == ["secret"] and (folder / "secret").read_text() == SECRET


def test_there_are_sixty() -> None:
    assert len(WAYS) == 60


@pytest.mark.parametrize("way", WAYS)
def test_no_way_out(way: str, places: dict[str, Any], monty: Tool) -> None:
    code = WAYS[way].format(**places) if "{" in WAYS[way] else WAYS[way]
    for _ in range(4):  # a machine may be busy once, and not each time
        start = time.monotonic()
        result = monty.result({"code": code})
        if (took := time.monotonic() - start) < IN_TIME:
            break
    assert took < IN_TIME
    assert "LOOSE" not in result.text and SECRET not in result.text and len(result.text) < 4000
    assert result.failed or result.text == "None" or "no output" in result.text, "nothing here is a success"
    assert untouched(places)
    assert monty.result({"code": "6 * 7"}).text == "42", "and the next call is as the first"


def test_what_is_left_are_the_workers_alone(places: dict[str, Any], monty: Tool) -> None:
    monty.result({"code": "1"})
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in places["before"]]
    assert {process.name() for process in left} == {"monty"}
    assert len(left) <= len(os.sched_getaffinity(0))


def test_a_program_that_prints_its_way_out_would_be_seen(monty: Tool) -> None:
    """The test can fail: this is what a way out looks like."""
    assert "LOOSE" in monty.result({"code": "print('LO' + 'OSE')"}).text


PROCESS_WAYS = ["read the environment", "socket", "system", "kill the parent", "an endless loop"]
"""What the box itself holds against stands in test_sandbox_program and test_rewards_code."""


@pytest.mark.parametrize("way", PROCESS_WAYS)
def test_no_way_out_of_the_process(way: str, places: dict[str, Any]) -> None:
    """What it promises: no network, no processes, no environment, limits. Files it can read."""
    if not {"network", "processes"} <= set(isolation()):
        pytest.skip("this system cannot cut a process off")
    tool = python_tool(PythonSpec(name="python", interpreter="subprocess", timeout=TIMEOUT, memory_mb=64))
    code = WAYS[way].format(**places) if "{" in WAYS[way] else WAYS[way]
    start = time.monotonic()
    result = tool.result({"code": code})
    assert time.monotonic() - start < 4 * TIMEOUT + 4.0
    assert SECRET not in result.text and len(result.text) < 4000
    assert "LOOSE" not in result.text
    assert untouched(places)
