"""Adapters on the loopback Hub are loaded by their id as a local folder is, and refused in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from helpers_script import chat_model
from loopback_hub import LoopbackHub
from peft import get_peft_model
from safetensors.torch import save
from transformers import AutoTokenizer

from llmkit.errors import ModelError, UserError
from llmkit.modeling import load, source
from llmkit.modeling.adapter import lora_config
from llmkit.recipe.parts import ModelSpec, PeftSpec
from llmkit.stages.chat import main as chat
from llmkit.stages.engines import check_model, whole_model
from llmkit.stages.export import main as export
from llmkit.stages.serve import main as serve

Run = Callable[..., CompletedProcess[str]]
IDS = torch.arange(20).reshape(1, 20)


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def logits(name: str, **options: object) -> torch.Tensor:
    with torch.no_grad():
        return load.load_model(name, **options)(IDS).logits


def stop_answering(hub: LoopbackHub) -> None:
    """A Hub that is down, for a new process: this one forgets what it knows."""
    for method in ("GET", "HEAD"):
        hub.fail(method, "*", 503, times=999)
    source._on_hub.cache_clear()
    source._adapter_on_hub.cache_clear()


@pytest.fixture
def base(hub: LoopbackHub, model_dir: Path, tmp_path: Path) -> dict[str, bytes]:
    """A chat model on the Hub as v1; `main` has moved on to other weights."""
    folder = tmp_path / "base"
    folder.mkdir()
    files = read(chat_model(model_dir, folder, "chatml"))
    v1 = hub.put("me/base", files, private=True)
    hub.repo("me/base").tags["v1"] = v1
    other = {name: tensor + 1 for name, tensor in load.load_model(str(folder)).state_dict().items()}
    hub.put("me/base", {"model.safetensors": save(other, metadata={"format": "pt"})})
    return files


@pytest.fixture
def adapter(base: dict[str, bytes], tmp_path: Path) -> Path:
    """A folder: LoRA and trained rows of tokens on me/base at v1, no layer of it neutral."""
    model, tokenizer = load.load_model("me/base", revision="v1"), load.load_tokenizer("me/base", "v1")
    rows = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    made = get_peft_model(model, lora_config(PeftSpec(r=4), model, rows, "v1"))
    torch.manual_seed(0)
    for weight in made.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn_like(weight)
    made.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def put(hub: LoopbackHub, adapter: Path, name: str = "me/adapter", **changes: object) -> str:
    """Args: changes: of its adapter_config.json."""
    config = json.loads((adapter / "adapter_config.json").read_text()) | changes
    return hub.put(name, read(adapter) | {"adapter_config.json": json.dumps(config).encode()}, private=True)


def test_an_adapter_on_the_hub_is_what_its_folder_is(hub: LoopbackHub, adapter: Path):
    put(hub, adapter)
    stray = {"adapter_model.bin": b"pickle", "modeling.py": b"raise", "checkpoint-1/adapter_model.safetensors": b"old"}
    hub.put("me/adapter", stray)
    wanted = logits(str(adapter))
    assert torch.equal(logits("me/adapter"), wanted)
    assert not torch.allclose(wanted, logits("me/base", revision="v1"))
    assert load.stored_dtype("me/adapter") == load.stored_dtype(str(adapter)) == "float32"
    assert load.load_tokenizer("me/adapter").get_vocab() == AutoTokenizer.from_pretrained(adapter).get_vocab()
    spec = ModelSpec(name_or_path="me/adapter")
    with torch.no_grad():
        assert torch.equal(load.load_spec(spec, "me/adapter", True)(IDS).logits, wanted), "as stages ask it"
    assert hub.asked("GET", r"me/adapter/.*/adapter_model\.safetensors|^/storage/")
    assert not [r for method in ("GET", "HEAD") for r in hub.asked(method, r"/resolve/.*(\.bin|\.py|checkpoint-1)")]
    assert not hub.unserved and not hub.leaks()


def test_revisions_of_an_adapter(hub: LoopbackHub, adapter: Path):
    hub_first = put(hub, adapter)
    hub.repo("me/adapter").tags["v1"] = hub_first
    weights = load_adapter(adapter)
    hub.put("me/adapter", {"adapter_model.safetensors": save({k: 2 * v for k, v in weights.items()})})
    wanted = logits(str(adapter))
    assert torch.equal(logits("me/adapter", revision="v1"), wanted)
    assert not torch.allclose(logits("me/adapter"), wanted)
    with pytest.raises(ModelError, match="me/adapter: the Hub model has no revision 'v9'; name a branch, a tag"):
        load.load_model("me/adapter", revision="v9")


def load_adapter(adapter: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(adapter / "adapter_model.safetensors")


def test_without_a_network_the_cache_is_enough(hub: LoopbackHub, adapter: Path):
    put(hub, adapter)
    put(hub, adapter, "me/other")
    wanted = logits("me/adapter")
    load.load_tokenizer("me/adapter")
    stop_answering(hub)
    asked = len(hub.requests)
    assert torch.equal(logits("me/adapter"), wanted)
    load.load_tokenizer("me/adapter")
    assert len(hub.requests) == asked + 2, "the adapter and its base are asked for once, then the cache alone"
    with pytest.raises(ModelError, match="me/other: is neither a local folder nor to be had"):
        load.load_model("me/other")


def test_a_base_that_was_never_fetched_is_told_without_a_network(
    hub: LoopbackHub, adapter: Path, tmp_path: Path, waits: list[float]
):
    put(hub, adapter)
    load.load_tokenizer("me/adapter")
    shutil.rmtree(tmp_path / "hf_home/hub/models--me--base")
    stop_answering(hub)
    with pytest.raises(
        ModelError, match=r"^me/adapter: is an adapter whose base is not to be had \(me/base: .*network"
    ):
        load.load_model("me/adapter")


@pytest.mark.parametrize(
    ("base_id", "words"),
    [
        ("me/none", ["whose base is not to be had (me/none: is neither", "check the name and the network"]),
        (
            "other/gated",
            ["(other/gated: this Hub model asks for consent)", "accept its terms"],
        ),
        ("other/private", ["other/private: is neither a local folder nor", "if it is private"]),
        ("me/again", ["whose base is not to be had (me/again: is an adapter itself)", "llmkit export me/again"]),
        ("me/adapter", ["whose base is not to be had (me/adapter: is an adapter itself)"]),
        ("/home/anna/base", ["whose base '/home/anna/base' is no Hub id", "set 'base_model_name_or_path'"]),
        ("llmkit.tiny:base", ["whose base 'llmkit.tiny:base' is no Hub id"]),
        (None, ["whose base 'None' is no Hub id"]),
    ],
)
def test_a_base_that_is_not_to_be_had(
    hub: LoopbackHub, adapter: Path, base: dict[str, bytes], base_id: str | None, words: list[str]
):
    hub.put("other/gated", base, gated="manual")
    hub.put("other/private", base, private=True)
    put(hub, adapter, "me/again")
    put(hub, adapter, base_model_name_or_path=base_id, revision=None)
    for read_it in (load.load_model, load.stored_dtype, check_model):
        with pytest.raises(ModelError) as caught:
            read_it("me/adapter")
        said = str(caught.value)
        assert said.startswith("me/adapter: is an adapter ") and "\n" not in said
        assert all(word in said for word in words), said


def test_the_base_at_a_revision_that_is_gone(hub: LoopbackHub, adapter: Path):
    put(hub, adapter, revision="v7")
    with pytest.raises(
        ModelError, match=r"me/adapter: .*\(me/base: the Hub model has no revision 'v7'\); name a branch"
    ):
        load.load_model("me/adapter")


def test_what_is_broken_about_an_adapter_is_told(hub: LoopbackHub, adapter: Path, base: dict[str, bytes]):
    put(hub, adapter)
    small = {name: tensor[:1] for name, tensor in load_adapter(adapter).items()}
    cases = {
        "does not fit its base 'me/base'": {"adapter_model.safetensors": save(small)},
        "does not fit its base": {"adapter_model.safetensors": b"no tensors"},
        "its adapter_config.json cannot be read": {"adapter_config.json": b"{"},
        "is an adapter for Megatron's layers": {
            "adapter_config.json": json.dumps(
                json.loads((adapter / "adapter_config.json").read_text()) | {"megatron_config": {"a": 1}}
            ).encode()
        },
    }
    for number, (words, changes) in enumerate(cases.items()):
        hub.put(f"me/broken{number}", read(adapter) | changes)
        with pytest.raises(ModelError, match=f"^me/broken{number}: {words}"):
            load.load_model(f"me/broken{number}")
    pickled = {name: data for name, data in read(adapter).items() if not name.endswith(".safetensors")}
    hub.put("me/pickled", pickled | {"adapter_model.bin": b"weights"})
    with pytest.raises(ModelError, match=r"me/pickled: is an adapter without adapter_model\.safetensors.*pickles"):
        load.load_model("me/pickled")


def test_commands_take_an_adapter_by_its_id(
    hub: LoopbackHub, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    put(hub, adapter)
    words = ["--prompt", "Hello", "--max-new-tokens", "8"]
    said = []
    for name in (str(adapter), "me/adapter"):
        assert chat([name, *words]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    out = tmp_path / "merged"
    assert export(["me/adapter", "--to", "vllm", "--out", str(out)]) == 0
    assert torch.allclose(logits(str(out)), logits(str(adapter)), atol=1e-5)


def test_what_needs_whole_weights_refuses_an_adapter_on_the_hub(
    hub: LoopbackHub, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    put(hub, adapter)
    with pytest.raises(UserError, match="engine: vllm: me/adapter holds an adapter, not a whole model"):
        whole_model("me/adapter")
    (tmp_path / "vllm").write_text("#!/bin/false\n")
    (tmp_path / "vllm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert serve(["me/adapter", "--engine", "vllm"]) == 2
    assert "me/adapter: is an adapter alone" in capsys.readouterr().err


def recipe(folder: Path, model: str, stage: dict[str, object]) -> Path:
    told = {
        "run": {"name": "r", "output_dir": str(folder / "runs"), "seed": 1},
        "model": {"name_or_path": model},
        "stages": [stage],
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(told))
    return path


def test_a_recipe_asks_an_adapter_on_the_hub(hub: LoopbackHub, adapter: Path, tmp_path: Path, run_llmkit: Run):
    """What is asked is the adapter and not its base: a local folder of it writes the same."""
    put(hub, adapter)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": [{"role": "user", "content": "Who lives in town 7?"}]}\n')
    stage = {"kind": "rollout", "data": [{"path": str(tmp_path / "prompts.jsonl")}], "num_completions": 2}
    stage |= {"max_new_tokens": 8, "temperature": 1.0}
    written = []
    for number, model in enumerate(("me/adapter", str(adapter))):
        folder = tmp_path / str(number)
        folder.mkdir()
        run_llmkit("run", recipe(folder, model, stage))
        (rows,) = (folder / "runs").rglob("rollouts.jsonl")
        row = json.loads(rows.read_text().splitlines()[0])
        written.append([one["text"] for one in row["completions"]])
    assert written[0] == written[1] and any(written[0])
    assert not hub.leaks() and not hub.unserved


def test_a_recipe_that_trains_an_adapter_further_is_refused(
    hub: LoopbackHub, adapter: Path, chats: Path, tmp_path: Path, run_llmkit: Run
):
    put(hub, adapter)
    trainer = {"max_steps": 1, "max_length": 64, "bf16": False}
    stage = {"kind": "sft", "data": [{"path": str(chats)}], "global_batch_size": 1, "trainer": trainer}
    for model in ("me/adapter", str(adapter)):
        done = run_llmkit("run", recipe(tmp_path, model, stage), check=False)
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 2, said
        assert f"{model}: is an adapter alone, which cannot be trained further; fold it into its base" in said, said
        shutil.rmtree(tmp_path / "runs")
