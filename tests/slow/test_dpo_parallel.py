"""The dpo stage: the same loss whichever way the pairs are spread, with the reference model and without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_parallel import ROOT, WAYS, losses, recipe, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dpo")
    rows = [{"prompt": f"What is {i} plus 1?", "chosen": f"It is {i + 1}.", "rejected": "No."} for i in range(120)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("way", ["zero3", "fsdp2"])
def test_rows_of_tokens_that_an_adapter_cannot_train_are_refused(way: str, shared: Path, model_dir: Path) -> None:
    path = recipe(shared, f"{way}-lora", model_dir, shared / "pairs.jsonl", "dpo", peft={"r": 4}, **WAYS[way])
    argv = [sys.executable, "-m", "llmkit.cli.main", "run", str(path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "launch.accelerate: " in done.stdout + done.stderr
    assert "rows of the chat template's tokens" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("way", "peft"), [*((way, None) for way in WAYS), *((way, {"r": 4}) for way in ("accumulation", "ddp", "zero2"))]
)
def test_the_way_of_spreading_does_not_change_the_loss(
    way: str, peft: dict[str, int] | None, shared: Path, model_dir: Path
) -> None:
    pairs, kind = shared / "pairs.jsonl", "lora" if peft else "full"
    fields = {"peft": peft, "heldout": {"sums": [{"path": str(pairs), "split": "train[:20]"}]}}
    reference = shared / f"one-{kind}" / "01-s"
    if not reference.is_dir():
        trainer = {"per_device_train_batch_size": 8}
        run(recipe(shared, f"one-{kind}", model_dir, pairs, "dpo", trainer=trainer, **fields))
    stage = run(recipe(shared, f"{way}-{kind}", model_dir, pairs, "dpo", **fields, **WAYS[way]))
    expected, found = losses(reference), losses(stage)
    assert len(found) == len(expected) == 12 and found[-1] == pytest.approx(expected[-1], rel=1e-3)
    one, other = (json.loads((path / "manifest.json").read_text())["metrics"] for path in (reference, stage))
    for key in ("loss", "accuracy", "margin"):
        name = f"heldout/sums/after/{key}"
        assert other[name] == pytest.approx(one[name], rel=1e-2, abs=1e-3)
