"""Sentences: what a stage did, what the whole run came to."""

from __future__ import annotations

from llmkit.artifacts.manifest import SourceCount
from llmkit.report.collect import RunReport, StageReport
from llmkit.report.compare import ResultLine, headlines
from llmkit.report.numbers import count, duration, number, percent, value

_KINDS = {"pretrain": "continued pretraining", "sft": "supervised fine-tuning"}
_DID = {
    "pretrain": "Next-token loss on documents, packed without attention across documents.",
    "sft": "Trained on conversations, as rendered by the chat template.",
}


def summary(report: RunReport) -> str:
    """One line: how long the chain took and what the final model reaches."""
    finished = [stage for stage in report.chain if stage.status == "finished"]
    if not finished:
        return "No stage has finished yet."
    text = f"{_number_of(len(finished), 'stage')} in {duration(report.seconds)}, evaluations included"
    open_stages = len(report.chain) - len(finished)
    return f"{text}; {open_stages} not finished." if open_stages else f"{text}."


def final_figures(report: RunReport) -> list[ResultLine]:
    """The first metric of every task that the final model was measured on."""
    final = next((stage.name for stage in reversed(report.chain) if stage.status == "finished"), "base")
    return [line for line in headlines(report) if line.last.stage == final]


def figure(line: ResultLine) -> str:
    return value(line.last.value, line.is_share)


def kind_of(stage: StageReport) -> str:
    """The kind of a stage in words."""
    return "pretraining" if stage.kind == "pretrain" and stage.parent is None else _KINDS.get(stage.kind, stage.kind)


def did(stage: StageReport) -> str:
    """What a stage did and to what, in one or two sentences."""
    if stage.manifest is None:
        return _state(stage)
    made = stage.manifest
    what = _DID.get(stage.kind, f"A stage of kind {stage.kind}.")
    origin = "New weights, from scratch" if stage.parent is None else f"Starts from {stage.parent}"
    peft = made.settings.get("peft")
    weights = f"{peft['method']} adapter of rank {peft['r']}" if isinstance(peft, dict) else "all weights trained"
    workers = "1 process" if made.world_size == 1 else f"{made.world_size} processes"
    return f"{what} {origin}; {weights}; {workers} on {made.device}."


def _state(stage: StageReport) -> str:
    if stage.status == "planned":
        return "Not started."
    if stage.progress is None:
        return "Failed." if stage.status == "failed" else "Unfinished; nothing was logged yet."
    seen = stage.progress
    total = f" of {count(seen.total)}" if seen.total else ""
    at = f"at step {count(seen.step)}{total}, phase {seen.phase or 'unnamed'}, {duration(seen.seconds)} after its start"
    return f"Failed {at}." if stage.status == "failed" else f"Unfinished; last seen {at}."


def _number_of(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else ""


def fact(key: str, figure: float) -> tuple[str, str]:
    """A logged metric's name and value for readers: `train_seconds` is a time."""
    if key.endswith("_seconds"):
        return f"{key.removesuffix('_seconds').replace('_', ' ')} time", duration(figure)
    return "tokens seen" if key == "tokens" else key.replace("_", " "), number(figure)


def left_over(source: SourceCount) -> int:
    """Good rows that the mixture of sources had no place for."""
    return max(0, source.num_read - source.num_rejected - source.num_duplicates - source.num_used)
