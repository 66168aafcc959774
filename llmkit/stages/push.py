"""Publishes a model, its data sets, its report and its recipe on the Hub.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.push recipe.yaml --stage publish
"""

from __future__ import annotations

from pathlib import Path

from llmkit.artifacts.manifest import Manifest
from llmkit.hub.adapter import scratch_in
from llmkit.hub.push import prepare, send
from llmkit.hub.report import report_files
from llmkit.hub.subject import BASE, subject_of
from llmkit.recipe.hub import PushStage
from llmkit.stages.common import Worker, main


def run(worker: Worker) -> Manifest:
    stage = worker.file.stage
    assert isinstance(stage, PushStage) and stage.hub is not None
    if not worker.is_main:
        return worker.manifest()
    subject = subject_of(str(worker.dir.path.parent), model_stage(worker))
    worker.log("prepare", 0, 2)
    with scratch_in(worker.dir.path) as scratch:
        report = report_files(subject.run)
        ready = prepare(subject, stage.hub, stage.ship, scratch, despite_bars=stage.despite_bars, report=report)
        for words in ready.missed:
            worker.warn(f"published below a bar: {words}")
        for words in ready.conflicts:
            worker.warn(f"licence: {words}")
        worker.log("send", 1, 2)
        published = send(ready.packages, stage.hub, overwrite=stage.overwrite, say=lambda text: print(text, flush=True))
    worker.log("send", 2, 2)
    counts = {"num_files": sum(len(each.items) for each in ready.packages)}
    return worker.manifest(
        published=published,
        metrics={**counts, "num_bytes": float(sum(each.size for each in ready.packages))},
    )


def model_stage(worker: Worker) -> str:
    """The stage whose model is the input. The plan has refused the base model."""
    assert worker.file.parent is not None
    return Path(worker.file.parent).name.partition("-")[2] or BASE


if __name__ == "__main__":
    main("push", run)
