"""Every recipe of alignment-handbook, imported, trains for two steps on the embedded model, or says why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_trial import FOREIGN, run_trial

from llmkit.errors import UserError

HANDBOOK = sorted((FOREIGN / "alignment-handbook").glob("*.yaml"))
SYSTEM = "it adds a system prompt that no one wrote"
CANNOT = {
    "zephyr-141b-A35b-orpo-config_full": "is for orpo: ORPO",
    "zephyr-7b-gemma-sft-config_full": "the first turn renders differently once a second one follows",
    "smollm2-sft-config": SYSTEM,
    "smollm2-sft-config_smol": SYSTEM,
}
"""Recipe -> what it says."""


@pytest.mark.parametrize("path", HANDBOOK, ids=lambda path: path.stem)
def test_a_trial(path: Path, tmp_path: Path) -> None:
    if path.stem in CANNOT:
        with pytest.raises(UserError, match=CANNOT[path.stem]):
            run_trial(tmp_path, path)
    else:
        assert run_trial(tmp_path, path).settings["trainer"]["max_steps"] == 2
