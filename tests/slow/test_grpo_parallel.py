"""GSM8K through `grpo` on the embedded model, in one process and in two: the same answers, and the form is learned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("LLMKIT_REAL_DATA" not in os.environ, reason="needs LLMKIT_REAL_DATA"),
]
WAYS: dict[str, list[str]] = {
    "one": [],
    "ddp": ["stages.grpo.launch={accelerate: cpu/ddp, num_processes: 2}"],
    "zero2": ["stages.grpo.launch={accelerate: cpu/zero2, num_processes: 2}"],
}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The finished stage of each way."""
    folder = tmp_path_factory.mktemp("gsm8k")
    made = {}
    for way, words in WAYS.items():
        argv = [sys.executable, "-m", "llmkit.cli.main", "run", "recipes/tiny/gsm8k-grpo.yaml", *words]
        argv += [f"run.output_dir={folder}", f"run.name={way}"]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        (made[way],) = (folder / way).glob("*-grpo")
    return made


def rollouts(stage: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(stage / "data" / "rollouts.parquet").to_pylist()
    return rows


def first_answers(stage: Path) -> list[tuple[str, str]]:
    rows = [row for row in rollouts(stage) if row["step"] == 0]
    return sorted((str(row["prompt"]), row["completion"]) for row in rows)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "one"])
def test_the_first_answers_do_not_depend_on_the_processes(way: str, stages: dict[str, Path]) -> None:
    found = first_answers(stages[way])
    assert len(found) == 32
    assert found == first_answers(stages["one"])


@pytest.mark.parametrize("way", WAYS)
def test_the_form_of_an_answer_is_learned(way: str, stages: dict[str, Path]) -> None:
    rows = rollouts(stages[way])
    last = max(row["step"] for row in rows)
    early, late = (
        [json.loads(row["scores"])["regex"] for row in rows if start <= row["step"] < start + 5]
        for start in (0, last - 4)
    )
    assert sum(late) / len(late) > sum(early) / len(early)
    manifest = json.loads((stages[way] / "manifest.json").read_text())
    assert manifest["metrics"]["sampled_groups"] == 20 * 4
