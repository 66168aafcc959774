"""`llmkit report`."""

from __future__ import annotations

import json

from rich.console import Console

from llmkit.artifacts.rundir import open_run
from llmkit.report.build import build_report, report_json
from llmkit.report.seeds import over_runs, print_over_runs


def report(run_folders: list[str], as_json: bool) -> None:
    runs = [open_run(folder) for folder in run_folders]
    if as_json:
        told = report_json(runs[0]) if len(runs) == 1 else {"runs": [*map(report_json, runs)], "over": over_runs(runs)}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for run in runs:
        print(build_report(run))
    if len(runs) > 1:
        print_over_runs(runs, Console())
