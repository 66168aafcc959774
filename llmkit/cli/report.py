"""`llmkit report`."""

from __future__ import annotations

import json

from llmkit.artifacts.rundir import open_run
from llmkit.report.build import build_report, report_json


def report(run_folder: str, as_json: bool) -> None:
    run = open_run(run_folder)
    if as_json:
        print(json.dumps(report_json(run), indent=2, ensure_ascii=False))
    else:
        print(build_report(run))
