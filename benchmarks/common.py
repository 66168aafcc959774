"""What the benchmarks share: children with the same threads, medians, one line of result."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


def seconds_of(argv: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(argv, env=ENV, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def best_of(argv: list[str], times: int) -> float:
    return min(seconds_of(argv) for _ in range(times))


def run_recipe(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs a recipe in a temporary folder; the manifests of its stages, in order."""
    with tempfile.TemporaryDirectory() as folder:
        stages = run_in(Path(folder), recipe)
        return [json.loads((stage / "manifest.json").read_text()) for stage in stages]


def run_in(folder: Path, recipe: dict[str, Any], *words: str) -> list[Path]:
    """Runs a recipe; the folders of its stages, in order. Args: words: `key=value`, laid on it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({**recipe, "run": {**recipe["run"], "output_dir": str(folder)}}))  # JSON is YAML
    subprocess.run([sys.executable, "-m", "llmkit.cli.main", "run", str(path), *words], env=ENV, cwd=ROOT, check=True)
    return sorted(found.parent for found in folder.glob(f"{recipe['run']['name']}/*/manifest.json"))


def run_script(code: str, *args: str) -> dict[str, Any]:
    """Runs Python source that prints one JSON object on its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args], env=ENV, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def accumulated(batch: int, options: dict[str, Any]) -> dict[str, int]:
    """For a bare script on one process: the options that give it as many answers a step as a stage has."""
    return {"gradient_accumulation_steps": batch // options["per_device_train_batch_size"]}


def report(name: str, ours: list[float], baseline: list[float], unit: str, target: float) -> None:
    """One line: the ratio of medians, its range over the repeats, and the target."""
    ratio = statistics.median(ours) / statistics.median(baseline)
    pairs = [a / b for a, b in zip(ours, baseline, strict=True)]
    line = {
        "benchmark": name,
        "ratio": round(ratio, 3),
        "range": [round(min(pairs), 3), round(max(pairs), 3)],
        "target": target,
        "met": ratio >= target,
        "llmkit": round(statistics.median(ours), 3),
        "baseline": round(statistics.median(baseline), 3),
        "unit": unit,
        "repeats": len(ours),
    }
    print(json.dumps(line), flush=True)
