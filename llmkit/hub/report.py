"""The report as it is published."""

from __future__ import annotations

from dataclasses import replace

from llmkit.artifacts.rundir import RunDir
from llmkit.hub.files import Item
from llmkit.report.build import page
from llmkit.report.collect import collect
from llmkit.report.markdown import markdown
from llmkit.visible import visible


def report_files(run: RunDir) -> list[Item]:
    """The report of what was made; that it is being published is none of it."""
    found = collect(run)
    shown = replace(found, stages=tuple(stage for stage in found.stages if stage.kind != "push"))
    texts = {run.report.name: page(shown), run.report.with_suffix(".md").name: markdown(shown)}
    return [Item(name, visible(text).encode("utf-8", "replace")) for name, text in texts.items()]
