"""The report as markdown: the same figures for a README, a pull request or a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmkit.artifacts.manifest import DataSummary, EvalRow, Heldout
from llmkit.report.answers import answers
from llmkit.report.collect import RunReport, StageReport
from llmkit.report.compare import ResultLine, change, columns, headlines, heldout_change, result_lines
from llmkit.report.numbers import count, difference, difference_interval, duration, interval, number, size, value
from llmkit.report.settings import settings
from llmkit.report.words import did, left_over, share, summary


def markdown(report: RunReport) -> str:
    parts = [f"# {report.name}", summary(report), *_results(report), *_answers(report)]
    for stage in report.chain:
        parts += _stage(stage)
    parts += ["## Reproduce", _fence("llmkit run recipe.yaml", "sh"), _fence(report.recipe.rstrip(), "yaml")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _results(report: RunReport) -> list[str]:
    lines, every = headlines(report), result_lines(report)
    if not lines:
        return []
    parts = ["## Results", _lines(report, lines), "Values with their 95 % intervals; differences are paired."]
    if len(every) > len(lines):
        parts += ["<details><summary>All metrics</summary>", _lines(report, every), "</details>"]
    return parts


def _lines(report: RunReport, lines: list[ResultLine]) -> str:
    rows = [[line.task, line.metric, *[_result(row, line.is_share) for row in line.cells]] for line in lines]
    return _table(["task", "metric", *columns(report)], rows)


def _result(row: EvalRow | None, is_share: bool) -> str:
    if row is None:
        return ""
    bounds = interval(row.low, row.high, is_share)
    text = value(row.value, is_share) + (f" ({bounds})" if bounds else "")
    if made := change(row):
        mark = "no clear change" if made.verdict == "unclear" else made.verdict
        bounds = difference_interval(made.low, made.high, is_share)
        text += f"; {mark} {difference(made.value, is_share)} ({bounds}) since {made.since}"
    return text


def _answers(report: RunReport) -> list[str]:
    asked = answers(report)
    parts = ["## Answers"] if asked else []
    for item in asked:
        parts.append("Asked:\n\n" + _fence(item.prompt))
        parts += [f"{_cell(stage)}:\n\n" + _fence(text) for stage, text in item.answers]
    return parts


def _stage(stage: StageReport) -> list[str]:
    parts = [f"## {stage.name} ({stage.kind})", did(stage)]
    parts += [f"- {_cell(str(problem))}" for problem in stage.problems]
    made = stage.manifest
    if made is None:
        return parts
    facts = [f"time {duration(made.seconds)}"]
    if made.tokens_per_second:
        facts.append(f"{number(made.tokens_per_second)} tokens/s")
    if made.peak_memory_bytes:
        facts.append(f"peak memory {size(made.peak_memory_bytes)}")
    parts.append("; ".join(facts))
    if made.data:
        parts += _data(made.data)
    if made.heldout:
        rows = [_heldout(*item) for item in made.heldout.items()]
        parts.append(_table(["held-out", "loss before", "loss after", "change"], rows))
    changed = [s for s in settings(stage.kind, made.settings) if s.is_changed]
    if changed:
        parts.append(_table(["setting", "value", "default"], [[s.key, s.value, s.default] for s in changed]))
    return parts + [f"- Warning: {_cell(warning)}" for warning in stage.warnings]


def _data(data: DataSummary) -> list[str]:
    rows = [
        [
            s.source,
            *[count(n) for n in (s.num_read, s.num_rejected, s.num_duplicates, left_over(s), s.num_used)],
            s.sha256[:12],
        ]
        for s in data.sources
    ]
    trained = share(data.num_trained_tokens, data.num_tokens)
    figures = f"{count(data.num_rows)} rows, {count(data.num_tokens)} tokens, {trained} trained"
    return [
        _table(["source", "read", "rejected", "duplicates", "left over", "used", "sha256"], rows),
        f"{figures}, {count(data.num_truncated)} rows truncated",
    ]


def _heldout(name: str, held: Heldout) -> list[str]:
    cells = [name]
    for measure in (held.before, held.after):
        bounds = interval(measure.low, measure.high, False) if measure else ""
        cells.append((number(measure.loss) + (f" ({bounds})" if bounds else "")) if measure else "")
    made = heldout_change(held)
    return [*cells, difference(made.value, False) if made else ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    text = " ".join(text.split()) if "\n" in text else text
    return re.sub(r"([\\|<>`*\[\]])", r"\\\1", text)


def _fence(text: str, language: str = "text") -> str:
    """A code block whose fence is longer than any run of backticks inside, so that the text cannot leave it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
