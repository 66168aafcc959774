"""`llmkit serve --engine vllm`, before a program that speaks as vLLM's server does."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from helpers_script import chat_model

from llmkit.generation.conversation import Settings
from llmkit.modeling.load import load_tokenizer
from llmkit.stages import serve_vllm
from llmkit.stages.serve import main
from llmkit.stages.serve_vllm import reads_calls, vllm_argv

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def folder(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(model_dir, tmp_path_factory.mktemp("served"), "chatml_tools")


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `vllm` on PATH, and where it notes what happens to it."""
    notes, programs = tmp_path / "notes", tmp_path / "bin"
    notes.mkdir()
    programs.mkdir()
    (notes / "ready").touch()
    (programs / "vllm").write_text(f"#!{sys.executable}\n{(Path(__file__).parent / 'stub_vllm.py').read_text()}")
    (programs / "vllm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STUB_VLLM", str(notes))
    monkeypatch.setenv("LLMKIT_API_KEY", "secret")
    return notes


def until(holds: Callable[[], Any], seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def noted(notes: Path, name: str) -> Any:
    return json.loads(until(lambda: (notes / name).is_file() and (notes / name).read_text()))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Running:
    """The command in a thread of this process. It ends when the stub does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
        urls: list[str] = []
        self.codes: list[int] = []
        monkeypatch.setattr(serve_vllm, "say", lambda url, name: urls.append(url))
        self._thread = threading.Thread(target=lambda: self.codes.append(main([*words, "--port", "0"])))
        self._thread.start()
        self.url = until(lambda: urls or self.codes)[0]

    def client(self, key: str = "secret") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}v1", api_key=key, max_retries=0, timeout=60)

    def end(self) -> int:
        """Exit code, once the stub has died."""
        with pytest.raises(openai.APIError):
            self.client().chat.completions.create(model="tiny", messages=[{"role": "user", "content": "end"}])
        self._thread.join()
        return self.codes[0]


@pytest.fixture
def running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    running = Running(
        monkeypatch, str(folder), "--engine", "vllm", "--name", "tiny", "--vllm-args", "--dtype 'float 32'"
    )
    yield running
    if not running.codes:
        running.end()


def test_the_command(folder: Path) -> None:
    made = vllm_argv("vllm", "/m", "tiny", 8001, reads_calls=True, settings=Settings(temperature=0.5, top_k=20))
    assert made[:3] == ["vllm", "serve", "/m"]
    assert made[3:9] == ["--host", "127.0.0.1", "--port", "8001", "--served-model-name", "tiny"]
    assert made[9:12] == ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    assert made[12:] == ["--override-generation-config", '{"temperature": 0.5, "top_k": 20}']
    made = vllm_argv(
        "vllm", "/m", "t", 1, reads_calls=False, settings=Settings(), max_model_len=512, more=["--dtype", "half"]
    )
    assert "--tool-call-parser" not in made and made[9:11] == ["--max-model-len", "512"]
    assert made[11:] == ["--override-generation-config", '{"temperature": 0.0}', "--dtype", "half"]
    assert reads_calls(load_tokenizer(str(folder)))


def test_only_calls_as_json_are_read(model_dir: Path, tmp_path: Path) -> None:
    for template, reads in (("chatml", False), ("chatml_search", False), ("chatml_tools", True)):
        assert reads_calls(load_tokenizer(str(chat_model(model_dir, tmp_path / template, template)))) is reads


def test_answers_pass_as_they_are_written(running: Running, notes: Path) -> None:
    create = running.client().chat.completions.create
    assert create(model="tiny", messages=HELLO).choices[0].message.content == "You said Hello."
    *_, last = create(model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True})
    assert last.usage.completion_tokens == 3 and last.usage.completion_tokens_details is None
    chunks = list(create(model="tiny", messages=HELLO, stream=True, temperature=0.3, extra_body={"best_of_vllm": 1}))
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["One", " two", " three"]
    body = noted(notes, "body")
    assert body["temperature"] == 0.3 and body["best_of_vllm"] == 1 and body["messages"] == HELLO
    with pytest.raises(openai.NotFoundError, match="`other` does not exist"):
        create(model="other", messages=HELLO)
    started = noted(notes, "started")
    assert started["words"][-2:] == ["--dtype", "float 32"] and started["keys"] == ["VLLM_API_KEY"]


def test_the_page_and_the_gate_are_llmkits(running: Running) -> None:
    page = httpx2.get(running.url)
    assert "<title>" in page.text and "script-src" in page.headers["content-security-policy"]
    about = httpx2.get(running.url + "about", headers={"Authorization": "Bearer secret"}).json()
    assert about == {"context": 321, "tools": [], "reasons": False, "temperature": 0.0, "top_p": 1.0, "model": "tiny"}
    assert [model.id for model in running.client().models.list()] == ["tiny"]
    with pytest.raises(openai.AuthenticationError):
        running.client("wrong").chat.completions.create(model="tiny", messages=HELLO)
    key = {"Authorization": "Bearer secret"}
    assert httpx2.post(running.url + "v1/load_lora_adapter", json={}, headers=key).status_code == 404
    url = running.url + "v1/chat/completions"
    assert httpx2.post(url, content=b"{}", headers=key).status_code == 415
    assert httpx2.post(url, json={}, headers=key | {"Origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize(("text", "stream"), [("on and on", True), ("never", False)])
def test_who_hangs_up_ends_it_there_too(running: Running, notes: Path, text: str, stream: bool) -> None:
    url, key = running.url + "v1/chat/completions", {"Authorization": "Bearer secret"}
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "stream": stream}
    address = httpx2.URL(url)
    client = http.client.HTTPConnection(address.host, address.port, timeout=60)
    client.request("POST", address.path, json.dumps(body), {"Content-Type": "application/json", **key})
    if stream:
        assert client.getresponse().read(10)
    else:
        noted(notes, "body")
    client.close()
    assert noted(notes, "left") is True


def test_its_end_is_the_commands(running: Running, capsys: Any) -> None:
    assert running.end() == 1
    assert "vllm serve: ended by itself with exit code 7" in capsys.readouterr().err


def test_one_that_does_not_start_is_said(folder: Path, capsys: Any) -> None:
    assert main([str(folder), "--engine", "vllm", "--port", "0", "--vllm-args=--fail"]) == 2
    assert "vllm serve: ended with exit code 1 before it answered" in capsys.readouterr().err


def test_it_ends_with_the_command_even_where_that_is_killed(folder: Path, notes: Path) -> None:
    (notes / "ready").unlink()
    words = [sys.executable, "-m", "llmkit.stages.serve", str(folder), "--engine", "vllm", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as command:
        try:
            started = noted(notes, "started")
            noted(notes, "asked")  # it waits for the model to be loaded
            (notes / "ready").touch()
            assert command.stdout is not None
            assert f"{folder.name}: chat at http://127.0.0.1:" in command.stdout.readline()
        finally:
            command.kill()
    until(lambda: is_gone(started["pid"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "vllm", "--tool", "calculator"], "--tool: has no effect with '--engine vllm'"),
        (["--engine", "vllm", "--max-calls", "2"], "--max-calls: has no effect with '--engine vllm'"),
        (["--engine", "vllm", "--max-rows", "2"], "--max-rows: has no effect with '--engine vllm'"),
        (["--vllm-args", "--dtype half"], "--vllm-args: has no effect with '--engine llmkit'"),
        (["--max-model-len", "8"], "--max-model-len: has no effect with '--engine llmkit'"),
        (["--engine", "vllm", "--max-model-len", "0"], "--max-model-len: is 0"),
    ],
)
def test_words_that_do_not_fit(words: list[str], message: str, folder: Path, capsys: Any) -> None:
    assert main([str(folder), *words]) == 2 and message in capsys.readouterr().err


def test_without_vllm_it_is_said(folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([str(folder), "--engine", "vllm"]) == 2
    assert "--engine vllm: there is no command 'vllm'; install vLLM" in capsys.readouterr().err


def test_an_adapter_alone_is_refused(folder: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert main([str(tmp_path / "adapter"), "--engine", "vllm"]) == 2
    assert "is an adapter alone" in capsys.readouterr().err
