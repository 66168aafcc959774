"""`me/model@revision` on the command line, against the loopback Hub: every command takes it, and takes that one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_script import chat_model
from helpers_tasks import PICK
from loopback_hub import LoopbackHub
from safetensors.torch import load as read_tensors
from safetensors.torch import load_file, save

from llmkit.errors import UserError
from llmkit.modeling.load import load_model
from llmkit.stages import chat, eval_command, export, judge_check, serve, show
from llmkit.stages.named import model_of, named
from llmkit.stages.serve_vllm import vllm_argv


@pytest.fixture
def published(hub: LoopbackHub, model_dir: Path, tmp_path: Path) -> dict[str, torch.Tensor]:
    """Tags `run-1` and `run-2` and a branch `tries/new`, each with weights of its own; `embed_tokens` of each."""
    folder = tmp_path / "model"
    folder.mkdir()
    files = {path.name: path.read_bytes() for path in chat_model(model_dir, folder, "chatml").iterdir()}
    weights, found = read_tensors(files["model.safetensors"]), {}
    for number, revision in enumerate(("run-1", "run-2", "tries/new")):
        moved = {name: tensor * (1 + number / 10) for name, tensor in weights.items()}
        found[revision] = moved["model.embed_tokens.weight"]
        own = files | {"model.safetensors": save(moved, metadata={"format": "pt"})}
        if revision.startswith("run"):
            commit = hub.put("me/model", own)
            hub.repo("me/model").tags[revision] = commit
            found[commit] = found[revision]
        else:
            hub.put("me/model", own, branch=revision)
    return found


def embedding(model: Any) -> torch.Tensor:
    return model.get_input_embeddings().weight.detach().cpu()


def test_what_stands_behind_the_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a@b", "me/model", "me/other@v1"):
        Path(folder).mkdir(parents=True)
    assert named("you/model@v1") == ("you/model", "v1")
    assert named("you/model@tries/new@2") == ("you/model", "tries/new@2")
    assert named("gpt2") == ("gpt2", None)
    for path in ("a@b", "me/other@v1", str(tmp_path / "a@b"), "./not@there", "~/not@there", "/not@there"):
        assert named(path) == (path, None), "a path is a path"
    for word, said in {
        "me/model@v1": "'me/model' is a folder here, and only Hub models have revisions; leave '@v1' out",
        "llmkit.tiny:base@v1": "'llmkit.tiny:base' is a folder here",
        "you/model@": "names no revision of a Hub model; write it as me/model@revision",
        "@v1": "names no revision",
    }.items():
        with pytest.raises(UserError) as caught:
            model_of(word, None)
        assert str(caught.value).startswith(f"{word}: {said}")


def test_chat_and_serve_load_what_is_named(hub: LoopbackHub, published: dict[str, torch.Tensor]):
    """Tags, branches and commits."""
    for revision, weights in published.items():
        model, _ = chat.load(f"me/model@{revision}", None)
        assert torch.equal(embedding(model), weights), revision
    newest, _ = chat.load("me/model", None)
    assert torch.equal(embedding(newest), published["run-2"])
    assert not hub.unserved and not hub.leaks()


def test_serve_serves_what_is_named(published: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("starlette")
    hosts: list[Any] = []
    monkeypatch.setattr(serve, "serve", lambda host, *_: hosts.append(host))
    assert serve.main(["me/model@run-1", "--port", "0"]) == 0
    assert torch.equal(embedding(hosts[0].model), published["run-1"]) and hosts[0].name == "model"


def test_serve_tells_vllm_which_one(
    hub: LoopbackHub, published: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from llmkit.stages import serve_vllm

    made: list[list[str]] = []

    def note(*args: Any, **options: Any) -> list[str]:
        made.append(vllm_argv(*args, **options))
        return ["false"]

    monkeypatch.setattr(serve_vllm, "vllm_command", lambda: "vllm")
    monkeypatch.setattr(serve_vllm, "vllm_argv", note)
    assert serve.main(["me/model@run-1", "--engine", "vllm", "--port", "0"]) == 2, "it ends at once"
    assert made[0][:7] == ["vllm", "serve", "me/model", "--revision", "run-1", "--tokenizer-revision", "run-1"]


def test_export_writes_what_is_named(published: dict[str, torch.Tensor], tmp_path: Path):
    for revision in ("run-1", "run-2"):
        out = tmp_path / revision
        assert export.main([f"me/model@{revision}", "--to", "vllm", "--out", str(out)]) == 0
        assert torch.equal(load_file(out / "model.safetensors")["model.embed_tokens.weight"], published[revision])


def test_eval_sets_two_revisions_against_each_other(
    published: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Answers are kept by weights: what is asked anew has other ones."""
    (tmp_path / "data").mkdir()
    (tmp_path / "pick.yaml").write_text(PICK)
    (tmp_path / "data/test.jsonl").write_text("".join(json.dumps({"question": f"{i}?"}) + "\n" for i in range(3)))
    words = ["--tasks", "pick", "--include-path", str(tmp_path), "--data", f"pick={tmp_path / 'data'}", "--json"]
    words += ["--cache", str(tmp_path / "cache")]
    seen = []
    for other in ("run-1", "run-2"):
        assert eval_command.main(["me/model@run-1", "--against", f"me/model@{other}", *words]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["models"] == ["me/model@run-1", f"me/model@{other}"]
        seen.append([requests["asked"] for requests in told["requests"]])
    assert seen == [[6, 0], [0, 6]]


def test_show_and_judge_check_take_it_too(
    hub: LoopbackHub, published: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert show.main(["--tokens", "town", "--model", "me/model@run-1"]) == 0
    assert hub.asked("GET", "^/api/models/me/model/revision/run-1$")
    spec = judge_check.spec_of(judge_check.parser().parse_args(["--judge", "model", "--model", "me/model@run-1"]))
    judge = judge_check.open_the_judge(spec, "me/model@run-1")
    assert torch.equal(embedding(judge._engine._model).float(), published["run-1"])
    both = ["--judge", "model", "--model", "me/model@run-1", "--revision", "run-2"]
    assert judge_check.main(both) == 2
    assert "--revision: 'me/model@run-1' names one, too" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        lambda name, out: chat.main([name, "--prompt", "Hi"]),
        lambda name, out: eval_command.main([name, "--tasks", "arc_easy", "--no-cache"]),
        lambda name, out: export.main([name, "--to", "vllm", "--out", str(out)]),
        lambda name, out: serve.main([name, "--port", "0"]),
        lambda name, out: show.main(["--tokens", "town", "--model", name]),
    ],
    ids=["chat", "eval", "export", "serve", "show"],
)
def test_a_revision_that_is_not_there(
    published: dict[str, torch.Tensor],
    command: Callable[[str, Path], int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    assert command("me/model@run-9", tmp_path / "out") == 2
    said = "error: me/model: the Hub model has no revision 'run-9'; name a branch, a tag or a whole commit id"
    assert capsys.readouterr().err.strip().endswith(f"{said} as its revision")


def test_the_other_side_of_a_comparison(
    published: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "data").mkdir()
    (tmp_path / "pick.yaml").write_text(PICK)
    (tmp_path / "data/test.jsonl").write_text('{"question": "0?"}\n')
    words = ["--tasks", "pick", "--include-path", str(tmp_path), "--data", f"pick={tmp_path / 'data'}", "--no-cache"]
    assert eval_command.main(["me/model@run-1", "--against", "me/model@run-9", *words]) == 2
    assert "the Hub model has no revision 'run-9'" in capsys.readouterr().err


def test_without_a_network_the_cache_holds_both(hub: LoopbackHub, published: dict[str, torch.Tensor]):
    from llmkit.modeling import source

    load_model("me/model", revision="run-1")
    load_model("me/model", revision="run-2")
    for method in ("GET", "HEAD"):
        hub.fail(method, "*", 503, times=999)
    source._on_hub.cache_clear()
    source._adapter_on_hub.cache_clear()
    for revision in ("run-1", "run-2"):
        assert torch.equal(embedding(load_model("me/model", revision=revision)), published[revision])
