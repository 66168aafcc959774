"""Recipes with Hub ids, through llmkit's own loaders, against the loopback Hub: what is loaded, and what each refusal
says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from loopback_hub import LoopbackHub
from peft import get_peft_model
from safetensors.torch import save
from transformers import AutoModelForCausalLM

from llmkit.data.sources import read_source
from llmkit.errors import DataError, ModelError
from llmkit.evaluate.tasks import load_task
from llmkit.modeling import load, source
from llmkit.modeling.adapter import lora_config
from llmkit.recipe.parts import DataSource, PeftSpec
from llmkit.recipe.schema import EvalSpec

ROWS = [
    {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "Yes."}]} for i in range(7)
]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture
def files(model_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in model_dir.iterdir()}


def rows(path: str, **fields: object) -> list[object]:
    return [raw.value for raw in read_source(DataSource.model_validate({"path": path, **fields}), {}, 0)]


def model_error(name: str, revision: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        load.load_model(name, revision=revision)
    return str(caught.value)


def data_error(path: str, **fields: object) -> str:
    with pytest.raises(DataError) as caught:
        rows(path, **fields)
    return str(caught.value)


def test_a_model_of_a_revision(hub: LoopbackHub, model_dir: Path, files: dict[str, bytes]):
    first = hub.put("me/base", files)
    hub.repo("me/base").tags["v1"] = first
    hub.put("me/base", {"model.safetensors": b"other weights", "config.json": b"{}"})
    there = AutoModelForCausalLM.from_pretrained(model_dir)
    for revision in (first, "v1"):
        model = load.load_model("me/base", revision=revision)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), there.parameters(), strict=True))
        assert len(load.load_tokenizer("me/base", revision)) == len(load.load_tokenizer(str(model_dir)))
    assert "Unrecognized model" in model_error("me/base"), "of the newest commit"
    assert not hub.unserved and not hub.leaks()


def test_an_adapter_stays_on_the_weights_that_it_was_trained_on(
    hub: LoopbackHub, files: dict[str, bytes], tmp_path: Path
):
    first = hub.put("me/base", files)
    hub.repo("me/base").tags["v1"] = first
    model = load.load_model("me/base", revision="v1")
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    get_peft_model(model, lora_config(PeftSpec(), model, [], "v1")).save_pretrained(tmp_path)
    load.load_tokenizer("me/base", "v1").save_pretrained(tmp_path)
    moved = save({name: tensor + 1 for name, tensor in weights.items()}, metadata={"format": "pt"})
    hub.put("me/base", {"model.safetensors": moved})
    found = load.load_model(str(tmp_path)).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_a_model_that_the_cache_holds_is_loaded_while_the_hub_is_busy(hub: LoopbackHub, files: dict[str, bytes]):
    hub.put("me/base", files)
    load.load_model("me/base")
    for status in (429, 503):
        source._on_hub.cache_clear()
        asked = len(hub.requests)
        hub.fail("GET", "/api/models/*", status, times=99)
        load.load_model("me/base")
        assert len(hub.requests) == asked + 1, "asked once, then the cache alone"
        hub.faults.clear()


@pytest.mark.parametrize(
    ("name", "revision", "words"),
    [
        ("me/base", "v9", ["the Hub model has no revision 'v9'", "name a branch, a tag"]),
        ("other/gated", None, ["asks for consent", "accept its terms", "hf auth login"]),
        ("other/private", None, ["nor to be had from the Hub", "if it is private"]),
        ("me/none", None, ["nor to be had from the Hub", "check the name"]),
    ],
)
def test_what_a_model_is_refused_for(
    hub: LoopbackHub, files: dict[str, bytes], name: str, revision: str | None, words: list[str]
):
    hub.put("me/base", files)
    hub.put("other/gated", files, gated="manual")
    hub.put("other/private", files, private=True)
    said = model_error(name, revision)
    assert said.startswith(f"{name}: ")
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (("GET", "/api/models/*", 401), ["does not accept your token", "hf auth login"]),
        (("GET", "/api/models/*", 403), ["does not let your token read this model"]),
        (("GET", "/storage/*", 500), ["the Hub is too busy (HTTP 500)", "try again"]),
        (("GET", "/storage/*", "cut answer"), ["the connection to the Hub broke", "run it again"]),
        (("HEAD", "*/config.json", "drop before"), ["the connection to the Hub broke"]),
    ],
)
def test_what_goes_wrong_with_a_model(hub, waits, files: dict[str, bytes], fault: tuple, words: list[str]):
    hub.put("me/base", files)
    hub.fail(*fault, times=99)
    said = model_error("me/base")
    assert said.startswith("me/base: ")
    assert all(word in said for word in words), said
    hub.faults.clear()
    source._on_hub.cache_clear()
    load.load_model("me/base")


def test_a_model_without_safetensors_has_no_bot_convert_it(hub: LoopbackHub, files: dict[str, bytes]):
    del files["model.safetensors"]
    hub.put("me/pickled", files | {"pytorch_model.bin": b"weights"})
    assert "safetensors" in model_error("me/pickled")
    assert not hub.unserved, "no question about pull requests"


def test_rows_of_a_data_set(hub: LoopbackHub):
    old = hub.put("me/chats", {"train.jsonl": JSONL}, kind="dataset")
    hub.put("me/chats", {"train.jsonl": JSONL[: JSONL.index(b"\n") + 1], "test.jsonl": JSONL}, kind="dataset")
    assert rows("me/chats") == ROWS[:1]
    assert rows("me/chats", split="test") == ROWS
    assert rows("me/chats", revision=old) == ROWS
    assert rows("me/chats", revision=old, streaming=True) == ROWS
    assert not hub.unserved and not hub.leaks()


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("me/chats", {"revision": "v9"}, ["the Hub data set has no revision 'v9'"]),
        ("me/chats", {"split": "test"}, ['Unknown split "test"', "check 'name', 'split'"]),
        ("other/gated", {}, ["asks for consent", "accept its terms"]),
        ("other/private", {}, ["neither a file here nor a data set on the Hub", "if it is private"]),
        ("me/none", {}, ["neither a file here nor a data set on the Hub", "as a file it would be"]),
        ("me/broken", {}, ["JSON parse error", "the data set's files"]),
        ("me/broken", {"streaming": True}, ["JSON parse error", "the data set's files"]),
    ],
)
def test_what_a_data_set_is_refused_for(hub: LoopbackHub, path: str, fields: dict[str, object], words: list[str]):
    hub.put("me/chats", {"train.jsonl": JSONL}, kind="dataset")
    hub.put("me/broken", {"train.jsonl": JSONL + b'{"messages": [{'}, kind="dataset")
    hub.put("other/gated", {"train.jsonl": JSONL}, kind="dataset", gated="auto")
    hub.put("other/private", {"train.jsonl": JSONL}, kind="dataset", private=True)
    said = data_error(path, **fields)
    assert said.startswith(f"{path}: ")
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (("GET", "/api/datasets/*", 401), ["does not accept your token", "hf auth login"]),
        (("GET", "*/resolve/*", 403), ["does not let your token read this data set"]),
        (("GET", "*/resolve/*", 429), ["the Hub is too busy (HTTP 429)", "try again"]),
        (("GET", "*/resolve/*", "cut answer"), ["the connection to the Hub broke", "run it again"]),
        (("GET", "/api/datasets/*", 503), ["the Hub cannot be reached or is too busy"]),
    ],
)
def test_what_goes_wrong_with_a_data_set(hub, waits, fault: tuple, words: list[str]):
    hub.put("me/chats", {"train.jsonl": JSONL}, kind="dataset")
    hub.fail(*fault, times=99)
    said = data_error("me/chats")
    assert said.startswith("me/chats: ")
    assert all(word in said for word in words), said
    hub.faults.clear()
    assert rows("me/chats") == ROWS


def test_a_task_whose_data_lie_on_the_hub(hub: LoopbackHub, tmp_path: Path):
    hub.put("me/sums", {"test.jsonl": b'{"ask": "1+1=", "sum": "2"}\n' * 3}, kind="dataset")
    (tmp_path / "sums.yaml").write_text(
        "{task: sums, dataset_path: me/sums, test_split: test, output_type: generate_until,"
        " doc_to_text: '{{ask}}', doc_to_target: '{{sum}}', metric_list: [{metric: exact_match}]}"
    )
    spec = EvalSpec(task="sums", include_path=str(tmp_path))
    hub.fail("GET", "/api/datasets/*", 401, times=99)
    with pytest.raises(
        DataError, match=r"task sums: its data cannot be had: the Hub does not accept your token; log in"
    ):
        load_task(spec, raw=True, seed=1)
    hub.faults.clear()
    assert len(load_task(spec, raw=True, seed=1)["tasks"]["sums"].dataset["test"]) == 3
    assert not hub.leaks()
