"""Which folder holds the model that is published: whole, an adapter, or an adapter folded in for the purpose."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from llmkit.artifacts.files import read_json
from llmkit.errors import UserError
from llmkit.hub.subject import Made

CONFIG = "adapter_config.json"


def model_folder(made: Made, merged: bool | None, scratch: Path) -> Path:
    """Args: merged: as `hub.merged` says. scratch: a folder (`scratch_in`) for a model that must be merged first.

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
    """In the type in which the base is stored: more digits than that it never had."""
    # imports torch and peft, which only this needs
    from llmkit.modeling.load import load_model, load_tokenizer, stored_dtype

    load_model(str(folder), dtype=stored_dtype(str(folder))).save_pretrained(out)
    load_tokenizer(str(folder)).save_pretrained(out)
    return out


@contextmanager
def scratch_in(folder: Path) -> Iterator[Path]:
    """A folder below `folder`, on its disk, that is made by who needs it and is gone afterwards, also after SIGTERM."""
    path = folder / f".push-{os.getpid()}"
    before = signal.signal(signal.SIGTERM, _end) if threading.current_thread() is threading.main_thread() else None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
