"""Publishing to the loopback Hub: what goes up comes back, faults publish nothing by half, no token leaks."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from helpers_hub import ROWS, finished_run, ready, small_folder, spec
from huggingface_hub import HfApi, ModelCard, snapshot_download
from loopback_hub import LoopbackHub
from safetensors import safe_open

from llmkit.artifacts.files import read_json, write_json
from llmkit.artifacts.rundir import RunDir
from llmkit.artifacts.stagefile import StageFile, write_stage_file
from llmkit.errors import RunError
from llmkit.hub.adapter import scratch_in
from llmkit.hub.push import Ready, send
from llmkit.hub.remote import MARKER
from llmkit.report.build import build_report
from llmkit.stages import push_command
from llmkit.stages.common import main as worker
from llmkit.stages.push import run as push
from llmkit.stages.push_command import main

ROOT = Path(__file__).resolve().parents[2]
MODEL, DATA = ("me/assistant", "model"), ("me/assistant-data", "dataset")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return finished_run(tmp_path, small_folder(tmp_path / "small"))


def expected(made: Ready) -> dict[str, dict[str, str]]:
    return {package.repo_id: {item.path: item.sha256 for item in package.items} for package in made.packages}


def published(hub: LoopbackHub, revision: str = "main") -> dict[str, dict[str, str]]:
    """Hashes of what everybody can fetch, without what a Hub adds itself."""
    found = {}
    for repo_id, kind in (MODEL, DATA):
        if (kind, repo_id) not in hub.repos or len(hub.repo(repo_id, kind).commits) < 2:
            continue
        files = hub.files(repo_id, revision, kind)
        found[repo_id] = {p: hashlib.sha256(data).hexdigest() for p, data in files.items() if p != ".gitattributes"}
    return found


def test_what_goes_up_comes_back(hub: LoopbackHub, run: RunDir, tmp_path: Path):
    made = ready(run, tmp_path / "scratch")

    done = send(made.packages, spec())

    assert published(hub) == expected(made)
    for package, one in zip(made.packages, done, strict=True):
        repo = hub.repo(package.repo_id, package.repo_type)
        assert repo.private and len(repo.commits) == 2
        assert repo.tags == {package.tag: repo.branches["main"]} == {one.tag: one.commit}
        folder = snapshot_download(package.repo_id, repo_type=package.repo_type, revision=package.tag)
        fetched = {
            item.path: hashlib.sha256((Path(folder) / item.path).read_bytes()).hexdigest() for item in package.items
        }
        assert fetched == expected(made)[package.repo_id]
    config = {"idk": ("04-idk", "train"), "idk-pairs": ("04-idk", "pairs"), "rolls": ("05-rolls", "rollouts")}
    for name, (stage, file) in config.items():
        assert list(datasets.load_dataset(DATA[0], name, split="train")) == ROWS[stage][file]
    assert not hub.unserved and not hub.leaks()


def test_rankings_go_up_as_a_data_set_that_trl_reads(hub: LoopbackHub, run: RunDir):
    """The command of docs/ranking.md."""
    assert main([str(run.path), "--repo-id", MODEL[0]]) == 0
    ranked = ROWS["06-ranks"]
    assert list(datasets.load_dataset(DATA[0], "ranks", split="train")) == ranked["train"]
    pairs = list(datasets.load_dataset(DATA[0], "ranks-pairs", split="train"))
    assert pairs == [row | {"rater": f"rater-{place}"} for place, row in enumerate(ranked["pairs"], start=1)]
    assert all(isinstance(row[side], list) for row in pairs for side in ("prompt", "chosen", "rejected"))
    assert not hub.leaks()


def test_a_repeat_sends_nothing(hub: LoopbackHub, run: RunDir, tmp_path: Path):
    made = ready(run, tmp_path / "scratch")
    first = send(made.packages, spec())
    before = len(hub.requests)

    assert send(made.packages, spec()) == first
    assert {request.method for request in hub.requests[before:]} == {"GET"}


def test_another_push_takes_away_what_the_first_put_there(hub: LoopbackHub, run: RunDir, tmp_path: Path):
    send(ready(run, tmp_path / "scratch").packages, spec())
    hub.put(MODEL[0], {"picture.png": b"mine"} | hub.files(MODEL[0]))
    (run.path / "02-sft/model/model.safetensors").rename(run.path / "02-sft/model/model-00001-of-00001.safetensors")
    made = ready(run, tmp_path / "scratch")

    send(made.packages, spec())

    files = published(hub)[MODEL[0]]
    assert files.pop("picture.png")
    assert files == expected(made)[MODEL[0]] and "model.safetensors" not in files
    assert len(hub.repo(MODEL[0]).tags) == 2


def test_what_others_put_there_is_kept_unless_told(hub: LoopbackHub, run: RunDir, tmp_path: Path):
    made = ready(run, tmp_path / "scratch")
    hub.put(MODEL[0], {"pytorch_model.bin": b"theirs"}, private=True)
    with pytest.raises(RunError, match=r"did not put there \(pytorch_model.bin\)"):
        send(made.packages, spec())
    assert DATA[1:] + DATA[:1] not in hub.repos, "nothing is sent before all is checked"

    send(made.packages, spec(), overwrite=True)
    assert published(hub) == expected(made)

    hub.put(MODEL[0], hub.files(MODEL[0]) | {"README.md": b"---\nlicense: mit\n---\nwritten by hand"})
    with pytest.raises(RunError, match=r"README.md was put there or changed by others"):
        send(made.packages, spec())


def test_a_repository_must_be_as_the_recipe_says(hub: LoopbackHub, run: RunDir, tmp_path: Path):
    made = ready(run, tmp_path / "scratch")
    hub.put(MODEL[0], {}, private=False)
    with pytest.raises(RunError, match="is public on the Hub, and is to be private"):
        send(made.packages, spec())
    send(made.packages, spec(private=False))
    assert not hub.repo(*DATA).private


def test_branch_and_tag_of_ones_own(hub: LoopbackHub, run: RunDir, tmp_path: Path):
    own = spec(revision="try", tag="v1")
    made = ready(run, tmp_path / "scratch", own)
    send(made.packages, own)
    assert published(hub, "try") == expected(made) == published(hub, "v1")
    assert MARKER not in hub.files(MODEL[0], "main")
    send(made.packages, own)

    (run.path / "02-sft/model/generation_config.json").write_text("{}")
    with pytest.raises(RunError, match="already has a tag 'v1'"):
        send(ready(run, tmp_path / "scratch", own).packages, own)


COMMIT, MODEL_COMMIT = "*/commit/*", "/api/models/*/commit/*"
BATCH, STORED = "*/info/lfs/objects/batch", "/storage/*"
FAULTS = [
    ("POST", "/api/repos/create", 500),
    ("POST", "/api/repos/create", "drop before"),
    ("POST", "/api/repos/create", "drop after"),
    ("POST", "*/preupload/*", 500),
    ("POST", "*/preupload/*", "cut answer"),
    ("POST", BATCH, 503),
    ("POST", BATCH, "drop before"),
    ("PUT", STORED, 500),
    ("PUT", STORED, "drop before"),
    ("PUT", STORED, "drop after"),
    ("PUT", STORED, "cut request"),
    ("PUT", STORED, "corrupt request"),
    ("POST", COMMIT, 500),
    ("POST", COMMIT, 409),
    ("POST", COMMIT, "drop before"),
    ("POST", COMMIT, "drop after"),
    ("POST", COMMIT, "cut request"),
    ("POST", COMMIT, "cut answer"),
    ("POST", MODEL_COMMIT, 429),
    ("POST", MODEL_COMMIT, "drop after"),
    ("POST", "*/tag/*", 500),
    ("POST", "*/tag/*", "drop after"),
    ("GET", "*/refs", 500),
    ("GET", "/api/models/*", "cut answer"),
]


@pytest.mark.parametrize("times", [1, 50])
def test_no_fault_publishes_by_half_and_a_repeat_finishes(
    hub: LoopbackHub, waits: list[float], run: RunDir, tmp_path: Path, times: int
):
    """One fault that the client outlives, or so many that it gives up."""
    made = ready(run, tmp_path / "scratch")
    struck, gave_up = 0, 0
    for method, path, what in FAULTS:
        hub.repos.clear()
        fault = hub.fail(method, path, what, times=times)
        try:
            send(made.packages, spec())
        except RunError as error:
            gave_up += 1
            assert str(error).count("\n") == 0 and hub.token not in str(error), error
        struck += fault.done > 0
        for repo_id, files in published(hub).items():
            assert files == expected(made)[repo_id], (method, path, what)
        for repo_id, kind in (MODEL, DATA):
            if (kind, repo_id) in hub.repos:
                repo = hub.repo(repo_id, kind)
                assert {repo.branches["main"]} >= {*repo.tags.values()}, (method, path, what)
        hub.plan.faults.clear()

        send(made.packages, spec())

        assert published(hub) == expected(made), (method, path, what)
        assert all(len(hub.repo(*one).commits) == 2 and len(hub.repo(*one).tags) == 1 for one in (MODEL, DATA))
    assert struck == len(FAULTS) and gave_up >= (len(FAULTS) - 3 if times > 1 else 0)
    assert not hub.leaks()


def test_weights_that_were_sent_are_not_sent_again(hub: LoopbackHub, waits: list[float], run: RunDir, tmp_path: Path):
    made = ready(run, tmp_path / "scratch")
    hub.fail("POST", MODEL_COMMIT, 500, times=50)
    with pytest.raises(RunError, match="status 500"):
        send(made.packages, spec())
    sent = len(hub.asked("PUT", "^/storage/"))
    hub.plan.faults.clear()
    send(made.packages, spec())
    assert sent and len(hub.asked("PUT", "^/storage/")) == sent


def test_what_comes_out_wrong_is_seen_and_put_right(
    hub: LoopbackHub, run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A commit holds small files itself: one that was changed on its way is sent again before a tag names it."""
    made, changed = ready(run, tmp_path / "scratch"), damage_once(monkeypatch)
    send(made.packages, spec())
    repo = hub.repo(MODEL[0])
    assert changed and published(hub) == expected(made) and len(repo.commits) == 3
    assert {*repo.tags.values()} == {repo.branches["main"]}


def damage_once(patch: pytest.MonkeyPatch, then: Callable[[], object] = list) -> list[str]:
    """The first commit of a recipe holds another one. `then`: what happens once it is made."""
    commit, changed = HfApi.create_commit, []

    def damaged(api: HfApi, repo_id: str, operations: list, **options: object):
        found = [] if changed else [one for one in operations if one.path_in_repo == "recipe.yaml"]
        for one in found:
            changed.append(one.path_in_repo)
            one.path_or_fileobj = one.path_or_fileobj.replace(b"seed: 42", b"seed: 43")
        made = commit(api, repo_id, operations, **options)
        if found:
            then()
        return made

    patch.setattr(HfApi, "create_commit", damaged)
    return changed


def test_what_others_change_between_two_attempts_is_kept(
    hub: LoopbackHub, run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    theirs = b"---\nlicense: mit\n---\nwritten by hand"
    damage_once(monkeypatch, lambda: hub.put(MODEL[0], {"README.md": theirs}))
    with pytest.raises(RunError, match=r"README.md.* was put there or changed by others"):
        send(ready(run, tmp_path / "scratch").packages, spec())
    assert hub.files(MODEL[0])["README.md"] == theirs and not hub.repo(MODEL[0]).tags


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "does not accept the token.*hf auth login"),
        (403, "does not let this token write there.*role 'write'"),
        (404, "has no such repository"),
        (409, "changed by someone else at the same time.*run the same command again"),
        (413, "too large"),
        (429, "asks for fewer requests.*wait"),
        (500, "the Hub failed.*run the same command again"),
    ],
)
def test_what_the_hub_refuses_is_told_with_its_cure(
    hub: LoopbackHub, waits: list[float], run: RunDir, tmp_path: Path, status: int, said: str
):
    """Also where the Hub's own words hold the token."""
    hub.fail("POST", COMMIT, status, times=50, message=f"no, {hub.token} may not")
    with pytest.raises(RunError, match=said) as caught:
        send(ready(run, tmp_path / "scratch").packages, spec())
    assert hub.token not in str(caught.value) and hub.token not in str(caught.value.__cause__)
    assert published(hub) == {}


def test_who_may_not_write_is_told(hub: LoopbackHub, run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = ready(run, tmp_path / "scratch")
    for token, said in (("hf_nobodysTokenAtAll", "does not accept the token"), (hub.reader, "does not let this token")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(RunError, match=said) as caught:
            send(made.packages, spec())
        assert token not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RunError, match="nobody is logged in"):
        send(made.packages, spec())
    assert not hub.repos


def test_without_a_network(run: RunDir, tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, waits):
    from huggingface_hub import constants

    made = ready(run, tmp_path / "scratch")
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(RunError, match="unset HF_HUB_OFFLINE"):
            send(made.packages, spec())
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"the Hub cannot be reached.*check the network"):
        send(made.packages, spec())


def test_the_command(hub: LoopbackHub, run: RunDir, capsys: pytest.CaptureFixture[str]):
    assert main([str(run.path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    for expected_words in (
        "model me/assistant (private)",
        "model.safetensors",
        "report.html",
        "# me/assistant",
        "lines of metadata for the Hub",
    ):
        assert expected_words in said, expected_words
    assert said.startswith("publishing the model of stage 'sft'\ndry run: nothing is sent\n")
    summary = said.partition("\n\n")[0].partition("\n")[2]
    assert "licence: apache-2.0" in summary and "bars: none" in summary and said.rstrip().endswith(summary)
    assert "model-index" not in said
    assert main([str(run.path), "--dry-run", "--metadata"]) == 0
    assert "model-index" in capsys.readouterr().out
    assert not hub.repos and {request.method for request in hub.requests} <= {"GET"}

    assert main([str(run.path), "--repo-id", "me/other", "--public", "--no-datasets", "--tag", "v2"]) == 0
    assert "published" in capsys.readouterr().out
    assert not hub.repo("me/other").private and {*hub.repo("me/other").tags} == {"v2"}
    assert "report.html" in hub.files("me/other") and ("dataset", "me/other-data") not in hub.repos

    assert main([str(run.path), "--license", " "]) == 2
    assert "license: is blank" in capsys.readouterr().err
    assert main([str(run.path), "--repo-id", "nobody"]) == 2
    assert "is no repository" in capsys.readouterr().err
    assert main([str(run.path / "nothing")]) == 2


def test_the_stage_leaves_what_it_published_and_no_token(
    hub: LoopbackHub, run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    told = {"name": "publish", "kind": "push", "from": "sft", "hub": spec(report=True), "seed": 1}
    stage = run.stage(7, "publish")
    file = {"run": {"name": "assistant"}, "model": {}, "stage": told, "stage_dir": str(stage.path), "fingerprint": "p"}
    path = write_stage_file(
        StageFile.model_validate(
            file | {"parent": str(run.path / "02-sft"), "input_model": str(run.path / "02-sft/model")}
        )
    )
    monkeypatch.setattr(sys, "argv", ["push", str(path)])

    worker("push", push)

    made = stage.manifest()
    assert made is not None and [one.repo_id for one in made.published] == [DATA[0], MODEL[0]]
    assert made.published[1].commit == hub.repo(MODEL[0]).branches["main"]
    assert "publish" not in hub.files(MODEL[0])["report.md"].decode().replace("published", "")
    assert published(hub)[MODEL[0]].keys() >= {
        "report.html",
        "recipe.yaml",
        "manifests/02-sft.json",
        "model.safetensors",
    }
    told_in_report = build_report(run).with_suffix(".md").read_text()
    assert (
        f"Published {DATA[0]} at {made.published[0].tag} and {MODEL[0]} at {made.published[1].tag}." in told_in_report
    )
    left = "".join(file.read_text(errors="replace") for file in stage.path.rglob("*") if file.is_file())
    said = capsys.readouterr()
    assert hub.token not in left + said.out + said.err


def test_bars_of_the_recipe_hold_for_the_command(hub: LoopbackHub, run: RunDir, capsys: pytest.CaptureFixture[str]):
    run.recipe.write_text(run.recipe.read_text() + "ship: {facts_known.accuracy: '>= 0.95'}\n")
    assert main([str(run.path)]) == 2
    assert "facts_known.accuracy is 0.9" in capsys.readouterr().err and not hub.repos
    assert main([str(run.path), "--despite-bars"]) == 0
    assert "published below the bars" in hub.files(MODEL[0])["README.md"].decode()


PUSHES = """\
  - {name: publish, kind: push, from: sft, hub: {repo_id: me/own}, ship: {facts_known: {accuracy: '>= 0.95'}}}
  - {name: again, kind: push, from: publish, MORE}
evals:"""


@pytest.mark.parametrize(
    ("more", "words", "said"),
    [
        ("hub: {repo_id: me/own}, ship: {facts_known: {accuracy: '>= 0.95'}}", [], "accuracy is 0.9.*bar is >= 0.95"),
        ("hub: {repo_id: me/own}", [], r"several stages .*'publish' \(model of 'sft'\), 'again'.*--stage publish"),
        ("hub: {repo_id: me/own}", ["--stage", "sft"], "several stages of the recipe push"),
        ("hub: {repo_id: me/own}", ["--stage", "publish"], "accuracy is 0.9"),
        ("overwrite: true", ["--stage", "again"], "me/assistant"),
        ("hub: {repo_id: me/other}", ["--stage", "again", "--tag", "v1"], "me/other at 'v1'"),
    ],
)
def test_the_command_does_what_the_recipes_own_stage_says(
    hub: LoopbackHub, run: RunDir, more: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    run.recipe.write_text(run.recipe.read_text().replace("evals:", PUSHES.replace("MORE", more), 1))
    hub.put("me/assistant", {"theirs.bin": b"1"}, private=True)
    published = main([str(run.path), *words]) == 0
    found = capsys.readouterr()
    assert re.search(said, found.out if published else found.err), found
    assert published == (words[1:2] == ["again"])
    assert {repo_id for _, repo_id in hub.repos} >= ({"me/other"} if "other" in said else set())
    assert ("model", "me/own") not in hub.repos


def snippets(card: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(python|bash)\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)


def test_every_snippet_of_a_card_runs(
    hub: LoopbackHub,
    tmp_path: Path,
    model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """The `hub` fixture's environment goes to the commands, too."""
    made = ready(finished_run(tmp_path, model_dir), tmp_path / "scratch")
    send(made.packages, spec())
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = []
    for repo_id, kind in (DATA, MODEL):
        for language, code in snippets(hub.files(repo_id, kind=kind)["README.md"].decode()):
            if language == "python":
                exec(compile(code, repo_id, "exec"), {})
            else:
                subprocess.run(["bash", "-ec", code], cwd=folder, env=env, check=True, capture_output=True, timeout=250)
            ran.append(language)
    assert ran == ["python", "python", "bash", "bash"]
    assert (folder / "recipe.yaml").is_file() and "messages" in capsys.readouterr().out
    assert ModelCard.load(MODEL[0]).data.model_name == "assistant"
    assert not hub.leaks()


def adapter_of(run: RunDir, base: str, model_dir: Path) -> Path:
    """Turns the stage's model into a LoRA adapter on `base`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stage = run.path / "02-sft"
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model_dir),
        LoraConfig(target_modules="all-linear", init_lora_weights=False),
    )
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(stage / "adapter")
    AutoTokenizer.from_pretrained(stage / "model").save_pretrained(stage / "adapter")
    shutil.rmtree(stage / "model")
    changes = {"model_dir": None, "adapter_dir": "adapter"}
    write_json(stage / "manifest.json", read_json(stage / "manifest.json") | changes)
    return stage / "adapter"


def test_an_adapter_goes_up_as_it_is_or_merged(hub: LoopbackHub, tmp_path: Path, model_dir: Path):
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    run = finished_run(tmp_path, model_dir)
    hub.put("me/base", {path.name: path.read_bytes() for path in model_dir.iterdir()})
    folder = adapter_of(run, "me/base", model_dir)
    ids = torch.tensor([[5, 6, 7, 8]])
    wanted = AutoPeftModelForCausalLM.from_pretrained(folder)(ids).logits

    made = ready(run, tmp_path / "scratch")
    send(made.packages, spec())
    assert {"adapter_model.safetensors", "adapter_config.json"} <= hub.files(MODEL[0]).keys()
    (code,) = (code for language, code in snippets(hub.files(MODEL[0])["README.md"].decode()) if language == "python")
    exec(compile(code, "card", "exec"), {})

    own = spec(repo_id="me/merged", merged=True)
    send(ready(run, tmp_path / "scratch", own).packages, own)
    merged = AutoModelForCausalLM.from_pretrained("me/merged")
    assert torch.allclose(merged(ids).logits, wanted, atol=1e-4)
    assert "adapter_config.json" not in hub.files("me/merged")


def test_a_merged_model_is_stored_as_its_base_is(tmp_path: Path, model_dir: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, base = finished_run(tmp_path, model_dir), tmp_path / "halves"
    AutoModelForCausalLM.from_pretrained(model_dir, dtype="bfloat16").save_pretrained(base)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(base)
    adapter_of(run, str(base), model_dir)
    with scratch_in(run.path) as scratch:
        made = ready(run, scratch, spec(merged=True))
        (weights,) = (item.content for item in made.packages[-1].items if item.path == "model.safetensors")
        assert weights.parent == scratch
        with safe_open(weights, framework="pt") as tensors:
            assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"BF16"}  # noqa: SIM118
    assert not scratch.exists()


def test_room_to_merge_is_beside_the_run_and_gone_on_every_way_out(run: RunDir, monkeypatch: pytest.MonkeyPatch):
    def stop(subject: object, hub: object, bars: object, scratch: Path, **options: object):
        seen.append(scratch)
        (scratch / "deep").mkdir(parents=True)
        ways[len(seen) - 1]()

    def fail():
        raise RunError("x", "y", "z")

    seen: list[Path] = []
    ways = [fail, lambda: signal.raise_signal(signal.SIGINT), lambda: signal.raise_signal(signal.SIGTERM)]
    monkeypatch.setattr(push_command, "prepare", stop)
    before = signal.getsignal(signal.SIGTERM)
    assert (main([str(run.path)]), main([str(run.path)])) == (RunError.exit_code, 130)
    with pytest.raises(SystemExit, match="143"):
        main([str(run.path)])
    assert {path.parent for path in seen} == {run.path} and not any(path.exists() for path in seen)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_snippet_of_a_model_without_a_template_runs(hub: LoopbackHub, tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    (run.path / "02-sft/model/chat_template.jinja").unlink()
    own = spec(datasets=False)
    send(ready(run, tmp_path / "scratch", own).packages, own)
    found = snippets(hub.files(MODEL[0])["README.md"].decode())
    assert [language for language, _ in found] == ["python", "bash"] and "Once upon a time" in found[0][1]
    exec(compile(found[0][1], "card", "exec"), {})
