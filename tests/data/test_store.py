"""Chunks on disk: whole or not there, never of other settings, each process its own."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmkit.artifacts.files import to_line
from llmkit.errors import RunError
from llmkit.knowledge.store import Chunks, Steps, read_rows, writing

ROWS = [{"n": n, "text": "Zoë \u2028 says\n" * (n % 3)} for n in range(23)]


def write(path: Path, rows: list[dict]) -> Path:
    with writing(path) as add:
        for row in rows:
            add(row)
    return path


def test_rows_come_back_in_chunks(tmp_path: Path) -> None:
    chunks = Chunks(write(tmp_path / "rows.jsonl", ROWS), 5)
    assert len(chunks) == 5 and chunks.num_rows == 23 and chunks.rows_in(4) == 3
    assert [row for index in range(5) for row in chunks[index]] == ROWS
    assert chunks[3] == ROWS[15:20] and list(read_rows(chunks.path)) == ROWS
    assert len(Chunks(write(tmp_path / "none.jsonl", []), 5)) == 0


def test_the_index_takes_8_bytes_a_chunk(tmp_path: Path) -> None:
    chunks = Chunks(write(tmp_path / "rows.jsonl", [{"n": n} for n in range(20_000)]), 500)
    assert len(chunks._starts) * chunks._starts.itemsize == 8 * 40


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS[:3])
    with pytest.raises(KeyError), writing(path) as add:
        add({"n": 99})
        raise KeyError
    assert list(read_rows(path)) == ROWS[:3] and [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_killed_writer_leaves_the_old_file_and_begin_cleans_up(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    steps.begin({"answers": "a"})
    steps.write("answers", 0, ROWS[:2])
    script = (
        "import os, signal; from pathlib import Path; from llmkit.knowledge.store import writing\n"
        f"with writing(Path({str(steps.path('answers', 0))!r})) as add:\n"
        "    [add({'n': n}) for n in range(100_000)]\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script])
    assert done.returncode == -signal.SIGKILL
    assert steps.read("answers", 0) == ROWS[:2] and list(tmp_path.glob(".*.partial"))
    steps.begin({"answers": "a"})
    assert steps.read("answers", 0) == ROWS[:2] and not list(tmp_path.glob(".*.partial"))


def test_what_was_made_from_something_else_is_deleted(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "steps")
    steps.begin({"questions": "q1", "answers": "a1", "verdicts": "v1"})
    write(steps.whole("questions"), ROWS)
    for step in ("answers", "verdicts"):
        steps.write(step, 0, ROWS)
        steps.write(step, 7, ROWS)
    steps.begin({"questions": "q1", "answers": "a1", "verdicts": "v2"})
    assert steps.whole("questions").is_file() and steps.path("answers", 7).is_file()
    assert not steps.path("verdicts", 0).exists() and not steps.path("verdicts", 7).exists()
    steps.begin({"questions": "q2", "answers": "a2", "verdicts": "v2"})
    assert [path.name for path in steps.folder.iterdir()] == ["steps.json"]


def test_rows_without_a_readable_record_of_what_made_them_are_deleted(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    steps.begin({"answers": "a"})
    steps.write("answers", 0, ROWS)
    (tmp_path / "steps.json").write_text('{"answers": ')
    steps.begin({"answers": "a"})
    assert not steps.path("answers", 0).exists()


@pytest.mark.parametrize("num_processes", [1, 2, 3, 5])
def test_every_chunk_belongs_to_one_process(tmp_path: Path, num_processes: int) -> None:
    steps = Steps(tmp_path)
    steps.write("answers", 4, [])
    missing = [steps.missing("answers", 11, process, num_processes) for process in range(num_processes)]
    assert sorted(index for part in missing for index in part) == [i for i in range(11) if i != 4]
    assert all(index % num_processes == process for process, part in enumerate(missing) for index in part)


def test_a_full_disk_is_said_by_name(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    script = (
        "import resource, signal; from pathlib import Path; from llmkit.knowledge.store import Steps\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        f"Steps(Path({str(tmp_path)!r})).write('answers', 0, ({{'n': n}} for n in range(100_000)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "RunError" in done.stderr and "answers-00000.jsonl: cannot be written (File too large)" in done.stderr
    assert not list(tmp_path.iterdir()), "no half file is left"


def test_a_read_only_folder_is_said_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="the disk is full; free some space"):
        write(tmp_path / "rows.jsonl", ROWS)
    assert not list(tmp_path.iterdir())


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"rows.jsonl:23: is damaged .* delete the file and run the stage again"):
        list(read_rows(path))
    with pytest.raises(RunError, match=r"rows.jsonl:23: is damaged"):
        Chunks(path, 10)[2]


def test_text_that_utf8_cannot_write_does_not_stop_a_stage(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": "a\ud800b"}])
    assert list(read_rows(path)) == [{"text": "a?b"}] and b"\n" not in to_line({"text": "a\nb"})[:-1]


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """A hundred megabytes of rows pass through in a few megabytes."""

    def rows(count: int) -> int:
        with writing(tmp_path / "rows.jsonl") as add:
            for n in range(count):
                add({"n": n, "text": "x" * 5000})
        assert sum(1 for _ in read_rows(tmp_path / "rows.jsonl")) == count
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    small = rows(1000)
    assert rows(20_000) - small < 20_000, "kilobytes"
