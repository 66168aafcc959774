"""Which folder holds the model that is published: whole, an adapter, or an adapter folded in for the purpose."""

from __future__ import annotations

from pathlib import Path

from llmkit.artifacts.files import read_json
from llmkit.errors import UserError
from llmkit.hub.subject import Made

CONFIG = "adapter_config.json"


def model_folder(made: Made, merged: bool | None, scratch: Path) -> Path:
    """Args: merged: as `hub.merged` says. scratch: an empty folder, for a model that must be merged first.

    Raises UserError for what the stage does not have, and for an adapter whose base nobody else can load.
    """
    whole, adapter = made.manifest.model_dir, made.manifest.adapter_dir
    if whole and merged is not False:
        return made.dir.path / whole
    if adapter is None:
        raise UserError("hub.merged: false", f"stage '{made.name}' trained no adapter", "leave it out")
    folder = made.dir.path / adapter
    if merged:
        return _merge(folder, scratch)
    base = str(read_json(folder / CONFIG).get("base_model_name_or_path"))
    if Path(base).exists() or not _is_hub_id(base):
        what = "is an adapter on a model that is on this machine only, so that nobody could load it"
        raise UserError(f"stage '{made.name}'", what, "set 'hub.merged: true' (or give --merged)")
    return folder


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and ":" not in name and not name.startswith((".", "/", "~"))


def _merge(folder: Path, out: Path) -> Path:
    # imports torch and peft, which only this needs
    from llmkit.modeling.load import load_model, load_tokenizer

    load_model(str(folder)).save_pretrained(out)
    load_tokenizer(str(folder)).save_pretrained(out)
    return out
