"""The guard ends every process that came of its command, even one whose parent is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmkit.launch import guard
from llmkit.launch.follow import Follower
from llmkit.launch.worker import last_lines

LEAVE_ONE_BEHIND = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open("pid", "w").write(str(child.pid))
"""


def guarded(folder: Path, code: str) -> int:
    command = [sys.executable, "-I", "-S", guard.__file__, "1", sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=folder)
    return process.wait(60)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_a_process_left_behind_is_ended(tmp_path: Path) -> None:
    assert guarded(tmp_path, LEAVE_ONE_BEHIND) == 0
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9), ("", 0)]
)
def test_exit_codes(tmp_path: Path, code: str, expected: int) -> None:
    assert guarded(tmp_path, code) == expected


def test_following_a_file_gives_whole_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n')
    follower = Follower(path)
    with path.open("a") as file:
        file.write('{"step": 1}\n{"st')
        file.flush()
        assert list(follower.records()) == [{"step": 1}], "what was there before is passed over"
        file.write('ep": 2}\nnot json\n[]\n')
        file.flush()
        assert list(follower.records()) == [{"step": 2}]
    assert list(Follower(tmp_path / "none").lines()) == []


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"\xff early\n" * 9000 + b"10%\r50%\r100%\n\nend\n")
    assert last_lines(path, 2) == ["100%", "end"]
    assert last_lines(tmp_path / "none") == []
