"""Puts the model of a finished run of recipes/tiny/base.yaml into the package.

python -m llmkit.tiny.ship_base runs/tiny-base
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from llmkit.artifacts.files import write_json
from llmkit.artifacts.manifest import Manifest
from llmkit.artifacts.rundir import RunDir
from llmkit.artifacts.shipped import shipped

RECIPE = "tiny/base.yaml"
BASE = Path(__file__).parent / "base"
WEIGHTS = "model.safetensors"
_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def ship(run: RunDir) -> None:
    """Copies the last stage's model, and writes how it was made beside it."""
    made = {manifest.stage: (folder, manifest) for folder in run.stages() if (manifest := folder.manifest())}
    recipe = YAML(typ="safe").load((shipped("recipes") / RECIPE).read_text(encoding="utf-8"))
    last, manifest = made[recipe["stages"][-1]["name"]]
    BASE.mkdir(exist_ok=True)
    folder = last.path / str(manifest.model_dir)
    for name in _FILES:
        shutil.copyfile(folder / name, BASE / name)
    _write_half(folder / WEIGHTS, BASE / WEIGHTS)
    first = recipe["stages"][0]
    facts = {
        "recipe": f"recipes/{RECIPE}",
        "seed": recipe["run"]["seed"],
        "architecture": first["architecture"],
        "tokenizer": first["tokenizer"],
        "stages": [_made(stage, made[stage["name"]][1]) for stage in recipe["stages"]],
        "device": manifest.device,
        "versions": manifest.versions,
    }
    write_json(BASE / "manifest.json", facts)


def _write_half(source: Path, target: Path) -> None:
    """Half the bytes for the repository; `dtype` in config.json still has them loaded as float32."""
    save_file({name: weight.half() for name, weight in load_file(source).items()}, target, {"format": "pt"})


def _made(stage: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    told = {key: stage[key] for key in ("name", "data", "global_batch_size", "trainer")}
    kept = {"metrics", "heldout", "data", "seconds", "tokens_per_second", "created"}
    found = manifest.model_dump(mode="json", include=kept)
    return {**told, **found, "data": told["data"], "data_summary": found["data"]}


if __name__ == "__main__":
    ship(RunDir(Path(sys.argv[1])))
