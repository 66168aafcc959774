"""One recipe with several seeds: means and ranges."""

import io

import pytest
from report_runs import full_run
from rich.console import Console

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
