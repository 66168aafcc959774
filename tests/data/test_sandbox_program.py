"""What a program in the box reaches of the process that runs it: nothing, with namespaces and without."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from llmkit.sandbox import program
from llmkit.sandbox.program import Ran, run

BOX = Path(program.__file__).parent
CUT = {"network", "processes"}
TRY = """
import ctypes, fcntl, os, resource, struct, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*arguments):
    if libc.syscall(*arguments) < 0: raise OSError(ctypes.get_errno(), "refused")
info = ctypes.create_string_buffer(128)
struct.pack_into("iii", info, 0, 15, 0, -1)
arm = os.uname().machine == "aarch64"
pid, folder, shared = PID, FOLDER, SHARED
for way in WAYS:
    try: exec(way)
    except (OSError, RuntimeError) as error: print("refused", type(error).__name__)
    else: print("LOOSE")
"""
WAYS = {
    "reads its environment": "open(f'/proc/{pid}/environ', 'rb').read()",
    "reads its memory": "open(f'/proc/{pid}/mem', 'rb').read(1)",
    "opens its memory to write": "open(f'/proc/{pid}/mem', 'r+b')",
    "opens the memory of the box": "open(f'/proc/{os.getppid()}/mem', 'r+b')",
    "opens its files": "os.open(f'/proc/{pid}/fd/1', os.O_WRONLY)",
    "goes to its folder": "os.listdir(f'/proc/{pid}/cwd')",
    "makes it the first to be ended": "open(f'/proc/{pid}/oom_score_adj', 'w').write('1000')",
    "writes elsewhere": "open(folder + '/written', 'w').write('x')",
    "removes elsewhere": "os.remove(folder + '/kept')",
    "cuts a file elsewhere": "os.truncate(folder + '/kept', 0)",
    "kills": "os.kill(pid, 15)",
    "queues a signal": "call(138 if arm else 129, pid, 15, info)",
    "queues a signal to a thread": "call(240 if arm else 297, pid, pid, 15, info)",
    "opens it as a file": "os.pidfd_open(pid)",
    "takes a descriptor": "call(438, 3, 0, 0)",
    "lets a pipe signal it": "fcntl.fcntl(os.pipe()[0], 8, pid)",
    "limits it": "resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))",
    "limits it by a number of 64 bits": "call(261 if arm else 302, ctypes.c_long(pid + 2**32), 4, None, None)",
    "slows it down": "os.setpriority(os.PRIO_PROCESS, pid, 19)",
    "moves it to another core": "os.sched_setaffinity(pid, {0})",
    "compares its memory": "call(272 if arm else 312, pid, os.getpid(), 1, 0, 0)",
    "forks": "os.fork()",
    "starts a thread": "threading.Thread(target=print).start()",
    "opens a socket": "__import__('socket').socket()",
    "types at a terminal": "fcntl.ioctl(0, 0x5412, b'x')",
    "holds memory without a limit": "os.memfd_create('a')",
    "shares memory": "call(194 if arm else 29, 0, 4096, 0o1600)",
    "reads shared memory": "call(196 if arm else 30, shared, None, 0o10000)",
    "removes shared memory": "call(195 if arm else 31, shared, 0, None)",
    "makes a queue of messages": "call(186 if arm else 68, 0, 0o1600)",
    "makes semaphores": "call(190 if arm else 64, 0, 1, 0o1600)",
    "opens a queue of messages": "call(180 if arm else 240, b'llmkit', 0o102, 0o600, None)",
    "leaves a key": "call(217 if arm else 248, b'user', b'llmkit', b'x', 1, -5)",
    "asks for a key": "call(218 if arm else 249, b'user', b'llmkit', None, 0)",
    "looks at keys": "call(219 if arm else 250, 0, -5, 0)",
}


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Path]:
    tmp_path.chmod(0o777)
    (tmp_path / "kept").write_text("precious")
    (tmp_path / "kept").chmod(0o666)
    before = resource.getrlimit(resource.RLIMIT_CORE), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)
    yield tmp_path
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"kept": "precious"}
    assert before == (
        resource.getrlimit(resource.RLIMIT_CORE),
        os.getpriority(os.PRIO_PROCESS, 0),
        os.sched_getaffinity(0),
    )


@pytest.fixture
def shared() -> Iterator[int]:
    """Memory that every process of this machine may read and write; the number of its segment."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.shmget(0, 4096, 0o1666)
    yield made
    assert made < 0 or libc.shmctl(made, 0, None) == 0, "it was still there"


def tried(ways: Iterable[str], folder: Path, pid: int, namespaces: bool, shared: int = -1) -> Ran:
    """One run for all of them: one line each."""
    code = TRY.replace("PID", str(pid)).replace("FOLDER", repr(str(folder))).replace("SHARED", str(shared))
    code = code.replace("WAYS", repr(list(ways)))
    return run({"code": code, "namespaces": namespaces}, "", timeout=5, memory=2**30)


@pytest.mark.parametrize("namespaces", [True, False])
def test_it_reaches_nothing_of_its_caller(namespaces: bool, ours: Path, shared: int) -> None:
    if sys.platform != "linux":
        pytest.skip("Linux")
    handled: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: handled.append(number))
    try:
        ran = tried(WAYS.values(), ours, os.getpid(), namespaces, shared)
    finally:
        signal.signal(signal.SIGTERM, before)
    if not set(ran.cut) >= CUT:
        pytest.skip("neither namespaces nor Landlock here, which it says")
    said = dict(zip(WAYS, ran.output.splitlines(), strict=True))
    assert ran.status == 0 and not {way: text for way, text in said.items() if not text.startswith("refused")}
    assert not handled


def test_the_ways_are_ways(ours: Path) -> None:
    """On itself a program may do some of it, and write where it may: a refusal is no mistake of the test."""
    own = ["limits it", "moves it to another core", "lets a pipe signal it"]
    code = [WAYS[name].replace("pid", "0").replace("0], 8, 0", "0], 1") for name in own]
    ran = tried([*code, "open('x', 'w').write('x')", "open(os.devnull, 'w').write('x')"], ours, 0, False)
    assert ran.output.splitlines() == ["LOOSE"] * 5


def test_without_a_ruleset_for_files_it_does_not_say_that_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter of calls sees no paths: through /proc one can act as any other process of one's user."""
    (tmp_path / "box.py").write_text((BOX / "box.py").read_text())
    old = (BOX / "walls.py").read_text()
    assert "_NEW_RULESET, _ADD_RULE, _RESTRICT, _VERSION, _BENEATH = 444" in old
    (tmp_path / "walls.py").write_text(old.replace("_BENEATH = 444", "_BENEATH = 9444"))
    monkeypatch.setattr(program, "_BOX", tmp_path / "box.py")
    found = set(run({"code": "", "namespaces": False}, "", timeout=5, memory=2**30).cut)
    assert found == ({"user", *CUT} if "user" in found else set())


def test_a_box_that_cannot_do_what_it_says_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "box.py").write_text((BOX / "box.py").read_text())
    (tmp_path / "walls.py").write_text(
        (BOX / "walls.py").read_text() + "\ndef _limit(job): raise OSError(5, 'no way')\n"
    )
    monkeypatch.setattr(program, "_BOX", tmp_path / "box.py")
    with pytest.raises(ValueError, match=r"programs cannot be run here \(OSError: .*no way\)"):
        run({"code": f"open({str(tmp_path / 'ran')!r}, 'w')"}, "", timeout=5, memory=2**30)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("namespaces", [True, False])
def test_folders_in_folders_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespaces: bool) -> None:
    """Deeper than a path may be long, and than Python may recurse; one that nobody may open among them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import os\nfor i in range(1500): os.mkdir('a'); os.mkdir('b', 0); open('c', 'w').write('x'); os.chdir('a')"
    run({"code": code, "namespaces": namespaces}, "", timeout=5, memory=2**30)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "code",
    [
        "i = 0\nwhile True:\n    i += 1\n    open(str(i), 'w').write('x' * 2**23)",
        "i = 0\nwhile True:\n    i += 1\n    open(str(i), 'w').close()",
    ],
)
def test_a_program_cannot_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ran = run({"code": code, "namespaces": False}, "", timeout=20, memory=2**30)
    assert ran.flooded and ran.timed_out and not list(tmp_path.iterdir())


def test_an_ordinary_user_is_cut_off_too() -> None:
    """From a user without privileges, by a Python that it can read; its caller is of the same user."""
    python = Path("/usr/bin/python3")
    if os.geteuid() != 0 or not python.exists() or not shutil.which("setpriv"):
        pytest.skip("not root, or no Python for all")
    ways = [WAYS["reads its environment"], WAYS["opens its memory to write"]]
    code = TRY.replace("WAYS", repr(ways)).replace("FOLDER", "0").replace("SHARED", "0")
    script = (
        f"import sys, os; sys.path.insert(0, {str(BOX.parents[1])!r}); from llmkit.sandbox.program import run\n"
        f"code = {code!r}.replace('PID', str(os.getpid()))\n"
        "for allowed in (True, False):\n"
        "    ran = run({'code': code, 'namespaces': allowed}, '', timeout=5, memory=2**30)\n"
        "    print({'network', 'processes'} <= set(ran.cut), ran.output.split())\n"
    )
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(python), "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/", timeout=60)
    assert len(done.stdout.splitlines()) == 2, done.stderr
    assert not [line for line in done.stdout.splitlines() if line.startswith("True") and "LOOSE" in line]
