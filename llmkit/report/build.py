"""A run's folder to one offline page, its markdown and its figures for machines.

build_report(open_run("runs/assistant"))   -> runs/assistant/report.html, beside it report.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from llmkit.artifacts.files import write_text
from llmkit.artifacts.rundir import RunDir
from llmkit.report import chain, compare, figures, numbers, words
from llmkit.report.answers import answers, other_samples, sample_groups
from llmkit.report.collect import collect
from llmkit.report.compare import ResultLine
from llmkit.report.curves import curve_groups
from llmkit.report.guard import guarded
from llmkit.report.heldout import heldout_lines
from llmkit.report.honesty import honesty
from llmkit.report.identity import identities
from llmkit.report.knowledge import LABELS, css_of, label_names, probes
from llmkit.report.markdown import markdown
from llmkit.report.practice import attempts, practised
from llmkit.report.preference import preferences
from llmkit.report.problems import solving
from llmkit.report.rewarding import rewarding
from llmkit.report.run import RunReport, StageReport
from llmkit.report.settings import data_sources, settings
from llmkit.report.svg import Whisker, whisker_chart
from llmkit.visible import visible


def build_report(run: RunDir) -> Path:
    """Writes report.html and report.md. Raises RunError where the folder cannot be written."""
    report = collect(run)
    write_text(run.report, visible(page(report)))
    write_text(run.report.with_suffix(".md"), visible(markdown(report)))
    return run.report


def report_json(run: RunDir) -> dict[str, Any]:
    """{"run", "stages", "evals"}: finished stages, and evals in the order of the chain, the final model's last.

    An interrogation also has "probe" (counts by label), evaluations and practice "curves", where there are any."""
    report = collect(run)
    shown = ("stage", "task", "metric", "value", "low", "high", "num_samples")
    compared = ("delta", "delta_low", "delta_high", "delta_from")
    return {
        "run": report.name,
        "stages": [_stage_json(stage) for stage in report.stages if stage.manifest],
        "evals": [
            {key: getattr(row, key) for key in (*shown, *(compared if row.delta is not None else ()))}
            for row in report.evals()
        ],
    }


def _stage_json(stage: StageReport) -> dict[str, Any]:
    made = stage.manifest
    assert made is not None
    metrics: dict[str, float] = dict(made.metrics)
    for name, held in made.heldout.items():
        for when, measure in (("before", held.before), ("after", held.after)):
            figures = {k: getattr(measure, k) for k in ("loss", "perplexity", "bits_per_byte")} if measure else {}
            metrics |= {f"heldout/{name}/{when}/{key}": v for key, v in figures.items() if v is not None}
    told: dict[str, Any] = {"name": stage.name, "kind": stage.kind, "seconds": made.seconds, "metrics": metrics}
    if (seed := made.settings.get("seed")) is not None:
        told["seed"] = seed
    if made.probe:
        told["probe"] = made.probe.model_dump(exclude={"examples"})
    if made.curves:
        told["curves"] = [curve.model_dump() for curve in made.curves]
    return told


def page(report: RunReport) -> str:
    """The HTML of one run, complete in itself."""
    all_nodes = chain.nodes(report)
    controls = [name for name in report.models if name in report.controls]
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            summary=words.summary(report),
            figures=words.final_figures(report),
            rows=chain.row_pictures(all_nodes),
            column=chain.column_picture(all_nodes),
            columns=compare.columns(report),
            headlines=compare.headlines(report),
            result_lines=compare.result_lines(report),
            controls=controls,
            control_lines=compare.result_lines(report, controls),
            honesty=honesty(report),
            solving=solving(report),
            preferences=preferences(report),
            identities=identities(report),
            guards={stage.name: guard for stage in report.chain if (guard := guarded(report, stage))},
            rewarding={stage.name: model for stage in report.chain if (model := rewarding(report, stage))},
            practised={stage.name: found for stage in report.chain if (found := practised(report, stage))},
            probes=probes(report),
            labels=label_names(report),
            answers=answers(report),
            versions=_versions(report),
        )
    )


def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("llmkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals |= {
        "css_of": css_of,
        "meanings": LABELS,
        "change": compare.change,
        "heldout_change": compare.heldout_change,
        "perplexity_bounds": compare.perplexity_bounds,
        "did": words.did,
        "kind_of": words.kind_of,
        "figure": words.figure,
        "gate_columns": words.gate_columns,
        "share": words.share,
        "figures_of": figures.figures,
        "heldout_lines": heldout_lines,
        "attempts_of": attempts,
        "left_over": words.left_over,
        "data_sources": data_sources,
        "num_samples": compare.num_samples,
        "other_samples": other_samples,
        "sample_groups": sample_groups,
        "settings": settings,
        "whiskers": _whiskers,
        "curve_groups": curve_groups,
        "interval": numbers.interval,
        "difference_interval": numbers.difference_interval,
    }
    names = ("number", "count", "percent", "value", "difference", "duration", "size")
    found.filters |= {name: getattr(numbers, name) for name in names}
    return found


def _whiskers(line: ResultLine) -> Markup:
    marks = [Whisker(row.stage, row.value, row.low, row.high) if row else None for row in line.cells]
    told = ", ".join(f"{row.stage} {numbers.value(row.value, line.is_share)}" for row in line.cells if row)
    return whisker_chart(f"{line.task} {line.metric}: {told}", marks, line.is_share)


def _versions(report: RunReport) -> dict[str, str]:
    """Of all stages; where they differ, each version that was used."""
    used: dict[str, list[str]] = {}
    for stage in report.stages:
        for package, version in (stage.manifest.versions if stage.manifest else {}).items():
            if version not in used.setdefault(package, []):
                used[package].append(version)
    return {package: ", ".join(found) for package, found in used.items()}
