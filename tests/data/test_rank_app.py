"""The page's server: who is let in, what it answers, what the command says."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from helpers_rank import decision, rollout_row, write_rollouts
from starlette.testclient import TestClient

from llmkit.data.files import read_file
from llmkit.errors import UserError
from llmkit.preference.page.app import make_app
from llmkit.preference.page.serve import address_file, open_page, read_address, serve
from llmkit.preference.rollouts import item_of
from llmkit.preference.session import Session
from llmkit.preference.store import Store, open_store, read_events
from llmkit.stages.rank_page import main

TOKEN, HOST = "t" * 43, "http://127.0.0.1:8123"
KNOWN = {"X-Llmkit-Token": TOKEN}
ITEMS = [item_of(rollout_row(index), "") for index in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "rankings.jsonl") as store:
        yield store


@pytest.fixture
def client(store: Store) -> TestClient:
    app = make_app(Session(ITEMS, store, 0, 0.0), TOKEN, 8123, "anna", "/here/rankings.jsonl")
    return TestClient(app, base_url=HOST)


def state(client: TestClient, rater: str = "anna") -> dict[str, Any]:
    answer = client.get("/state", params={"rater": rater}, headers=KNOWN)
    assert answer.status_code == 200, answer.text
    return answer.json()


def body(client: TestClient, **of: Any) -> dict[str, Any]:
    given = {"rater": "anna", "id": "0123456789abcdef", "turn": state(client)["turn"]["name"], "seconds": 1}
    return {**given, "groups": [[0], [1], [2], [3], [4]], **of}


def test_the_page_is_one_document_that_may_run_nothing_else(client: TestClient) -> None:
    answer = client.get("/", params={"token": TOKEN})
    assert answer.status_code == 200 and answer.text.count("<script>") == 1 and "http" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "no-referrer"
    assert not any(f' on{event}="' in answer.text for event in ("click", "load", "error", "submit", "keydown"))


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/?token=", {}),
        ("/?token=" + "u" * 43, {}),
        (f"/?token={TOKEN}&token={TOKEN}", {}),
        ("/?token=%ff", {}),
        ("/favicon.ico", {}),
        (f"/state?rater=anna&token={TOKEN}", {}),
        ("/state?rater=anna", {"X-Llmkit-Token": TOKEN[:-1]}),
        ("/state?rater=anna", {"X-Llmkit-Token": "\xff" * 43}),
        ("/state?rater=anna", {**KNOWN, "Host": "evil.example:8123"}),
        ("/state?rater=anna", {**KNOWN, "Host": "127.0.0.1:8124"}),
        ("/state?rater=anna", {**KNOWN, "Host": "127.0.0.1"}),
        ("/state?rater=anna", {**KNOWN, "Origin": "http://evil.example"}),
        ("/state?rater=anna", {**KNOWN, "Origin": "null"}),
        ("/state?rater=anna", {**KNOWN, "Origin": "http://127.0.0.1:9999"}),
        ("/results", {}),
        ("/nothing", {}),
    ],
)
def test_who_is_not_let_in(client: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = client.get(path, headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()])
    assert answer.status_code == 403
    assert answer.text == "refused: open the address that `llmkit rank` printed\n"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("headers", [{}, {**KNOWN, "Origin": "http://evil.example"}, {**KNOWN, "Host": "evil"}])
def test_who_may_not_decide(client: TestClient, store: Store, headers: dict[str, str]) -> None:
    assert client.post("/decide", json=body(client), headers=headers).status_code == 403
    assert client.post(f"/decide?token={TOKEN}", json=body(client)).status_code == 403
    assert client.options("/decide", headers={"Origin": "http://evil.example"}).status_code == 403
    assert store.events == []


def test_its_own_page_may(client: TestClient, store: Store) -> None:
    for host in ("127.0.0.1:8123", "localhost:8123"):
        headers = {**KNOWN, "Host": host, "Origin": f"http://{host}"}
        assert client.post("/decide", json=body(client, id=host.encode().hex()), headers=headers).status_code == 200
    assert len(store.events) == 2


@pytest.mark.parametrize(
    ("sent", "headers", "status", "message"),
    [
        (b"{", {}, 400, "Invalid JSON"),
        (b"[]", {}, 400, "object"),
        (b"\xff\xfe", {}, 400, "Invalid JSON"),
        (b"{" * 60_000, {}, 400, ""),
        (b" " * 65_537, {}, 413, "more than 65536 bytes"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "send application/json"),
        ({"seconds": "NaN"}, {}, 400, "seconds"),
        ({"seconds": -1}, {}, 400, "seconds"),
        ({"rater": "\x00"}, {}, 400, "is no name"),
        ({"id": "../../x"}, {}, 400, "id"),
        ({"more": 1}, {}, 400, "more"),
        ({"flagged": "x" * 501}, {}, 400, "flagged"),
        ({"groups": [[0], [1]]}, {}, 400, "leaves completions without a rank: 2, 3, 4"),
        ({"groups": [[10**30]]}, {}, 400, ""),
        ({"turn": "none"}, {}, 409, "have changed"),
    ],
)
def test_bad_posts(client: TestClient, store: Store, sent: Any, headers: dict, status: int, message: str) -> None:
    data = sent if isinstance(sent, bytes) else json.dumps({**body(client), **sent}).encode()
    given = {"Content-Type": "application/json", **KNOWN, **headers}
    answer = client.post("/decide", content=data, headers=given)
    assert answer.status_code == status and message in answer.json()["message"] and store.events == []


def test_a_late_window_gets_the_state_that_counts(client: TestClient) -> None:
    early = body(client)
    assert client.post("/decide", json=early, headers=KNOWN).status_code == 200
    assert client.post("/decide", json=early, headers=KNOWN).status_code == 200  # sent again: saved once
    late = client.post("/decide", json={**early, "id": "f" * 16}, headers=KNOWN)
    assert late.status_code == 409 and late.json()["state"] == state(client)
    assert late.json()["state"]["progress"]["done"] == 1
    undone = client.post("/undo", json={"rater": "anna", "id": early["id"]}, headers=KNOWN)
    assert undone.json()["draft"] == early["groups"] and state(client)["progress"]["done"] == 0


def test_a_full_disk_is_told_and_the_same_decision_can_be_sent_again(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = body(client)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        answer = client.post("/decide", json=sent, headers=KNOWN)
    assert answer.status_code == 507 and "the disk is full; free some space" in answer.json()["message"]
    assert state(client)["progress"]["done"] == 0
    assert client.post("/decide", json=sent, headers=KNOWN).status_code == 200 and len(store.events) == 1


def test_hostile_text_is_sent_as_visible_text(store: Store) -> None:
    texts = ("<script>x</script>", "a\u202eb\x00c\x1b[31m\ud800", "y" * 1_000_000)
    client = TestClient(
        make_app(Session([item_of(rollout_row(0, texts=texts), "")], store, 0, 0), TOKEN, 8123, "a", "n"), HOST
    )
    answers = sorted(state(client)["turn"]["answers"])
    assert answers[:2] == ["<script>x</script>", "a\ufffdb\u2400c\u241b[31m?"] and len(answers[2]) == 1_000_000


def test_a_name_cannot_leave_its_attribute(store: Store) -> None:
    name = '"><script>x</script>'
    app = make_app(Session(ITEMS, store, 0, 0), TOKEN, 8123, name, name)
    text = TestClient(app, HOST).get("/", params={"token": TOKEN}).text
    assert text.count("<script>") == 1 and text.count("&#34;&gt;&lt;script&gt;") == 2


def test_port_and_token_are_kept_for_their_owner(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    urls: list[str] = []
    for _ in range(2):
        serve(Session(ITEMS, store, 0, 0), store.path, "Zoë B", None, urls.append)
    assert urls[0] == urls[1] and urls[0].endswith("&rater=Zo%C3%AB%20B")
    kept = read_address(store.path)
    assert kept is not None and len(kept.token) == 43 and kept.url("Zoë B") == urls[0]
    assert address_file(store.path).stat().st_mode & 0o777 == 0o600
    # another program has the port now: an open page may have shown it the token
    import socket

    with socket.create_server(("127.0.0.1", kept.port)):
        with pytest.raises(UserError, match=f"--port {kept.port}: cannot be used .*, and a page that is still open"):
            serve(Session(ITEMS, store, 0, 0), store.path, "Zoë B", None, urls.append)
        serve(Session(ITEMS, store, 0, 0), store.path, "Zoë B", 0, urls.append)
        moved = read_address(store.path)
        assert moved is not None and moved.port != kept.port and moved.token != kept.token
        with pytest.raises(UserError, match=f"--port {kept.port}: cannot be used"):
            serve(Session(ITEMS, store, 0, 0), store.path, "Zoë B", kept.port, urls.append)
    for broken in ("{", "[]", '{"port": "x", "token": 1}', '{"port": 99999999, "token": "' + "t" * 43 + '"}'):
        address_file(store.path).write_text(broken)
        assert read_address(store.path) is None


def test_a_browser_is_sent_by_a_file_that_others_cannot_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: queue.Queue[str] = queue.Queue()
    waited: queue.Queue[bool] = queue.Queue()
    closed = threading.Event()

    def browse(url: str) -> None:
        """One on the terminal: until it is closed nothing goes on."""
        asked.put(url)
        waited.put(closed.wait(3))

    def run(self: Any, sockets: list[Any]) -> None:
        found.append(asked.get(timeout=10))
        path = Path(unquote(urlsplit(found[0]).path))
        assert found[0].startswith("file:///") and path.stat().st_mode & 0o777 == 0o600
        found.extend((path.read_text(), str(path)))
        closed.set()

    monkeypatch.setattr("webbrowser.open", browse)
    monkeypatch.setattr("uvicorn.Server.run", run)
    found: list[str] = []
    urls: list[str] = []
    serve(
        Session(ITEMS, store, 0, 0), store.path, "Zoë B", 0, lambda url: (urls.append(url), open_page(store.path, url))
    )
    assert waited.get(timeout=10) and read_address(store.path).token not in found[0]
    assert f'0; url={escape(urls[0])}"' in found[1] and not Path(found[2]).exists()


def test_who_has_no_name_here_is_asked_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rollouts(tmp_path / "rollouts.jsonl", [rollout_row(0)])
    for error in (KeyError("uid not found: 1234"), OSError("No username set in the environment")):
        monkeypatch.setattr("getpass.getuser", lambda error=error: (_ for _ in ()).throw(error))
        assert main([str(tmp_path), "--no-browser"]) == 2
        assert "--rater: you have no name on this machine; say who ranks" in capsys.readouterr().err


def test_rollouts_that_cannot_be_ranked_leave_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rollouts(tmp_path / "rollouts.jsonl", [{}])
    assert main([str(tmp_path), "--no-browser"]) == 2 and "has no completions" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rollouts(tmp_path / "rollouts.jsonl", [rollout_row(index) for index in range(3)])
    out, to = tmp_path / "rankings.jsonl", tmp_path / "preferences.jsonl"
    words = ["export", str(tmp_path), "--to", str(to)]
    assert main(words) == 2 and "rank some items first" in capsys.readouterr().err
    with open_store(out) as store:
        store.append(decision(ITEMS[0], [], skipped=True))
        assert main(words) == 2 and "holds no ranking that makes a pair (1 skipped)" in capsys.readouterr().err
        store.append(decision(ITEMS[1], ["c0", "c1 c2 c3 c4"]))
        store.append(decision(ITEMS[1], ["c4", "c0", "c1 c2", "c3"], "ben"))
        assert main(words) == 0  # while a page is served
    said = capsys.readouterr().out
    assert "preferences.jsonl: 13 pairs of 1 prompts by anna, ben\nleft out: 7 tied pairs, 1 skipped\n" in said
    rows = [raw.value for raw in read_file(to)]
    assert len(rows) == 13 and rows[0]["prompt"] == ITEMS[1].prompt and rows[0]["rank_gap"] == 1
    assert main([*words[:3], str(out)]) == 2 and "is a file that is read here" in capsys.readouterr().err
    assert len(read_events(out)) == 3
    for folder in (".", "/", str(tmp_path)):
        assert main([*words[:3], folder]) == 2 and "is a folder; name a file in it: `--to " in capsys.readouterr().err
    assert main([*words[:3], str(out / "to")]) == 2 and "set another '--to'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "missing: no such file; give a rollouts.jsonl"),
        ([".", "--repeat", "2"], "--repeat: is 2; give a share from 0 to 1"),
        ([".", "--port", "70000"], "--port: is 70000"),
        ([".", "--rater", " "], "rater: is no name"),
    ],
)
def test_words_that_do_not_fit(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rollouts(tmp_path / "rollouts.jsonl", [rollout_row(0)])
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2 and message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["rollouts.jsonl"]


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rollouts(tmp_path / "rollouts.jsonl", [rollout_row(0)])
    monkeypatch.setattr("llmkit.stages.rank_page.find_spec", lambda name: None if name == "uvicorn" else object())
    assert main([str(tmp_path)]) == 2 and 'pip install "llmkit[ui]"' in capsys.readouterr().err


def test_ranking_loads_no_model_library() -> None:
    code = (
        "import sys, llmkit.stages.rank_page, llmkit.preference.page.serve; "
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'scipy', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
