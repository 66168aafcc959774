"""One recipe with several seeds: means and ranges."""

import io
from pathlib import Path

import pytest
from control.practice_runs import practice_run, practised
from control.report_runs import full_run
from rich.console import Console

from llmkit.artifacts.files import write_text
from llmkit.artifacts.manifest import read_manifest, write_manifest
from llmkit.artifacts.rundir import RunDir
from llmkit.errors import UserError
from llmkit.report.seeds import over_runs, print_over_runs


def moved(run: RunDir, by: float) -> RunDir:
    """The same run with all shares of the final model moved."""
    for folder in run.path.iterdir():
        if folder.is_dir() and (manifest := read_manifest(folder)) and manifest.evals:
            rows = [row.model_copy(update={"value": row.value + by}) for row in manifest.evals]
            write_manifest(folder, manifest.model_copy(update={"evals": rows}))
    return run


@pytest.fixture
def runs(tmp_path):
    return [moved(full_run(tmp_path / str(seed)), by) for seed, by in enumerate((0.0, -0.01, 0.02))]


def test_mean_and_range_of_every_figure(runs):
    rows = {(row["stage"], row["task"], row["metric"]): row for row in over_runs(runs)}
    row = rows["cpt", "facts_known", "accuracy"]
    assert row["values"] == pytest.approx([0.948, 0.938, 0.968])
    assert (row["mean"], row["min"], row["max"]) == pytest.approx((0.948 + 0.01 / 3, 0.938, 0.968))


def test_the_table_names_every_model(runs):
    console = Console(width=160, record=True, file=io.StringIO())
    print_over_runs(runs, console)
    text = console.export_text()
    assert "3 runs" in text and "95.1" in text and "(93.8" in text and "96.8" in text
    assert all(name in text for name in ("base", "cpt", "sft", "facts_known"))


def test_runs_without_anything_in_common_are_refused(tmp_path, runs):
    empty = RunDir(tmp_path / "empty")
    empty.path.mkdir()
    with pytest.raises(UserError, match="no evaluation in common"):
        over_runs([runs[0], empty])


@pytest.fixture(scope="module")
def practised_runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunDir]:
    folder = tmp_path_factory.mktemp("seeds")
    return [practice_run(folder / str(seed), shift=by) for seed, by in enumerate((0.0, -0.02, 0.05))]


def test_mean_and_range_over_seeds(practised_runs: list[RunDir]) -> None:
    rows = {(row["stage"], row["task"], row["metric"]): row for row in over_runs(practised_runs)}
    accuracy = rows["reason", "problems", "accuracy"]
    assert accuracy["values"] == pytest.approx([0.685, 0.665, 0.735])
    assert (accuracy["mean"], accuracy["min"], accuracy["max"]) == pytest.approx((0.695, 0.665, 0.735))
    assert {("reason", "problems", name) for name in ("pass@16", "maj@8", "num_tokens", "accuracy, level 10")} <= set(
        rows
    )
    held = rows["reason", "heldout/test", "after/accuracy"]
    assert held["values"] == pytest.approx([0.685, 0.665, 0.735])
    assert rows["reason", "heldout/test", "before/accuracy"]["min"] == 0.405
    assert rows["reason", "grpo", "useful_groups"]["mean"] == pytest.approx(0.6125)
    assert rows["best", "best_of_n", "pass@8"]["mean"] == pytest.approx(0.635, abs=1e-3)
    assert not [key for key in rows if key[2].endswith(("_low", "_high"))]
    assert ("sft", "sft", "train_loss") not in rows


def test_the_table_over_seeds_has_held_out_problems(practised_runs: list[RunDir]) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    print_over_runs(practised_runs, console)
    lines = [" ".join(line.split()) for line in console.export_text().replace("\u202f", "").splitlines()]
    assert "reason: test accuracy 40.5% (40.5% to 40.5%) 69.5% (66.5% to 73.5%)" in lines
    assert "reason: test num_tokens 58.9 (58.9 to 58.9) 92.6 (92.6 to 92.6)" in lines
    assert [line.split()[1] for line in lines if line.startswith("problems ")] == ["accuracy", "pass@16", "maj@16"]


def test_runs_with_only_practice_in_common_are_told(tmp_path: Path, practised_runs: list[RunDir]) -> None:
    run = RunDir(tmp_path / "assistant")
    write_text(run.recipe, "run: {name: assistant}\n")
    practised(run, 1, "reason", 1)
    console = Console(width=160, record=True, file=io.StringIO())
    print_over_runs([run, practised_runs[0]], console)
    assert "reason: longer accuracy" in console.export_text()
