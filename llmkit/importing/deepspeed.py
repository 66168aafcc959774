"""How axolotl and LLaMA-Factory name sharding: a DeepSpeed file, or FSDP's own keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from llmkit.importing import common
from llmkit.importing.accelerate import deepspeed_shape
from llmkit.importing.draft import Draft

_STAGE = re.compile(r"(?:zero|z|stage)_?([0-3])(?!\d)")


def launch(draft: Draft) -> None:
    """`deepspeed: zero3.json` or `fsdp: [...]` -> `launch.accelerate`."""
    file, fsdp = draft.get("deepspeed"), draft.get("fsdp") or draft.get("fsdp_config")
    if file is not None:
        common.launch(draft, deepspeed_shape(_zero_stage(draft, file), draft.place(("deepspeed",))), ("deepspeed",))
    elif fsdp:
        loc = ("fsdp",) if draft.get("fsdp") else ("fsdp_config",)
        common.launch(draft, "fsdp2", loc)
        draft.listed(
            ("fsdp_config",), "recipes/accelerate/fsdp2.yaml says it; for other values give a config of your own"
        )
    else:
        common.launch(draft)
    draft.list_all(dict.fromkeys(("fsdp", "fsdp_config"), "is empty: nothing to set"))


def _zero_stage(draft: Draft, file: Any) -> Any:
    """From the file beside the recipe where it is there, else from its name."""
    if isinstance(file, dict):
        return _stage_in(file)
    for path in (Path(str(file)), draft.foreign.path.parent / str(file)):
        if path.is_file():
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise draft.refuse(("deepspeed",), f"{path} cannot be read ({error!s:.80})") from None
            return _stage_in(data)
    named = _STAGE.search(Path(str(file)).name.lower())
    return int(named[1]) if named else None


def _stage_in(data: Any) -> Any:
    zero = data.get("zero_optimization") if isinstance(data, dict) else None
    return zero.get("stage") if isinstance(zero, dict) else None
