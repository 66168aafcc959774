"""The embedded base knows nothing of the real world, and its probe says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmkit.artifacts.manifest import read_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
RECIPE = "recipes/tiny/real-questions.yaml"


@pytest.mark.parametrize("stage", ["countries", "popqa", "nq-open"])
def test_nearly_all_is_unknown(tmp_path: Path, run_llmkit: Any, real_data: Path, stage: str) -> None:
    index = ["countries", "popqa", "nq-open"].index(stage)
    options = [f"run.output_dir={tmp_path}", f"stages.{stage}.questions.0.num_rows=100"]
    run_llmkit("run", RECIPE, "--stage", stage, *options)
    manifest = read_manifest(tmp_path / "real-questions" / f"{index + 1:02d}-{stage}")
    assert manifest is not None
    assert manifest.metrics["num_questions"] >= 90
    assert manifest.metrics["share_Unknown"] >= 0.95
