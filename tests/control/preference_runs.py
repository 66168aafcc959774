"""A run with rollouts, rankings, reward models, guarded RLHF and its twin without a guard, through the manifests that
workers write."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from control.honest_runs import finished, trained
from control.report_runs import log, started

from llmkit.artifacts.files import write_text
from llmkit.artifacts.manifest import Curve, DataSummary, EvalRow, Sample, SourceCount
from llmkit.artifacts.rundir import RunDir

RECIPE = """\
run: {name: assistant, output_dir: runs, seed: 42}
model: {name_or_path: "llmkit.tiny:base", chat_template: chatml}
stages:
  - {name: sft, kind: sft, data: [{path: chats.jsonl}]}
  - {name: rollouts, kind: rollout, from: sft, data: [{path: prompts.jsonl}]}
  - {name: ranks, kind: rank, rollouts: rollouts, by: labeller, labeller: {path: "taste:taste", noise: 0.25}}
  - {name: people, kind: rank, rollouts: rollouts, by: human}
  - {name: rm, kind: reward, from: sft, data: [{from: ranks}], num_models: 2}
  - {name: gold, kind: reward, from: sft, data: [{from: people}]}
  - {name: rlhf, kind: rlhf, from: sft, data: [{path: prompts.jsonl}], reward_model: rm, guard: gold}
  - {name: control-off, kind: rlhf, from: sft, data: [{path: prompts.jsonl}], reward_model: rm, guard: off}
evals: [{task: preference, prompts: [{path: test.jsonl}], gold: gold, reward_model: rm, best_of_n: [2, 4]}]
"""
EVERY, STOPPED, KEPT, ALL_STEPS, NUM = 8, 64, 40, 240, 128
ALPHA, BETA = 0.579, 0.246
FELL = "step 64: stopped: gold has fallen by 0.27 since step 40 while the reward model's score rose: it is being gamed"
OFF = "the guard is off: nothing notices when the answers get worse while their scores rise"
# model -> gold, degenerate rate, tokens
MODELS = {"sft": (0.04, 0.008, 29.4), "rlhf": (1.08, 0.0, 33.1), "control-off": (-0.62, 0.37, 57.5)}
GAPS = {1: 0.586, 2: 0.693, 3: 0.756, 4: 0.819}


def preference_run(folder: Path, extra: str = "", shift: float = 0.0) -> RunDir:
    """`extra` is put wherever a model's or a user's text may stand; `shift` is added to what rlhf reached."""
    run = RunDir(folder / "assistant")
    write_text(run.recipe, RECIPE)
    trained(run, 1, "sft", "base", [{"path": "chats.jsonl"}])
    preferred(run, 2, "sft", None, extra)
    rolled_out(run, 3, extra)
    ranked(run, 4, extra)
    ranked_by_people(run, 5, extra)
    rewarded(run, 6, "rm", "ranks", extra)
    rewarded(run, 7, "gold", "people", extra)
    practised(run, 8, "rlhf", extra)
    preferred(run, 9, "rlhf", "sft", extra, shift)
    practised(run, 10, "control-off", extra)
    preferred(run, 11, "control-off", "sft", extra)
    return run


def rolled_out(run: RunDir, index: int, extra: str = "") -> None:
    rows = SourceCount(source="prompts.jsonl" + extra, num_read=1000, num_used=1000, sha256="ef" * 32)
    told = {"name": "rollouts", "kind": "rollout", "from": "sft", "models": [], "num_completions": 5}
    counts = {"prompts": 1000.0, "completions": 4975.0, "cut_off": 16.0, "without_choice": 5.0}
    rates = {"completions_per_prompt": 5.0, "tokens_per_completion": 29.3, "prompts_per_second": 25.6}
    finished(
        run,
        index,
        "rollouts",
        "rollout",
        "sft",
        {**told, "temperature": 1.0, "data": [{"path": "prompts.jsonl" + extra}]},
        metrics=counts | rates,
        samples=[Sample(prompt="A joke about otters?" + extra, completion="Why not?" + extra, label="sft")],
        data=DataSummary(sources=[rows], num_rows=995, num_tokens=146_658),
    )


def ranked(run: RunDir, index: int, extra: str = "") -> None:
    spec = {"path": f"taste:taste{extra}", "args": {}, "noise": 0.25, "num_raters": 1}
    told = {"name": "ranks", "kind": "rank", "from": "base", "rollouts": "rollouts", "by": "labeller"}
    counts = {"prompts": 995.0, "decisions": 995.0, "pairs": 9900.0, "tied_pairs": 50.0, "skipped": 0.0, "flagged": 0.0}
    finished(
        run,
        index,
        "ranks",
        "rank",
        "sft",
        {**told, "labeller": spec},
        metrics={**counts, "raters": 1.0, "noise_scale": 1.04, "right_pairs": 0.754},
        samples=[Sample(prompt="A joke?" + extra, completion="Why not?" + extra, label="ranked first")],
        data=DataSummary(num_rows=995),
    )


def ranked_by_people(run: RunDir, index: int, extra: str = "") -> None:
    told = {"name": "people", "kind": "rank", "from": "base", "rollouts": "rollouts" + extra, "by": "human"}
    counts = {"prompts": 200.0, "decisions": 410.0, "pairs": 3900.0, "tied_pairs": 120.0, "skipped": 6.0}
    counts["flagged"] = 2.0
    agreement = {"tau_between_raters": 0.44, "tau_with_oneself": 0.49, "seconds_per_prompt": 21.7}
    metrics = {**counts, "raters": 2.0, **agreement, "ceiling_with_oneself": 0.85}
    finished(run, index, "people", "rank", "sft", told, metrics=metrics, data=DataSummary(num_rows=200))


def rewarded(run: RunDir, index: int, name: str, source: str, extra: str = "") -> None:
    """`rm` has two members, a learning curve, degenerate answers and a set of its own."""
    is_rm = name == "rm"
    told: dict[str, Any] = {
        "name": name,
        "kind": "reward",
        "from": "sft",
        "data": [{"from": source}, {"path": "pairs.jsonl" + extra}],
        "num_models": 2 if is_rm else 1,
        "loss": {"type": "pairwise"},
        "degenerate": {"fraction": 0.1, "kinds": ["empty"]} if is_rm else None,
        "peft": None,
    }
    metrics = {"steps": 52.0, "last_loss": 0.606, "train_seconds": 79.8} | measures("heldout", 0.675, 166)
    metrics["heldout/ceiling"] = 0.754 if is_rm else 0.85
    curves = []
    if is_rm:
        metrics |= {"heldout/accuracy_of_0": 0.671, "heldout/accuracy_of_1": 0.668, "heldout/disagreement": 0.21}
        metrics |= {"heldout/degenerate_last": 0.985}
        metrics |= measures(f"a/b{extra}", 0.612, 90)
        points = [(104.0, 0.639), (208.0, 0.663), (416.0, 0.665), (832.0, 0.675)]
        curves = [Curve(name="rankings", x="prompts ranked", y="pair accuracy", points=points)]
    best = Sample(prompt="A joke?" + extra, completion="Why not?" + extra, label="best by score, 0.70")
    finished(run, index, name, "reward", "sft", told, metrics=metrics, curves=curves, samples=[best])


def measures(name: str, accuracy: float, num: int) -> dict[str, float]:
    """As a reward stage writes them, of one set."""
    shares = {"accuracy": accuracy, "top1": 0.337, "longer_wins": 0.595, "longer_scores": 0.711}
    shares |= {f"accuracy_gap_{gap}": share for gap, share in GAPS.items()}
    found = {"num_prompts": float(num), "num_pairs": 10.0 * num}
    for key, share in shares.items():
        found |= {key: share, f"{key}_low": share - 0.03, f"{key}_high": share + 0.03}
    plain = {"tau": 0.351, "length_correlation": 0.505, "loss": 0.592, "calibration_error": 0.021}
    return {f"{name}/{key}": value for key, value in (found | plain).items()}


def guard_curves(num_steps: int, *, has_gold: bool, unit: float = 1.0) -> list[Curve]:
    """Gold and the true taste (in units of `unit`) are highest at step 40; the reward model's score rises for ever."""
    steps = [float(step) for step in range(0, num_steps + 1, EVERY)]
    found: dict[str, list[float]] = {key: [] for key in ("kl", "reward_model", "gold", "true", "degenerate")}
    beside: dict[str, list[float]] = {
        key: [] for key in ("tokens", "distinct_2", "compression", "unlikely", "disagreement")
    }
    for step in steps:
        moved = 1 - math.exp(-step / 30)
        far, over = 5.5 * (1 - math.exp(-step / 60)) + 0.25 * math.sin(step), max(0.0, step - KEPT)
        wobble = 0.03 * math.sin(1.7 * step)
        found["kl"].append(far**2)
        found["reward_model"].append(-0.06 + 1.4 * moved + 0.006 * step + wobble)
        found["gold"].append(0.06 + 1.45 * moved - 0.02 * over)
        found["true"].append(unit * (1.3 + 1.5 * moved - 0.02 * over + 2 * wobble))
        found["degenerate"].append(min(0.9, 0.004 * over))
        beside["tokens"].append(29.6 + 0.15 * step)
        beside["distinct_2"].append(0.28 * math.exp(-step / 90))
        beside["compression"].append(5.3 + 0.03 * step)
        beside["unlikely"].append(0.01 + 0.003 * over)
        beside["disagreement"].append(0.2 + 0.001 * step)
    if not has_gold:
        del found["gold"]
    every = found | beside
    return [
        Curve(name=f"guard/{key}", x="step", y=f"guard/{key}", points=list(zip(steps, values, strict=True)))
        for key, values in sorted(every.items())
    ]


def settings(name: str, extra: str = "") -> dict[str, Any]:
    off = name.startswith("control")
    return {
        "name": name,
        "kind": "rlhf",
        "from": "sft",
        "seed": 42,
        "algorithm": "grpo",
        "data": [{"path": "prompts.jsonl" + extra}],
        "heldout": {"jokes": [{"path": "heldout.jsonl"}]},
        "rewards": [],
        "reward_model": {"from": ["rm" + extra], "combine": "min", "uncertainty": 0.5},
        "guard": "off" if off else {"gold": "gold" + extra, "labeller": None, "every": 0.05, "patience": 2},
        "measured_by": {"path": f"taste:taste{extra}", "args": {}, "noise": 0.0, "num_raters": 1},
        "trainer": {"num_generations": 16, "max_steps": ALL_STEPS},
    }


def practised(run: RunDir, index: int, name: str, extra: str = "") -> None:
    """A finished stage: stopped by its guard, or without one to its end."""
    off = name.startswith("control")
    steps = ALL_STEPS if off else STOPPED
    metrics = {"steps": float(steps), "sampled_groups": 512.0, "problems": 3000.0, "useful_groups": 0.98}
    metrics |= {"guard_evaluations": steps / EVERY + 1, "kl": 12.0, "gao_alpha": 0.62, "gao_beta": 0.08}
    if not off:
        metrics |= {"best_step": float(KEPT), "best_balance": 1.13, "guard_best_step": float(KEPT)}
        metrics |= {"guard_best_gold": 1.13, "guard_stopped": 1.0, "guard_seconds": 7.4, "guard_share": 0.093}
        metrics |= {"gao_alpha": ALPHA, "gao_beta": BETA, "gao_peak": math.exp(ALPHA / BETA - 1)}
    lines = guard_curves(steps, has_gold=not off)
    finished(
        run,
        index,
        name,
        "rlhf",
        "sft",
        settings(name, extra),
        metrics=metrics,
        curves=lines,
        samples=[
            Sample(prompt="A joke?" + extra, completion="Why not?" + extra, label="first step: step 0, reward -0.4")
        ],
        warnings=[OFF if off else FELL + extra],
        data=DataSummary(num_rows=3000),
        tokens_per_second=562.0,
    )
    log(run.stage(index, name).metrics, measure_lines(lines, steps))


def measure_lines(lines: list[Curve], until: float) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that the curves are made of."""
    steps = sorted({step for line in lines for step, _ in line.points if step <= until})
    return [
        {"time": 9.0, "phase": "measure", "step": int(step), "total": ALL_STEPS}
        | {line.name: dict(line.points)[step] for line in lines}
        for step in steps
    ]


def preferred(
    run: RunDir,
    index: int,
    model: str,
    since: str | None,
    extra: str = "",
    shift: float = 0.0,
    task: str = "preference",
) -> None:
    """An evaluation of preferences."""
    told = {
        "task": "preference",
        "name": task,
        "prompts": [{"path": "test.jsonl" + extra}],
        "gold": "gold" + extra,
        "reward_model": {"from": ["rm" + extra]},
        "baseline": "sft",
        "num_samples": 4,
        "best_of_n": [2, 4],
    }
    own = {"name": f"eval-{model}", "kind": "evaluate", "from": model, "evals": [told]}
    finished(run, index, f"eval-{model}", "evaluate", model, own, evals=preference_rows(model, since, shift, task))


def preference_rows(model: str, since: str | None, shift: float = 0.0, task: str = "preference") -> list[EvalRow]:
    before = _values(since) if since else {}
    rows = []
    for metric, (value, spread) in _values(model, shift).items():
        bounds: dict[str, Any] = {"low": value - spread, "high": value + spread}
        if metric in before:
            delta = value - before[metric][0]
            bounds |= {"delta": delta, "delta_low": delta - spread, "delta_high": delta + spread, "delta_from": since}
        rows.append(EvalRow(stage=model, task=task, metric=metric, value=value, num_samples=NUM, **bounds))
    return rows


def _values(model: str, shift: float = 0.0) -> dict[str, tuple[float, float]]:
    gold, degenerate, length = MODELS[model]
    gold += shift
    found = {
        "gold": (gold, 0.14),
        "degenerate_rate": (degenerate, 0.006),
        "truncated": (0.01, 0.008),
        "num_tokens": (length, 1.2),
        "writes_better": (0.52, 0.03),
        "reward_pair_accuracy": (0.683 if model == "sft" else 0.53, 0.03),
        "discriminator_gap": (0.163 if model == "sft" else 0.01, 0.04),
        "gold_best_of_2": (gold + 0.3, 0.12),
        "gold_best_of_4": (gold + 0.52, 0.12),
    }
    return found | ({} if model == "sft" else {"gold_win_rate": (0.86 if model == "rlhf" else 0.31, 0.05)})


def running(folder: Path, extra: str = "") -> RunDir:
    """Guarded RLHF that was looked at up to step 24."""
    run = RunDir(folder / "assistant")
    write_text(run.recipe, RECIPE)
    started(run, 8, "rlhf", "rlhf", data=[{"path": "p.jsonl" + extra}], reward_model="rm", guard="gold")
    log(run.stage(8, "rlhf").metrics, measure_lines(guard_curves(STOPPED, has_gold=True), 24))
    return run
