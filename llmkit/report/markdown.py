"""The report as markdown: the same figures for a README, a pull request or a terminal."""

from __future__ import annotations

from llmkit.artifacts.manifest import DataSummary, Heldout
from llmkit.report.answers import answers
from llmkit.report.compare import ResultLine, columns, headlines, heldout_change, result_lines
from llmkit.report.figures import figures
from llmkit.report.heldout import heldout_lines
from llmkit.report.identity import identity_parts
from llmkit.report.markdown_honesty import honesty_parts, knowledge_parts
from llmkit.report.markdown_practice import heldout_table, practice_parts, problem_parts
from llmkit.report.markdown_preference import preference_parts, stage_parts
from llmkit.report.marks import cell, fence, result, table
from llmkit.report.numbers import count, difference, duration, interval, number, size
from llmkit.report.run import RunReport, StageReport
from llmkit.report.settings import settings
from llmkit.report.words import did, gate_columns, left_over, share, summary


def markdown(report: RunReport) -> str:
    parts = [f"# {report.name}", summary(report), *_results(report)]
    parts += [
        *problem_parts(report),
        *preference_parts(report),
        *identity_parts(report),
        *honesty_parts(report),
        *knowledge_parts(report),
        *_answers(report),
    ]
    for stage in report.chain:
        parts += _stage(report, stage)
    parts += ["## Reproduce", fence("llmkit run recipe.yaml", "sh"), fence(report.recipe.rstrip(), "yaml")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _results(report: RunReport) -> list[str]:
    lines, every = headlines(report), result_lines(report)
    if not lines:
        return []
    parts = ["## Results", _lines(columns(report), lines), "Values with their 95 % intervals; differences are paired."]
    if len(every) > len(lines):
        parts += ["<details><summary>All metrics</summary>", _lines(columns(report), every), "</details>"]
    controls = [name for name in report.models if name in report.controls]
    if of_controls := result_lines(report, controls):
        shown = _lines(controls, of_controls)
        parts += ["<details><summary>All metrics of the controls</summary>", shown, "</details>"]
    return parts


def _lines(names: list[str], lines: list[ResultLine]) -> str:
    rows = [[line.task, line.words, *[result(row, line.is_share) for row in line.cells]] for line in lines]
    return table(["task", "metric", *names], rows)


def _answers(report: RunReport) -> list[str]:
    asked = answers(report)
    parts = ["## Answers"] if asked else []
    for item in asked:
        parts.append("Asked:\n\n" + fence(item.prompt))
        parts += [f"{cell(stage)}:\n\n" + fence(text) for stage, text in item.answers]
    return parts


def _stage(report: RunReport, stage: StageReport) -> list[str]:
    parts = [f"## {stage.name} ({stage.kind})", cell(did(stage))]
    parts += [f"- {cell(str(problem))}" for problem in stage.problems]
    made = stage.manifest
    if made is None:
        return parts + stage_parts(report, stage) + practice_parts(report, stage)
    facts = [f"time {duration(made.seconds)}"]
    if made.tokens_per_second:
        facts.append(f"{number(made.tokens_per_second)} tokens/s")
    if made.peak_memory_bytes:
        facts.append(f"peak memory {size(made.peak_memory_bytes)}")
    if stage.practises or not stage.makes_model:
        facts += [f"{figure.name} {figure.value}{_aside(figure.under)}" for figure in figures(made)]
    parts.append(cell("; ".join(facts)))
    parts += stage_parts(report, stage)
    parts += practice_parts(report, stage)
    if not stage.practises:
        parts.append(heldout_table("held-out pairs", heldout_lines(made)))
    if made.data:
        parts += _data(made.data)
    if made.heldout:
        rows = [_heldout(*item) for item in made.heldout.items()]
        parts.append(table(["held-out", "loss before", "loss after", "change"], rows))
    changed = [s for s in settings(stage.kind, made.settings) if s.is_changed]
    if changed:
        parts.append(table(["setting", "value", "default"], [[s.key, s.value, s.default] for s in changed]))
    return parts + [f"- Warning: {cell(warning)}" for warning in stage.warnings]


def _aside(text: str) -> str:
    return f" ({text})" if text else ""


def _data(data: DataSummary) -> list[str]:
    gates = gate_columns(data)
    rows = []
    for s in data.sources:
        gated = [getattr(s, field) for _, field in gates]
        numbers = (s.num_read, s.num_rejected, s.num_duplicates, *gated, left_over(s), s.num_used)
        rows.append([s.source, *[count(n) for n in numbers], s.sha256[:12]])
    head = ["source", "read", "rejected", "duplicates", *(name for name, _ in gates), "left over", "used", "sha256"]
    total = f"{count(data.num_rows)} rows" + (f", {count(data.num_tokens)} tokens" if data.num_tokens else "")
    if data.num_trained_tokens:
        trained = share(data.num_trained_tokens, data.num_tokens)
        total += f", {trained} trained, {count(data.num_truncated)} rows truncated"
    return [table(head, rows) if rows else "", total]


def _heldout(name: str, held: Heldout) -> list[str]:
    cells = [name]
    for measure in (held.before, held.after):
        bounds = interval(measure.low, measure.high, False) if measure else ""
        cells.append((number(measure.loss) + (f" ({bounds})" if bounds else "")) if measure else "")
    made = heldout_change(held)
    return [*cells, difference(made.value, False) if made else ""]
