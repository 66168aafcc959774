"""The loopback Hub through the real client: what is pushed comes back, and faults publish nothing by half."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import datasets
import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, ModelCardData, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from loopback_hub import LoopbackHub
from loopback_hub.__main__ import main as serve
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS = [
    {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "Yes."}]} for i in range(7)
]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
WEIGHTS = bytes(range(256)) * 40
CONTENTS = {"config.json": b"{}", "a.bin": WEIGHTS, "below/b.bin": WEIGHTS[::-1]}


def operations(contents: dict[str, bytes] = CONTENTS) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(path, data) for path, data in contents.items()]


def push(contents: dict[str, bytes] = CONTENTS, **options: str) -> str:
    """All in one commit; its id."""
    done = HfApi().create_commit("me/model", operations(contents), commit_message="push", **options)
    return done.oid


def test_a_pushed_model_loads_by_its_id(hub: LoopbackHub, model_dir: Path):
    HfApi().create_repo("me/model", private=True)
    HfApi().upload_folder(repo_id="me/model", folder_path=model_dir)

    model = AutoModelForCausalLM.from_pretrained("me/model")
    there = AutoModelForCausalLM.from_pretrained(model_dir)

    assert len(hub.repo("me/model").commits) == 2, "the first is the Hub's own"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), there.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained("me/model").get_vocab() == AutoTokenizer.from_pretrained(model_dir).get_vocab()
    assert hub.repo("me/model").commit_of("main").files["model.safetensors"].sha256
    assert not hub.unserved and not hub.leaks()


def test_a_data_set_loads_by_its_id(hub: LoopbackHub):
    HfApi().create_repo("me/chats", repo_type="dataset")
    HfApi().upload_file(repo_id="me/chats", repo_type="dataset", path_in_repo="train.jsonl", path_or_fileobj=JSONL)
    assert list(datasets.load_dataset("me/chats", split="train")) == ROWS
    datasets.Dataset.from_list(ROWS).push_to_hub("me/parquet")
    assert list(datasets.load_dataset("me/parquet", split="train")) == ROWS
    assert not hub.unserved and not hub.leaks()


def test_another_process_asks_the_same_hub(hub: LoopbackHub, tmp_path: Path):
    hub.put("me/model", CONTENTS, private=True)
    code = "import huggingface_hub as h; print(h.whoami()['name'], h.hf_hub_download('me/model', 'a.bin'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, path = done.stdout.split()
    assert name == "me" and Path(path).is_relative_to(tmp_path) and Path(path).read_bytes() == WEIGHTS


def test_revisions_branches_and_tags(hub: LoopbackHub, tmp_path: Path):
    api = HfApi()
    api.create_repo("me/model")
    assert api.create_repo("me/model", exist_ok=True).repo_id == "me/model"
    first = push()
    api.create_tag("me/model", tag="v1")
    api.create_branch("me/model", branch="next/one", revision="v1")
    second = push({"a.bin": b"\0new"}, revision="next/one")
    for revision, data in (("v1", WEIGHTS), (first, WEIGHTS), ("next/one", b"\0new"), (second, b"\0new")):
        folder = Path(snapshot_download("me/model", revision=revision))
        assert (folder / "a.bin").read_bytes() == data and (folder / "below" / "b.bin").is_file()
    refs = api.list_repo_refs("me/model")
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "next/one": second}
    assert [ref.name for ref in refs.tags] == ["v1"]
    assert [commit.commit_id for commit in api.list_repo_commits("me/model", revision="next/one")][:2] == [
        second,
        first,
    ]
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("me/model", "a.bin", revision="v2")
    with pytest.raises(HfHubHTTPError, match="already exists"):
        api.create_tag("me/model", tag="v1")
    assert not hub.unserved


def test_files_are_listed_and_deleted(hub: LoopbackHub):
    hub.page_size = 2
    hub.put("me/model", CONTENTS)
    api = HfApi()
    assert set(api.list_repo_files("me/model")) == {".gitattributes", *CONTENTS}
    assert {entry.path for entry in api.list_repo_tree("me/model")} == {
        ".gitattributes",
        "config.json",
        "a.bin",
        "below",
    }
    assert [entry.path for entry in api.list_repo_tree("me/model", "below")] == ["below/b.bin"]
    told = api.get_paths_info("me/model", ["a.bin", "below", "none"])
    assert [entry.path for entry in told] == ["a.bin", "below"] and told[0].size == len(WEIGHTS)
    api.delete_file("a.bin", "me/model")
    api.delete_folder("below", "me/model")
    assert hub.files("me/model").keys() == {".gitattributes", "config.json"}
    api.delete_repo("me/model")
    assert not api.repo_exists("me/model") and not hub.unserved


def test_a_card_comes_back_and_a_broken_one_is_refused(hub: LoopbackHub):
    HfApi().create_repo("me/model")
    data = ModelCardData(license="apache-2.0", tags=["llmkit"], base_model="me/base")
    ModelCard(f"---\n{data.to_yaml()}\n---\n# Model\n").push_to_hub("me/model")
    assert ModelCard.load("me/model").data.base_model == "me/base"
    assert HfApi().model_info("me/model").card_data.license == "apache-2.0"
    with pytest.raises(ValueError, match="Invalid metadata"):
        push({"README.md": b"---\nlicense: [\n---\n"})
    assert not hub.unserved


def test_who_may_do_what(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    hub.put("me/model", CONTENTS, private=True)
    hub.put("other/gated", CONTENTS, gated="manual")
    with pytest.raises(GatedRepoError):
        hf_hub_download("other/gated", "a.bin")
    assert HfApi().model_info("other/gated").gated == "manual"
    assert HfApi(token=hub.reader).model_info("me/model").private
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi(token=hub.reader).create_commit("me/model", operations(), commit_message="push")
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi(token=hub.stranger).create_repo("me/other")
    for token in (hub.stranger, False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info("me/model")
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download("me/model", "a.bin", token=token)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_unknown").whoami()
    assert len(hub.repo("me/model").commits) == 2


def test_a_large_file_comes_in_parts_and_goes_on_after_a_cut(hub: LoopbackHub, waits: list[float]):
    hub.multipart_above = 3000
    HfApi().create_repo("me/model")
    cut = hub.fail("PUT", "/storage/*/2", "cut request")
    push()
    assert cut.done == 1 and hub.files("me/model").items() >= CONTENTS.items()
    assert len(hub.asked("PUT", r"/storage/.*/\d$")) == 2 * 4 + 1
    assert not hub.leaks()


def test_a_commit_on_a_parent_that_is_not_the_newest_is_refused(hub: LoopbackHub):
    first = hub.put("me/model", CONTENTS)
    newest = hub.put("me/model", {"config.json": b"{1}"})
    with pytest.raises(HfHubHTTPError, match="412"):
        push({"config.json": b"{2}"}, parent_commit=first)
    assert hub.files("me/model")["config.json"] == b"{1}"
    push({"config.json": b"{2}"}, parent_commit=newest)
    assert hub.files("me/model")["config.json"] == b"{2}"
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi().create_commit("me/model", operations(), commit_message="push", create_pr=True)


# what goes wrong, and whether the client's own retries get over it
UPLOADS = [
    (("POST", "*/preupload/*", "drop before"), True),
    (("POST", "*/preupload/*", 429), True),
    (("POST", "*/preupload/*", 401), False),
    (("POST", "*/objects/batch", 500), True),
    (("POST", "*/objects/batch", 403), False),
    (("PUT", "/storage/*", "drop before"), True),
    (("PUT", "/storage/*", "drop after"), True),
    (("PUT", "/storage/*", "cut request"), True),
    (("PUT", "/storage/*", 503), True),
    (("PUT", "/storage/*", "corrupt request"), False),
    (("POST", "*/lfs/verify", "drop after"), True),
    (("POST", "*/lfs/verify", 404), False),
    (("POST", "*/commit/*", "drop before"), False),
    (("POST", "*/commit/*", "cut request"), False),
    (("POST", "*/commit/*", 401), False),
    (("POST", "*/commit/*", 403), False),
    (("POST", "*/commit/*", 409), False),
    (("POST", "*/commit/*", 412), False),
    (("POST", "*/commit/*", 413), False),
    (("POST", "*/commit/*", 429), False),
    (("POST", "*/commit/*", 500), False),
    (("POST", "*/commit/*", "slow"), True),
]


@pytest.mark.parametrize(("fault", "survived"), UPLOADS)
def test_a_push_that_breaks_publishes_nothing_and_a_repeat_all(hub, waits, fault: tuple, survived: bool):
    before = hub.put("me/model", {"config.json": b"old"})
    planned = hub.fail(*fault)
    if survived:
        push()
    else:
        with pytest.raises((HTTPError, RuntimeError)):
            push()
        assert hub.repo("me/model").branches["main"] == before, "nothing is published by half"
        push()
    assert planned.done == 1
    assert hub.files("me/model").items() >= CONTENTS.items()
    assert len(hub.repo("me/model").commits) == 3
    assert not hub.leaks()


def test_a_commit_whose_answer_is_lost_is_there(hub: LoopbackHub):
    hub.put("me/model", {})
    hub.fail("POST", "*/commit/*", "drop after")
    with pytest.raises(HTTPError):
        push()
    assert hub.files("me/model").items() >= CONTENTS.items()
    there = hub.repo("me/model").branches["main"]
    assert push() == there, "the client sees that nothing is left to do"


def test_a_repeat_sends_only_what_is_missing(hub: LoopbackHub, waits: list[float]):
    hub.put("me/model", {})
    hub.fail("PUT", "/storage/*", 403, nth=2)
    with pytest.raises((HTTPError, RuntimeError)):
        push()
    hub.fail("POST", "*/commit/*", 500)
    with pytest.raises(HTTPError):
        push()
    push()
    assert sorted(request.status or 0 for request in hub.asked("PUT", "/storage/")) == [200, 200, 403]


def test_the_client_waits_as_long_as_it_is_told(hub: LoopbackHub, waits: list[float]):
    hub.put("me/model", {})
    hub.fail("POST", "*/preupload/*", 429, retry_after=30)
    push()
    assert waits == [31]


DOWNLOADS: list[tuple[tuple, type[Exception] | None]] = [
    (("GET", "/storage/*", "cut answer"), None),
    (("GET", "/storage/*", "drop before"), None),
    (("GET", "/storage/*", 429), None),
    (("GET", "/storage/*", 503), HfHubHTTPError),
    (("HEAD", "*/a.bin", 500), None),
    (("GET", "/storage/*", "slow"), None),
]


@pytest.mark.parametrize(("fault", "error"), DOWNLOADS)
def test_a_download_that_breaks_leaves_no_half_file(hub, waits, tmp_path: Path, fault: tuple, error):
    hub.put("me/model", CONTENTS)
    fetch: Callable[[], str] = lambda: hf_hub_download("me/model", "a.bin")  # noqa: E731
    planned = hub.fail(*fault)
    if error:
        with pytest.raises(error):
            fetch()
        assert not list(tmp_path.rglob("snapshots/*/a.bin"))
    assert Path(fetch()).read_bytes() == WEIGHTS
    assert planned.done == 1


def test_another_shell_is_pointed_at_it(capsys: pytest.CaptureFixture[str]):
    def ask() -> None:
        lines = capsys.readouterr().out.splitlines()
        told = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        asked = Request(f"{told['HF_ENDPOINT']}/api/whoami-v2", headers={"Authorization": f"Bearer {told['HF_TOKEN']}"})
        with build_opener(ProxyHandler({})).open(asked) as answer:
            names.append(json.load(answer)["name"])

    names: list[str] = []
    serve(ask)
    assert names == ["me"]
