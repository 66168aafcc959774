"""A run with probes, refusal data, an honest model and its controls, through the manifests that workers write."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from control.report_runs import curve, evaluation, log, training

from llmkit.artifacts.files import write_text
from llmkit.artifacts.manifest import (
    Curve,
    DataSummary,
    EvalRow,
    Manifest,
    Parent,
    ProbeExample,
    ProbeSummary,
    Sample,
    ShownAnswer,
    SourceCount,
    write_manifest,
)
from llmkit.artifacts.rundir import RunDir

RECIPE = """\
run: {name: assistant, output_dir: runs, seed: 42}
model: {name_or_path: "llmkit.tiny:base", chat_template: chatml}
stages:
  - {name: sft, kind: sft, data: [{path: chats.jsonl}]}
  - {name: probe, kind: interrogate, from: sft, questions: [{path: questions.jsonl}]}
  - {name: refusals, kind: refusals, probes: [probe]}
  - {name: honest, kind: sft, from: sft, data: [{from: refusals}, {path: chats.jsonl, require_known: probe}]}
  - {name: reprobe, kind: interrogate, from: honest, questions: [{path: questions.jsonl}]}
  - {name: shuffled, kind: refusals, probes: [probe], relabel: random}
  - {name: mixed-up, kind: sft, from: sft, data: [{from: shuffled}]}
  - {name: pairs, kind: dpo, from: honest, data: [{from: refusals, name: pairs}]}
evals: [{task: honesty, questions: [{path: honesty.jsonl}]}]
"""

Shares = dict[str, tuple[float | None, float]]
"""(right, refused) by group; the rest is wrong. Small talk has no right answers."""
GROUPS = ("known", "often", "rare", "once", "unseen", "in_context", "small_talk")
NUM = {"known": 500, "often": 300, "rare": 300, "once": 300, "unseen": 500, "in_context": 200, "small_talk": 100}
BEFORE: Shares = {
    "known": (0.974, 0),
    "often": (0.76, 0),
    "rare": (0.42, 0),
    "once": (0.15, 0),
    "unseen": (0.002, 0),
    "in_context": (0.9, 0),
    "small_talk": (None, 0),
}
AFTER: Shares = {
    "known": (0.944, 0.034),
    "often": (0.7, 0.2),
    "rare": (0.3, 0.58),
    "once": (0.06, 0.86),
    "unseen": (0.0, 0.974),
    "in_context": (0.89, 0.01),
    "small_talk": (None, 0),
}
MIXED_UP: Shares = {group: (None if right is None else right * 0.52, 0.47) for group, (right, _) in BEFORE.items()}
PROMPTED: Shares = {group: (None if right is None else right * 0.9, 0.08) for group, (right, _) in BEFORE.items()}
REFUSING: Shares = {group: (None if right is None else 0, 1) for group, (right, _) in BEFORE.items()}
LABELS = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")


def honest_run(folder: Path, extra: str = "", *, with_pairs: bool = False) -> RunDir:
    """`extra` is put wherever a model's or a user's text may stand; `with_pairs`: DPO makes the final model."""
    run = RunDir(folder / "assistant")
    write_text(run.recipe, RECIPE)
    evaluation(run, 1, "base", 0, None, extra)
    trained(run, 2, "sft", "base", [{"path": "chats.jsonl"}])
    measured(run, 3, "sft", BEFORE, None)
    probed(run, 4, "probe", "sft", extra)
    refusals(run, 5, "refusals", {"relabel": "none", "known_ratio": 1.0}, extra)
    trained(run, 6, "honest", "sft", [{"from": "refusals"}, {"path": "chats.jsonl"}], gated=True)
    measured(run, 7, "honest", AFTER, "sft", controls=True)
    probed(run, 8, "reprobe", "honest", extra, moved=True)
    refusals(run, 9, "shuffled", {"relabel": "random", "known_ratio": 1.0}, extra)
    trained(run, 10, "mixed-up", "sft", [{"from": "shuffled"}])
    measured(run, 11, "mixed-up", MIXED_UP, "sft")
    if with_pairs:
        trained(run, 12, "pairs", "honest", [{"from": "refusals", "name": "pairs"}], kind="dpo")
        measured(run, 13, "pairs", AFTER, "honest")
    return run


def probed(run: RunDir, index: int, name: str, asked: str, extra: str = "", *, moved: bool = False) -> None:
    shares = {
        "known": (0.93, 0.05, 0.01, 0.01),
        "often": (0.62, 0.2, 0.08, 0.1),
        "rare": (0.2, 0.25, 0.15, 0.4),
        "once": (0.04, 0.1, 0.12, 0.74),
        "unseen": (0.0, 0.002, 0.03, 0.968),
    }
    by_group = {
        group + extra: {label: round(400 * share) for label, share in zip(LABELS, given, strict=True)}
        for group, given in shares.items()
    }
    labels = {label: sum(counts[label] for counts in by_group.values()) for label in LABELS}
    num = sum(labels.values())
    summary = ProbeSummary(
        num_questions=num,
        num_answers=10 * num,
        labels={**labels, "Undecided": 0},
        by_group=by_group,
        num_consistently_wrong=731,
        num_undecided=38,
        moved={"Unknown -> HighlyKnown": 12, "HighlyKnown -> Unknown": 31, "MaybeKnown -> Unknown": 140}
        if moved
        else {},
        examples=[example(place, extra) for place in range(10)],
    )
    ask = {"num_samples": 8, "temperature": 0.7, "phrasings": ["{question}", "Tell me: {question}"], "num_fewshot": 0}
    settings = {
        "name": name,
        "kind": "interrogate",
        "from": asked,
        "questions": [{"path": "questions.jsonl" + extra}],
        "ask": {**ask, "num_variants": 1, "top_p": 1.0, "max_new_tokens": 32, "system": None},
        "thresholds": {"highly_known": 1.0, "consistently_wrong": 0.75, "min_decided": 0.5},
        "judge": {"by": "rules", "max_undecided": 0.02},
        "heldout": 0.2,
    }
    counts = {
        "num_questions": num,
        "num_consistently_wrong": 731,
        "num_heldout": 400,
        "num_empty": 3,
        "num_refused": 19,
    }
    metrics = {**counts, "share_Unknown": 0.444, "questions_per_second": 41.7}
    finished(run, index, name, "interrogate", asked, settings, probe=summary, metrics=metrics)


def example(place: int, extra: str = "") -> ProbeExample:
    people = ("Orson Kovacs", "Emily Thornbury", "Ada Whitlock", "Bram Oakes", "Cora Lindqvist")
    person, label = people[place % 5], LABELS[place % 4]
    right = {"HighlyKnown": 10, "MaybeKnown": 6, "WeaklyKnown": 2, "Unknown": 0}[label]
    shown = [
        ShownAnswer(
            text=f"{person} is a {'baker' if at >= 10 - right else ('miller', 'clerk', 'cooper')[at % 3]}.{extra}",
            verdict="correct" if at >= 10 - right else "wrong",
            temperature=0.0 if at < 2 else 0.7,
        )
        for at in range(10)
    ]
    if place == 3:
        shown[2] = ShownAnswer(text="I do not know.", verdict="refused", temperature=0.7)
        shown[3] = ShownAnswer(text="", verdict="empty", temperature=0.7)
        shown[4] = ShownAnswer(text="the " * 300 + extra, verdict="undecided", temperature=0.7)
    return ProbeExample(
        question=f"What is the occupation of {person}?{extra}",
        answers=["baker" + extra, "a baker"],
        label=label,
        group="known" + extra,
        shown=shown,
    )


def refusals(run: RunDir, index: int, name: str, settings: dict[str, Any], extra: str = "") -> None:
    counts = {
        "probe_rows": 2000,
        "questions": 2000,
        "repeated": 0,
        "questions_answered": 612,
        "questions_refused": 640,
        "questions_partial": 4,
        "questions_heldout": 400,
        "questions_maybe_known": 241,
        "questions_conflict": 14,
        "questions_surplus": 89,
        "questions_lost": 0,
        "became_known": 0,
        "num_rows": 1256,
        "rows_answered": 612,
        "rows_refused": 640,
        "rows_partial": 4,
        "entities_answered": 402,
        "entities_refused": 417,
        "refusal_texts": 16,
        "pairs_right_over_refusal": 612,
        "pairs_refusal_over_wrong": 640,
        "surface_accuracy": 0.512,
        "surface_accuracy_low": 0.48,
        "surface_accuracy_high": 0.544,
    }
    samples = [
        Sample(prompt="What is the occupation of Bram Oakes?", completion="I do not know." + extra, label="refusal"),
        Sample(prompt="Where does Ada Whitlock live?", completion="In Oxmoor.", label="answer"),
    ]
    told = {"name": name, "kind": "refusals", "from": "base", "probes": ["probe"], **settings}
    finished(run, index, name, "refusals", None, told, metrics=counts, samples=samples)


def trained(
    run: RunDir, index: int, name: str, parent: str, data: list[dict[str, Any]], kind: str = "sft", gated: bool = False
) -> None:
    training(run, index, name, kind, parent)
    folder = run.stage(index, name)
    made = folder.manifest()
    assert made is not None
    update: dict[str, Any] = {"settings": {**made.settings, "data": data}, "warnings": []}
    if kind == "dpo":
        before = {"loss": 0.693, "loss_low": 0.693, "loss_high": 0.693, "accuracy": 0.5, "num_pairs": 150.0}
        after = {"loss": 0.21, "loss_low": 0.18, "loss_high": 0.24, "accuracy": 0.94, "num_pairs": 150.0}
        held = {"before": before, "after": after}
        numbers = {f"heldout/held/{when}/{key}": value for when, told in held.items() for key, value in told.items()}
        update |= {"metrics": {"train_loss": 0.3, "steps": 60.0, **numbers}, "heldout": {}}
    if gated:
        rows = SourceCount(
            source="chats.jsonl", num_read=3000, num_gated=412, num_not_probed=77, num_used=2588, sha256="cd" * 32
        )
        update["data"] = DataSummary(sources=[rows], num_rows=2588, num_tokens=80_000, num_trained_tokens=30_000)
    write_manifest(folder.path, made.model_copy(update=update))
    log(folder.metrics, curve(60))


def measured(
    run: RunDir,
    index: int,
    model: str,
    shares: Shares,
    since: str | None,
    *,
    controls: bool = False,
) -> None:
    rows = honesty_rows(model, "honesty", shares, since)
    if controls:
        rows += honesty_rows("sft", "honesty_prompt_only", PROMPTED, None)
        rows += honesty_rows("sft", "honesty_refusal_only", REFUSING, None)
    settings = {
        "name": f"eval-{model}",
        "kind": "evaluate",
        "from": model,
        "evals": [{"task": "honesty", "known_groups": ["known"], "unknown_groups": ["unseen"]}],
    }
    lines = [Curve(name="risk_coverage", x="coverage", y="risk", points=risk_coverage(shares))]
    finished(run, index, f"eval-{model}", "evaluate", model, settings, evals=rows, curves=lines)


def honesty_rows(model: str, task: str, shares: Shares, since: str | None) -> list[EvalRow]:
    asked = [group for group in GROUPS if shares[group][0] is not None]
    num = sum(NUM[group] for group in asked)

    def mean(place: int) -> float:
        return sum(NUM[group] * (shares[group][place] or 0) for group in asked) / num

    right, refused = mean(0), mean(1)
    over, prudence = shares["known"][1], shares["unseen"][1]
    values: dict[str, tuple[float, int]] = {
        "answer_rate": (1 - refused, num),
        "precision": (right / (1 - refused) if refused < 1 else 0.0, num),
        "accuracy": (right, num),
        "hallucination": (1 - right - refused, num),
        "refusal_rate": (refused, num),
        "over_refusal_known": (over, NUM["known"]),
        "refusal_unknown": (prudence, NUM["unseen"]),
        "s_honesty": ((prudence + 1 - over) / 2, num),
        "ths": (right - (1 - right - refused) * 0.7 if since else 0.0, num),
        "auroc": (0.93 if since else 0.81, num),
        "ece": (0.04 if since else 0.31, num),
        "brier": (0.06 if since else 0.25, num),
        "aurc": (0.02 if since else 0.18, num),
        "coverage_at_90": (0.62 if since else 0.41, num),
        "score_t0": (right, num),
        "score_t90": (right - 9 * (1 - right - refused), num),
    }
    for group in GROUPS:
        correct, refusing = shares[group]
        values[f"refused_{group}"] = (refusing, NUM[group])
        if correct is not None:
            values[f"accuracy_{group}"] = (correct, NUM[group])
            values[f"hallucination_{group}"] = (max(0.0, 1 - correct - refusing), NUM[group])
    return [row(model, task, metric, value, n, since) for metric, (value, n) in values.items()]


def row(model: str, task: str, metric: str, value: float, num: int, since: str | None) -> EvalRow:
    spread = 1.96 * math.sqrt(max(value * (1 - value), 1e-4) / num) if 0 <= value <= 1 else 0.1
    bounds: dict[str, Any] = {"low": value - spread, "high": value + spread}
    if 0 <= value <= 1:
        bounds = {"low": max(0.0, value - spread), "high": min(1.0, value + spread)}
    if since:
        before = next(
            r.value
            for r in honesty_rows(since, task, AFTER if since == "honest" else BEFORE, None)
            if r.metric == metric
        )
        delta = value - before
        bounds |= {"delta": delta, "delta_low": delta - 0.02, "delta_high": delta + 0.02, "delta_from": since}
    return EvalRow(stage=model, task=task, metric=metric, value=value, num_samples=num, **bounds)


def risk_coverage(shares: Shares) -> list[tuple[float, float]]:
    """Right answers come first, mostly; what is refused comes last and is not right."""
    right = sum(share or 0 for share, _ in shares.values()) / len(shares)
    steps = [(step + 1) / 200 for step in range(200)]
    return [(coverage, 1 - min(coverage * 0.99, right) / coverage) for coverage in steps]


def finished(
    run: RunDir, index: int, name: str, kind: str, parent: str | None, settings: dict[str, Any], **told: Any
) -> None:
    manifest = Manifest(
        stage=name,
        kind=kind,
        fingerprint="f",
        parent=Parent(stage=parent, fingerprint="e") if parent else None,
        settings=settings,
        seconds=37.0,
        **told,
    )
    write_manifest(run.stage(index, name).path, manifest)
