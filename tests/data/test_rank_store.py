"""Decisions on disk: kills at every byte, full disks, two processes, other programs."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_rank import decision, rollout_row
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.errors import RunError
from llmkit.preference.rankings import Decision, Undo
from llmkit.preference.rollouts import item_of
from llmkit.preference.store import Store, open_store, read_events

ITEM = item_of(rollout_row(0), "")
EVENTS = [
    decision(ITEM, ["c0 c1", "c2 c3 c4"]),
    decision(ITEM, [], "Zoë \u2028", flagged="why \0 not"),
    Undo(id="anna-p0-0", rater="anna", time="2026"),
    decision(ITEM, [], "ben", skipped=True),
]


def saved(path: Path, events: list[Decision | Undo]) -> bytes:
    with open_store(path) as store:
        for event in events:
            store.append(event)
    return path.read_bytes()


def test_events_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rankings.jsonl"
    data = saved(path, EVENTS)
    assert data.count(b"\n") == 4 and [event.id for event in read_events(path)] == [event.id for event in EVENTS]
    assert read_events(path) == EVENTS
    saved(path, EVENTS[:1])
    assert path.read_bytes().startswith(data) and len(read_events(path)) == 5


def test_two_decisions_with_one_id_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    saved(path, EVENTS[:1])
    same = path.read_bytes()
    path.write_bytes(same * 2)
    assert len(read_events(path)) == 2, "the same decision twice, as of joined files, is one"
    saved(path, [decision(ITEM, [], "ben", skipped=True, id=EVENTS[0].id)])
    for reads in (read_events, lambda path: saved(path, [])):
        with pytest.raises(RunError, match=r"rankings\.jsonl:3: the id 'anna-p0-0' is that of another .*, in line 1"):
            reads(path)


def test_a_kill_at_any_byte_costs_nothing_that_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    data = saved(path, EVENTS[2:3] * 2)
    one = len(data) // 2
    for cut in [*range(one + 1), 2 * one - 1, 2 * one]:
        path.write_bytes(data[:cut])
        whole = cut // one + (cut % one == one - 1)  # without its end a line is whole all the same
        assert len(read_events(path)) == whole
        with open_store(path) as store:
            assert len(store.events) == whole and store.num_cut == (0 if cut % one == one - 1 else cut % one)
            store.append(EVENTS[2])
        assert path.read_bytes() == data[:one] * (whole + 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=5), st.data())
def test_any_tail_of_garbage_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, picks: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("store") / "rankings.jsonl"
    before = saved(path, [EVENTS[pick] for pick in picks])
    torn = data.draw(st.binary(max_size=40)).replace(b"\n", b"\0")
    # of the first line only a beginning, or zeros: anything else is somebody's file
    path.write_bytes(
        before + (torn if before else data.draw(st.sampled_from((b'{"i', b'{"id":"' + torn, b"\0\0", b""))))
    )
    assert len(read_events(path)) == len(picks)
    with open_store(path) as store:
        assert len(store.events) == len(picks)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b'{"anna": [1, 2]}', b"my notes", b'[{"id":"9f"}]', b"x"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"mine\.json: is no file of rankings; give another --out"), open_store(path):
        pass
    assert path.read_bytes() == content


def test_damage_in_the_middle_is_named_and_nothing_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    lines = saved(path, EVENTS).splitlines(keepends=True)
    for broken, message in (
        (b"{broken\n", "jsonl:2: is no decision (Invalid JSON"),
        (lines[1].replace(b'"repeat":0', b'"repeat":-1'), "jsonl:2: is no decision (repeat: "),
        (lines[1].replace(b'"event":"decision"', b'"event":"vote"'), "jsonl:2: is no decision (Input tag 'vote'"),
        (
            lines[0].replace(b'["c0","c1"],', b""),
            "leaves completions without a rank: c0, c1); mend or remove that line",
        ),
    ):
        damaged = b"".join([lines[0], broken, *lines[2:]])
        path.write_bytes(damaged)
        with pytest.raises(RunError) as error, open_store(path):
            pass
        assert message in str(error.value) and path.read_bytes() == damaged


def test_a_killed_process_keeps_what_append_returned_for(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    script = (
        "import os, signal, sys; sys.path.insert(0, 'tests/data'); from pathlib import Path\n"
        "from test_rank_store import EVENTS; from llmkit.preference.store import open_store\n"
        f"with open_store(Path({str(path)!r})) as store:\n"
        "    for event in EVENTS[:3]: store.append(event)\n"
        '    os.write(store._handle, b\'{"event": "deci\'); os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL and len(read_events(path)) == 3
    with open_store(path) as store:  # the system has let the lock go
        assert len(store.events) == 3 and store.num_cut == 15


def failing(store: Store, monkeypatch: pytest.MonkeyPatch, call: str, after: int = 0) -> None:
    """A disk that takes `after` more bytes and then nothing."""
    real = os.write

    def write(handle: int, data: bytes) -> int:
        nonlocal after
        if after <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        took = real(handle, data[:after])
        after -= took
        return took

    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, write if call == "write" else fsync)


@pytest.mark.parametrize(("call", "after"), [("write", 0), ("write", 50), ("fsync", 0)])
def test_a_full_disk_is_said_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: int
) -> None:
    path = tmp_path / "rankings.jsonl"
    before = saved(path, EVENTS[:1])
    with open_store(path) as store:
        with monkeypatch.context() as patched:
            failing(store, patched, call, after)
            with pytest.raises(RunError, match="the disk is full; free some space or set '--out' to another disk"):
                store.append(EVENTS[2])
        assert path.read_bytes() == before and store.events == EVENTS[:1]
        store.append(EVENTS[2])
    assert read_events(path) == [EVENTS[0], EVENTS[2]]


def test_a_torn_line_that_could_not_be_cut_is_cut_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rankings.jsonl"
    with open_store(path) as store:
        with monkeypatch.context() as patched:
            failing(store, patched, "write", 50)
            patched.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
            with pytest.raises(RunError, match="the disk is full"):
                store.append(EVENTS[0])
        assert len(path.read_bytes()) == 50
        store.append(EVENTS[2])
    assert read_events(path) == [EVENTS[2]]


def test_two_processes_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    with open_store(path), pytest.raises(RunError, match="another `llmkit rank` is writing to it"), open_store(path):
        pass
    with open_store(path):
        pass


def test_a_file_that_somebody_else_changes_is_not_written_past(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    with open_store(path) as store:
        store.append(EVENTS[0])
        with path.open("ab") as file:
            file.write(b"{}\n")
        with pytest.raises(RunError, match="was changed by another program"):
            store.append(EVENTS[2])
    path.unlink()
    with open_store(path) as store:
        path.rename(tmp_path / "moved.jsonl")
        with pytest.raises(RunError, match="was changed by another program"):
            store.append(EVENTS[2])


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        read_events(tmp_path / "none.jsonl")
    with pytest.raises(RunError, match="cannot be written"), open_store(tmp_path):
        pass
