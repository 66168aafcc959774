"""Commands of the control plane start at once, because they import nothing heavy."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "datasets", "accelerate", "trl", "peft", "huggingface_hub", "numpy", "lm_eval")
RECIPE = """\
run: {name: demo, output_dir: runs}
model: {name_or_path: org/model}
stages:
  - {kind: pretrain, data: [{path: org/set}]}
  - {kind: sft, from: pretrain, data: [{path: org/set}]}
prompts: [Hello]
"""
COMMANDS = [
    (["--help"], 0.3),
    (["run", "--help"], 0.3),
    (["serve", "--help"], 0.5),
    (["validate", "recipe.yaml"], 0.5),
    (["plan", "recipe.yaml"], 0.5),
    (["run", "recipe.yaml", "--dry-run"], 0.5),
    (["report", "runs/none"], 0.5),
    (["schema"], 0.5),
    (["new"], 0.5),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS], ids=" ".join)
def test_nothing_heavy_is_imported(folder: Path, words: list[str]) -> None:
    code = f"""
import sys
from llmkit.cli.main import main
sys.argv = ["llmkit", *{words!r}]
try:
    main()
except SystemExit:
    pass
print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert result.stdout.splitlines()[-1] == "HEAVY []"


def test_seconds_to_start(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Best of three, printed: a busy machine must not fail the suite. Ten times the limit does."""
    for words, limit in COMMANDS[:5]:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "llmkit.cli.main", *words], capture_output=True, cwd=folder, check=True
            )
            times.append(time.perf_counter() - start)
        with capsys.disabled():
            verdict = "" if min(times) < limit else "  SLOW"
            print(f"llmkit {' '.join(words)}: {min(times):.2f} s (limit {limit} s){verdict}")
        assert min(times) < 10 * limit


def test_stages_that_train_nothing_leave_out_what_trains() -> None:
    """peft brings bitsandbytes, and that the compiler of torch: seconds, at every evaluation of a chain."""
    code = """
import sys
from llmkit.stages import evaluate, interrogate, rank, refusals, rollout
print("HEAVY", [name for name in ("peft", "bitsandbytes", "deepspeed") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "HEAVY []"
