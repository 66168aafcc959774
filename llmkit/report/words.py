"""Sentences: what a stage did, what the whole run came to."""

from __future__ import annotations

from typing import Any

from llmkit.artifacts.manifest import DataSummary, Manifest, SourceCount, is_control
from llmkit.report.compare import ResultLine, headlines, unpaired
from llmkit.report.heldout import Pair, heldout_sets
from llmkit.report.metrics import ACCURACY
from llmkit.report.numbers import count, duration, listed, number, number_of, percent, value
from llmkit.report.run import RunReport, StageReport
from llmkit.report.words_preference import PREFERENCE_WORDS, reward_models

_KINDS = {
    "pretrain": "continued pretraining",
    "sft": "supervised fine-tuning",
    "dpo": "preference training",
    "interrogate": "knowledge probe",
    "refusals": "refusal data",
    "identity": "identity data",
    "search_index": "documents to search",
    "grpo": "practice",
    "rloo": "practice",
    "best_of_n": "best of n",
    "rollout": "rollouts",
    "rank": "rankings",
    "reward": "reward model",
    "rlhf": "reward-model practice",
    "push": "publishing",
}
_DID = {
    "pretrain": "Next-token loss on documents, packed without attention across documents.",
    "sft": "Trained on conversations, as rendered by the chat template.",
    "dpo": "Direct preference optimisation on pairs of a better and a worse answer.",
    "grpo": "Practised problems by trying: answers that score above the others of their group become likelier (GRPO).",
    "rloo": "Practised problems by trying: answers that score above the others of their group become likelier (RLOO).",
    "rlhf": "Practised what a reward model likes: answers that score above the others of their group become likelier.",
}


def summary(report: RunReport) -> str:
    """One line: how long the chain took and what the final model reaches."""
    finished = [stage for stage in report.chain if stage.status == "finished"]
    if not finished:
        return "No stage has finished yet."
    text = f"{number_of(len(finished), 'stage')} in {duration(report.seconds)}, evaluations included"
    open_stages = len(report.chain) - len(finished)
    return f"{text}; {open_stages} not finished." if open_stages else f"{text}."


def final_figures(report: RunReport) -> list[ResultLine]:
    """What stands for every task that the final model was measured on."""
    return [line for line in headlines(report) if line.last.stage == report.final]


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
    if not stage.makes_model:
        return _made_rows(stage)
    what = _DID.get(stage.kind, f"A stage of kind {stage.kind}.")
    origin = "New weights, from scratch" if stage.parent is None else f"Starts from {stage.parent}"
    peft = made.settings.get("peft")
    weights = f"{peft['method']} adapter of rank {peft['r']}" if isinstance(peft, dict) else "all weights trained"
    workers = "1 process" if made.world_size == 1 else f"{made.world_size} processes"
    control = " A control: it shows what is reached without the method." if is_control(stage.name) else ""
    story = _practised(made) if stage.practises else ""
    return f"{what} {origin}; {weights}; {workers} on {made.device}.{control}{story}"


def _practised(made: Manifest) -> str:
    """What it drew from, what it sampled, how it was scored, and what became of the accuracy."""
    problems, groups, size = made.metrics.get("problems"), made.metrics.get("sampled_groups"), group_size(made)
    noun = "prompt" if made.kind == "rlhf" else "problem"
    parts = [f"drew on {number_of(problems, noun)}"] if problems else []
    if groups and size:
        parts.append(f"sampled {number_of(groups * size, 'answer')} in groups of {size}")
    elif groups:
        parts.append(f"sampled {number_of(groups, 'group')} of answers")
    judges = [f"the reward model {name}" for name in reward_models(made.settings)]
    if rewards := listed([*judges, *_rewards(made.settings.get("rewards"))]):
        parts.append(f"scored them by {rewards}")
    moved = [text for name, own in heldout_sets(made).items() if (text := _moved(name, own.get(ACCURACY, Pair())))]
    told = [f"it {listed(parts)}"] if parts else []
    told += [f"greedy accuracy {listed(moved)}"] if moved else []
    text = "; ".join(told)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _moved(name: str, accuracy: Pair) -> str:
    if accuracy.bounded is None:
        return ""
    before, after = (percent(each.value) for each in accuracy.bounded)
    verdict = unpaired(ACCURACY, *accuracy.bounded).verdict
    if verdict == "unclear":
        return f"did not clearly change on {name} ({before} to {after})"
    return f"{'rose' if verdict == 'up' else 'fell'} from {before} to {after} on {name}"


def _rewards(specs: Any) -> list[str]:
    """Those that count: a weight of 0 only reports."""
    given = [spec for spec in specs if isinstance(spec, dict)] if isinstance(specs, list) else []
    return [
        f"{spec.get('name') or str(spec.get('path', '')).rpartition(':')[2]}{_weight(spec.get('weight', 1))}"
        for spec in given
        if spec.get("weight", 1)
    ]


def _weight(weight: float) -> str:
    return "" if weight == 1 else f" (weight {weight:g})"


def group_size(made: Manifest) -> int:
    """Sampled answers of a group; 0 where the settings do not say."""
    trainer = made.settings.get("trainer")
    size = trainer.get("num_generations") if isinstance(trainer, dict) else None
    return size if isinstance(size, int) else 0


def _attempted(stage: StageReport) -> str:
    """Of rejection sampling."""
    times = stage.settings.get("num_samples")
    told = f"Had {stage.parent or 'base'} answer every problem {times} times, and kept right answers as training rows."
    metrics = stage.manifest.metrics if stage.manifest else {}
    if not {"problems", "rows", "never_solved"} <= set(metrics):
        return told
    easy = metrics.get("too_easy")
    left_out = f", and {count(int(easy))} were left out as too easy" if easy else ""
    gave = f"{number_of(metrics['problems'], 'problem')} gave {number_of(metrics['rows'], 'row')}"
    return f"{told} {gave}; {count(int(metrics['never_solved']))} were never solved{left_out}."


def _made_rows(stage: StageReport) -> str:
    """Of a stage that trains nothing."""
    if stage.kind == "interrogate":
        return f"Asked {stage.parent or 'base'} questions without their documents, and labelled each by its answers."
    if stage.kind == "best_of_n":
        return _attempted(stage)
    if stage.kind == "search_index":
        return _indexed(stage)
    if stage.kind == "push":
        places = stage.manifest.published if stage.manifest else []
        return f"Published {' and '.join(f'{one.repo_id} at {one.tag}' for one in places) or 'nothing'}."
    if stage.kind == "identity":
        name = (stage.settings.get("identity") or {}).get("name")
        return f"Wrote conversations in which the model is asked who it is, and doubted{f': {name}' if name else ''}."
    if stage.kind in PREFERENCE_WORDS:
        return PREFERENCE_WORDS[stage.kind](stage)
    return _refused(stage) if stage.kind == "refusals" else f"A stage of kind {stage.kind}."


def _refused(stage: StageReport) -> str:
    """What became of what a probe showed."""
    probed = " and ".join(stage.settings.get("probes") or []) or "a probe"
    searched = ", and searches for that" if stage.settings.get("lookup") else ""
    about = {"random": " The labels are shuffled: a control."}.get(stage.settings.get("relabel", ""), "")
    about = about or (" Refusals only: a control." if stage.settings.get("known_ratio") == 0 else "")
    rows = f"Made training rows from {probed}: answers to what is known, refusals of what is not{searched}."
    metrics = stage.manifest.metrics if stage.manifest else {}
    if not {"lookups_found", "lookups_not_found"} <= set(metrics):
        return rows + about
    found, not_found = (count(int(metrics[f"lookups_{key}"])) for key in ("found", "not_found"))
    return f"{rows} {found} searches found the answer, {not_found} did not.{about}"


def _indexed(stage: StageReport) -> str:
    metrics = stage.manifest.metrics if stage.manifest else {}
    if not {"documents", "passages"} <= set(metrics):
        return "Made documents ready to be searched."
    held = number_of(int(metrics["passages"]), "passage")
    return f"Made {number_of(int(metrics['documents']), 'document')} ready to be searched, as {held}."


def _state(stage: StageReport) -> str:
    if stage.status == "planned":
        return "Not started."
    if stage.progress is None:
        return "Failed." if stage.status == "failed" else "Unfinished; nothing was logged yet."
    seen = stage.progress
    total = f" of {count(seen.total)}" if seen.total else ""
    at = f"at step {count(seen.step)}{total}, phase {seen.phase or 'unnamed'}, {duration(seen.seconds)} after its start"
    return f"Failed {at}." if stage.status == "failed" else f"Unfinished; last seen {at}."


def share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else ""


def fact(key: str, figure: float) -> tuple[str, str]:
    """A logged metric's name and value for readers: `train_seconds` is a time."""
    if key.endswith("_seconds"):
        return f"{key.removesuffix('_seconds').replace('_', ' ')} time", duration(figure)
    return "tokens seen" if key == "tokens" else key.replace("_", " "), number(figure)


def left_over(source: SourceCount) -> int:
    """Good rows that the mixture of sources had no place for."""
    kept_out = source.num_rejected + source.num_duplicates + source.num_gated + source.num_heldout
    return max(0, source.num_read - kept_out - source.num_used)


def gate_columns(summary: DataSummary) -> list[tuple[str, str]]:
    """(heading, field) of what `require_known` did; empty where it did nothing."""
    fields = (("not known", "num_gated"), ("held out", "num_heldout"), ("not probed", "num_not_probed"))
    return [(name, field) for name, field in fields if any(getattr(source, field) for source in summary.sources)]
