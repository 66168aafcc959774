"""A recipe of which model and data are Hub ids, run as a user would, against the loopback Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from loopback_hub import LoopbackHub

Run = Callable[..., CompletedProcess[str]]


def write(folder: Path, revision: str) -> Path:
    trainer = {"max_steps": 2, "max_length": 128, "bf16": False, "gradient_checkpointing": False, "logging_steps": 1}
    stage = {"kind": "sft", "data": [{"path": "me/chats"}], "global_batch_size": 4, "trainer": trainer}
    stage["peft"] = {"r": 4}
    recipe = {
        "run": {"name": "r", "output_dir": str(folder / "runs"), "seed": 1},
        "model": {"name_or_path": "me/base", "revision": revision, "chat_template": "chatml"},
        "stages": [stage],
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_a_recipe_of_hub_ids_trains(hub: LoopbackHub, model_dir: Path, chats: Path, tmp_path: Path, run_llmkit: Run):
    files = {path.name: path.read_bytes() for path in model_dir.iterdir()}
    wanted = hub.put("me/base", files, private=True)
    hub.repo("me/base").tags["v1"] = wanted
    hub.put("me/base", {"config.json": b"{}"})
    hub.put("me/chats", {"train.jsonl": chats.read_bytes()}, kind="dataset", private=True)

    run_llmkit("run", write(tmp_path, "v1"))

    left = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert any(path.name == "model.safetensors" for path in left)
    [adapter] = [path for path in left if path.name == "adapter_config.json"]
    assert json.loads(adapter.read_text())["revision"] == "v1", "others load it onto the same weights"
    assert not [path for path in left if hub.token.encode() in path.read_bytes()], "the token is written nowhere"
    assert hub.asked("HEAD", "/me/base/resolve/(v1|" + wanted + ")/config.json")
    assert not hub.leaks() and not hub.unserved
