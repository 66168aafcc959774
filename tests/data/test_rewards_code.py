"""Programs under test: right, wrong, and out for the reward or for harm. Those score 0 and leave nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmkit.errors import UserError
from llmkit.rewards.code import make_code, program_in, read_tests, samples
from llmkit.rewards.rows import RowError
from llmkit.sandbox.program import isolation

ASSERTS = "assert add(1, 2) == 3\nassert add(-2, 2) == 0\nassert [add(1, 1)] == [2], 'message'"
SUM = [{"input": "1 2\n", "output": "3\n"}, {"input": "20 2\n", "output": "22"}]


def run(*programs: str, tests: Any = ASSERTS, timeout: float = 0.5, **options: Any) -> list[float | None]:
    completions = [f"Here:\n```python\n{program}\n```\nDone." for program in programs]
    return list(make_code(timeout=timeout, **options)(completions=completions, tests=[tests] * len(programs)))


def test_the_share_of_tests_or_all_of_them() -> None:
    programs = (
        "def add(a, b): return a + b",
        "def add(a, b): return 2 if a == b else 3",
        "def add(a, b): return 9",
        "x",
    )
    assert run(*programs) == [1.0, pytest.approx(2 / 3), 0.0, 0.0]
    assert run(*programs, score="all") == [1.0, 0.0, 0.0, 0.0]


def test_tests_of_many_forms() -> None:
    """Values of Python's own types, what prepares a test, comparisons that only the process itself can make, a call."""
    tests = [
        "'What these tests are for.'\nimport math\nLIMIT = 1e-9",
        "assert abs(f(2) - math.sqrt(2)) < LIMIT",
        "assert not f(0)",
        "def close(a, b):\n    assert abs(a - b) < LIMIT",
        "close(f(4), 2)",
        "close(f(4), 3)",
        "assert 2.0 == f(4)",
        "assert g() == {'a': (1, 2.5, None, True), 'b': {1, 2}, 'c': [b'x', 'é\\n']}",
        "assert g() == {}",
        "assert type(h()).__name__ == 'deque'",
        "assert h() == [1]",
        "assert k() == {'a': 2}",
        "assert f('a') == 1",
    ]
    program = (
        "import math, collections\n"
        "def f(x): return math.sqrt(x)\n"
        "def g(): return {'a': (1, 2.5, None, True), 'b': {2, 1}, 'c': [b'x', 'é\\n']}\n"
        "def h(): return collections.deque([1])\n"
        "def k(): return collections.Counter('aa')\n"
        "if __name__ == '__main__': input()\n"
    )
    assert run(program, tests=tests) == [pytest.approx(7 / 11)]


def test_programs_that_read_and_print() -> None:
    right = "a, b = map(int, input().split())\nprint(a + b)"
    found = run(
        right, "print(3)", f"{right}\nraise SystemExit(1)", f"{right}\nexit(0)", "while True: print(3)", tests=SUM
    )
    assert found == [1.0, 0.5, 0.0, 1.0, 0.0]


HOSTILE = {
    "leaves before the tests": "import sys; sys.exit(0)",
    "leaves without a trace": "import os; os._exit(0)",
    "leaves in a test": "import os\ndef add(a, b): os._exit(0)",
    "prints that it passed": "print('passed\\n' * 9)\ndef add(a, b): print('0 True'); return 9",
    "equals everything": (
        "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def add(a, b): return Any(9)\n"
    ),
    "equals everything as a list": (
        "class Any(list):\n    def __eq__(self, other): return True\n    def __iter__(self): return iter([3])\n"
        "def add(a, b): return Any()\n"
    ),
    "floods": "while True: print('x' * 10**6)",
    "floods every file": (
        "import os\nwhile True:\n    for i in range(3, 20):\n        try: os.write(i, b'x' * 10**5)\n"
        "        except OSError: pass"
    ),
    "loops": "while True: pass",
    "loops in C": "10 ** 10 ** 10",
    "sleeps": "import time; time.sleep(10**6)",
    "sleeps apart": "import os, time\nos.setsid()\ntime.sleep(10**6)",
    "takes memory": "x = bytearray(2**33)\ndef add(a, b): return a + b",
    "recurses": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "bombs": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "kills": "import os, signal\nos.kill(-1, signal.SIGKILL)\nos.kill(os.getppid(), signal.SIGKILL)",
    "reads the environment": "import os\nassert os.environ.get('LLMKIT_SECRET')\ndef add(a, b): return a + b",
    "aborts": "import os\nos.abort()",
    "closes": "import os\nos.closerange(0, 64)\ndef add(a, b): return a + b",
    "is no Python": "def add(a, b) return a + b",
    "is too long": "#" * 10**6 + "\ndef add(a, b): return a + b",
}  # fmt: skip


def test_hostile_programs_score_nothing_and_leave_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMKIT_SECRET", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    start = time.monotonic()
    found = run(*HOSTILE.values(), timeout=0.25)
    assert dict(zip(HOSTILE, found, strict=True)) == dict.fromkeys(HOSTILE, 0.0)
    assert time.monotonic() - start < 120
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    assert not left and not list(tmp_path.iterdir())
    assert run("def add(a, b): return a + b") == [1.0], "and the machine is as it was"


def test_a_flood_ends_a_program_long_before_its_time() -> None:
    start = time.monotonic()
    assert run("while True: print('x' * 10**5)", tests=SUM[:1], timeout=20) == [0.0]
    assert time.monotonic() - start < 15


def test_a_trickle_ends_a_program_in_time() -> None:
    """Where there is always something to read, too."""
    start = time.monotonic()
    assert run(
        "import time\nwhile True:\n    print(3, flush=True)\n    time.sleep(0.001)", tests=SUM[:1], timeout=0.3
    ) == [0.0]
    assert time.monotonic() - start < 10


def test_no_program_outlives_a_caller_that_is_killed(tmp_path: Path) -> None:
    code = "import os, time\nos.setsid()\nwhile True:\n    try: time.sleep(1000)\n    except BaseException: pass"
    script = (
        "from llmkit.rewards.code import make_code\n"
        f"make_code(timeout=0.25)(completions=['```\\n' + {code!r} + '\\n```'], tests=['assert f(1) == 1'])\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", script])
    boxes: list[psutil.Process] = []
    while len(boxes) < 2 and caller.poll() is None:
        boxes = psutil.Process(caller.pid).children(recursive=True)
        time.sleep(0.05)
    caller.kill()
    caller.wait()
    assert len(boxes) == 2 and not psutil.wait_procs(boxes, timeout=60)[1]


def test_no_forged_report_passes_a_test_whose_value_is_expected() -> None:
    """A program that searches its own process for the secret and for the tests finds no expected values there."""
    program = (
        "import gc, os, sys, re\n"
        "frame = sys._getframe()\n"
        "while frame:\n"
        "    seen = {**frame.f_globals, **frame.f_locals}\n"
        "    if 'token' in seen and 'steps' in seen:\n"
        "        for place in range(len(seen['steps'])):\n"
        "            os.write(seen['report'], f\"{seen['token']} {place} True\\n\".encode())\n"
        "        assert '3' not in repr(seen['steps']).replace('-2', '').replace('1, 2', '')\n"
        "    frame = frame.f_back\n"
    )
    assert run(program) == [0.0]


def _allows_namespaces() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--mount", "--fork", "true"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True).returncode == 0


CUT_OFF = f"""
import os, socket, threading
def refused(function, *args):
    try: function(*args); return False
    except (OSError, RuntimeError): return True
checks = [refused(os.fork), refused(socket.socket), refused(threading.Thread(target=print).start),
          refused(os.kill, os.getppid(), 0), refused(os.kill, {os.getpid()}, 0)]
"""


def test_no_processes_sockets_or_signals() -> None:
    """That this holds without namespaces too is held by `test_sandbox_program`."""
    if sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("neither namespaces nor a filter of calls here")
    assert run(CUT_OFF, tests="assert checks == [True] * 5") == [1.0]


def test_what_a_program_is_cut_off_from() -> None:
    """Beyond what every system allows: no network, no other processes, nothing to write to but its own folder."""
    if not _allows_namespaces():
        pytest.skip("this system allows no namespaces")
    root = Path(__file__).resolve().parents[2]
    program = f"""
import os, socket
def network():
    try: socket.create_connection(("127.0.0.1", {_listening()}), timeout=2); return "reached"
    except OSError: return "none"
def environment():
    try: return open(f"/proc/{os.getpid()}/environ").read()
    except OSError: return "hidden"
def outside():
    try: open({str(root / "hostile")!r}, "w"); return "written"
    except OSError: return "refused"
def inside():
    open("file", "w").write("a"); return open("file").read()
def floods():
    try:
        with open("big", "wb") as file:
            for _ in range(64): file.write(bytes(2**20))
        return "written"
    except OSError: return "refused"
"""
    tests = (
        "assert network() == 'none'\nassert environment() == 'hidden'\nassert outside() == 'refused'\n"
        "assert inside() == 'a'\nassert floods() == 'refused'"
    )
    assert {"network", "processes", "files"} <= set(isolation())
    assert run(program, tests=tests) == [1.0]
    assert not (root / "hostile").exists()


_SERVER: list[Any] = []


def _listening() -> int:
    server = socket.create_server(("127.0.0.1", 0))
    _SERVER.append(server)
    return int(server.getsockname()[1])


def test_from_root_a_program_becomes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a Python that nobody can read; that of the tests may lie in root's own folder."""
    python = Path("/usr/bin/python3")
    if os.geteuid() != 0 or not python.exists():
        pytest.skip("not root, or no Python for all")
    monkeypatch.setattr(sys, "executable", str(python))
    assert "user" in isolation()
    tests = (
        f"assert os.getresuid() == (65534,) * 3\nassert not refused('/')\nassert refused('/proc/{os.getpid()}/environ')"
    )
    program = "import os\ndef refused(path):\n    try: os.close(os.open(path, os.O_RDONLY)); return False\n"
    assert run(f"{program}    except OSError: return True", tests=tests) == [1.0]


def test_the_program_is_the_last_closed_block() -> None:
    text = "```python\na\n```\ntext\n```\nb\n```\n```json\nc\n```\n```python\nd"
    assert program_in(text, "fence") == "b\n"
    assert program_in("```py\na\n```", "fence") == "a\n" and program_in("a", "fence") is None
    assert program_in("a", "text") == "a" and program_in(" ", "text") is None
    assert program_in("```\n\n```", "fence") is None
    start = time.process_time()
    program_in("```\n" * 10**5 + "`" * 10**6, "fence")
    assert time.process_time() - start < 2
    reward = make_code(source="text", timeout=0.5)
    assert reward(completions=["def add(a, b): return a + b"], tests=[ASSERTS]) == [1.0]


@pytest.mark.parametrize(
    "bad", [None, "", "x = 1", "assert (", [], [1], [{"input": "1"}], [{"input": 1, "output": "1"}], {}]
)
def test_a_row_without_tests_is_named(bad: Any) -> None:
    with pytest.raises(RowError, match="row 0: its tests are"):
        read_tests(bad, 0)


def test_options_change_what_is_run() -> None:
    slow = "def add(a, b):\n    for _ in range(10**9): pass\n    return a + b"
    big = "x = bytearray(150 * 2**20)\ndef add(a, b): return a + b"
    assert run(big, memory_mb=128) == [0.0] and run(big, timeout=20) == [1.0]
    start = time.monotonic()
    assert run(slow, timeout=0.3) == [0.0] and time.monotonic() - start < 20
    for options in ({"score": "most"}, {"source": "all"}, {"timeout": 0}, {"memory_mb": 1}, {"num_parallel": 0}):
        with pytest.raises(UserError, match="code"):
            make_code(**options)  # type: ignore[arg-type]


def test_it_reports_what_happened() -> None:
    logged: dict[str, float] = {}
    programs = ["def add(a, b): return a + b", "while True: pass", "x", "def add(a, b): return 9"]
    completions = [f"```python\n{program}\n```" for program in programs[:2]] + ["no program", "no program"]
    make_code(timeout=0.3)(completions=completions, tests=[ASSERTS] * 4, log_metric=logged.__setitem__)
    assert logged["code/passed"] == 0.25 and logged["code/timed_out"] == 0.5
    assert logged["code/isolated"] == float("network" in isolation())


def test_where_no_program_can_be_run_none_is_called_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text("raise OSError('no such machine')")
    monkeypatch.setattr("llmkit.sandbox.program._BOX", tmp_path / "box.py")
    with pytest.raises(UserError, match=r"cannot be run here \(OSError: no such machine\)"):
        run("def add(a, b): return a + b")


def test_samples_are_right_and_wrong() -> None:
    found = samples({"solution": "def add(a, b): return a + b", "tests": ASSERTS})
    reward = make_code(timeout=0.5)
    assert reward(completions=[found.gold, found.wrong], tests=[ASSERTS] * 2) == [1.0, 0.0]
    assert samples({"tests": ASSERTS}).gold is None


def test_a_batch_runs_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight programs that sleep a second each, on however busy a machine, take less than one after the other."""
    sleeper = "import time\ntime.sleep(1)\ndef add(a, b): return a + b"
    start = time.monotonic()
    assert run(*[sleeper] * 8, timeout=5, num_parallel=8) == [1.0] * 8
    assert time.monotonic() - start < 7
